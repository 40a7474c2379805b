"""A small campaign of faults; `python -m toolchain.tests.campaign` is the large one."""

from __future__ import annotations

import platform
import random

import pytest

from toolchain.devices import deploy
from toolchain.tests import sshd
from toolchain.tests.campaign import acts, benches, faults, run
from toolchain.tests.campaign.acts import Product
from toolchain.tests.conftest import copied
from toolchain.tests.projects import RECIPE, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.board]


@pytest.fixture(scope="module")
def native(tmp_path_factory) -> Product:
    """A bundle for this host."""
    project = copied(tmp_path_factory.mktemp("native") / "slipway")
    target = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
    write_recipe(project.file("recipes/tiny"), RECIPE.replace("arm64", target))
    said = project.scons("bundles", f"target={target}", "variant=int8", "backend=xnnpack")
    assert said.status == 0, said.out + said.err
    return Product.of_build(project.file(f"build/tiny/int8/xnnpack/{target}/bundle.tar"))


@pytest.mark.skipif(sshd.program() is None, reason="openssh-server is not installed")
def test_a_server_survives_each_kind_of_fault(native, tmp_path):
    product = native
    with benches.server(tmp_path / "server") as bench:
        _broken(bench, product, tmp_path)


def test_a_board_survives_each_kind_of_fault(built, tmp_path):
    product = Product.of_build(built.file("build/tiny/int8/xnnpack/arm64/bundle.tar"))
    with benches.board(tmp_path / "board") as bench:
        _broken(bench, product, tmp_path)


def _broken(bench: benches.Bench, product: Product, folder) -> None:
    chance = random.Random()  # another one each time: what fails says its number and kind
    wanted = run.drawn(bench.kind, 0, chance)
    report = run.campaign(bench, product, wanted, chance, folder)
    assert report.total == len(faults.MIX[bench.kind])


def test_a_client_that_leaves_half_of_it_is_noticed(tmp_path, built):
    """The campaign itself can fail: a bundle that is damaged in silence is found."""
    product = Product.of_build(built.file("build/tiny/int8/xnnpack/arm64/bundle.tar"))

    def damaging(scene: faults.Scene) -> str:
        acts.push(scene.bench.unit(), scene.new)
        with benches.connect(scene.bench) as device:
            (slot,) = deploy.slots(device)
            script = 'chmod u+w "$1/runner" && printf X >>"$1/runner"'
            device.ask(script, slot.path, doing="damaging a file")
        return "done"

    with benches.board(tmp_path / "board") as bench, pytest.raises(AssertionError, match="damaged"):
        run.campaign(bench, product, [damaging], random.Random(1), tmp_path)
