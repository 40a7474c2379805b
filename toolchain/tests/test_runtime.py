"""The wheel of a target's runtime: fetched once, by pip, then taken from the cache."""

from __future__ import annotations

import sys
import zipfile

import pytest

from toolchain.errors import InfraError
from toolchain.schema import Target
from toolchain.steps import runtime

PLATFORM = "manylinux_2_28_aarch64"
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes wheels from; no network, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "executorch-9.9.9.dist-info"
    wheel = folder / f"executorch-9.9.9-{PYTHON}-{PYTHON}-{PLATFORM}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: executorch\nVersion: 9.9.9\n"
        )
        archive.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {PYTHON}-{PYTHON}-{PLATFORM}\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def target(tmp_path):
    file = tmp_path / "target.json"
    value = Target.model_validate_json(
        f'{{"summary": "", "arch": "aarch64", "triple": "t", "wheel_platform": "{PLATFORM}",'
        f' "backends": ["xnnpack"], "device": {{"default": "qemu:cortex-a72"}}}}'
    )
    file.write_text(value.canonical())
    return file


def test_a_wheel_is_fetched_once(index, target, tmp_path):
    wheel = next(index.iterdir())
    content = wheel.read_bytes()
    runtime.run(
        target=target, runtime="executorch", version="9.9.9", out=tmp_path / "build/one.whl"
    )
    wheel.unlink()
    runtime.run(
        target=target, runtime="executorch", version="9.9.9", out=tmp_path / "build/two.whl"
    )
    for name in ("one.whl", "two.whl"):
        assert (tmp_path / "build" / name).read_bytes() == content
    assert [f.name for f in (tmp_path / "build").iterdir() if f.name.startswith(".")] == []


@pytest.mark.usefixtures("index")
def test_another_version_is_another_wheel(target, tmp_path):
    runtime.run(target=target, runtime="executorch", version="9.9.9", out=tmp_path / "one.whl")
    with pytest.raises(
        InfraError, match=r"executorch 9\.9\.8 .* could not be fetched: ERROR: .*9\.9\.8"
    ):
        runtime.run(target=target, runtime="executorch", version="9.9.8", out=tmp_path / "two.whl")
    assert not (tmp_path / "two.whl").exists()
    assert len(list((tmp_path / "cache/wheels").glob("*.whl"))) == 1


@pytest.mark.usefixtures("index")
def test_a_failure_names_the_next_command(target, tmp_path):
    with pytest.raises(InfraError) as caught:
        runtime.run(target=target, runtime="executorch", version="9.9.8", out=tmp_path / "two.whl")
    assert "python -m pip download" in caught.value.hint
    assert f"--platform {PLATFORM} executorch==9.9.8" in caught.value.hint


def test_a_damaged_wheel_is_fetched_again(index, target, tmp_path):
    content = next(index.iterdir()).read_bytes()
    runtime.run(target=target, runtime="executorch", version="9.9.9", out=tmp_path / "one.whl")
    (kept,) = (tmp_path / "cache/wheels").glob("*.whl")
    kept.write_bytes(content[:-30])
    runtime.run(target=target, runtime="executorch", version="9.9.9", out=tmp_path / "two.whl")
    assert (tmp_path / "two.whl").read_bytes() == kept.read_bytes() == content
