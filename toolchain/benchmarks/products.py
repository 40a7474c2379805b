"""Slipway's own programs in the race: built by scons, run from their bundles."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolchain import backends, bootstrap, isa, jobs
from toolchain.bundle import Bundle
from toolchain.catalog import Catalog
from toolchain.errors import CheckFailed, InfraError, SlipwayError, UserError
from toolchain.layout import Layout

DEFAULT_TARGETS = ("x86_64_v4", "x86_64")  # the first whose floor this host has
OF_RECIPE = ("model.pt2", "calibration.safetensors", "evaluation.safetensors",
             "reference.safetensors")  # fmt: skip


@dataclass(frozen=True)
class Product:
    """A program of Slipway. runtime: description of what runs it, libraries beside it."""

    name: str
    layout: Layout
    bundle: Bundle
    runtime: Path

    @property
    def bytes(self) -> int:
        return int(self.bundle.manifest["bytes"]["program"])


def own_target(catalog: Catalog) -> str:
    """The target that is nearest to this host: the others take what its CPU has, too."""
    here = isa.of_this_host()
    return next(n for n in DEFAULT_TARGETS if isa.features(catalog.targets[n].isa) <= here)


def build(
    catalog: Catalog, target: str, recipe: str, more: Sequence[str], folder: Path
) -> list[Product]:
    """Bring the bundles of a recipe for a target up to date; more: variants built by name.

    Raises what scons failed with: UserError (2), InfraError (3), or CheckFailed.
    """
    found = list(_jobs(catalog, target, recipe, more))
    variants = ",".join(dict.fromkeys(job.variant_name for job in found))
    command = [
        str(bootstrap.VENV / "bin" / "scons"), "-Q", "bundles",
        *(str(folder / recipe / name) for name in OF_RECIPE),
        f"target={target}", f"recipe={recipe}", f"variant={variants}", f"build={folder}",
    ]  # fmt: skip
    status = subprocess.run(command, cwd=bootstrap.ROOT, env=dict(os.environ)).returncode
    if status:
        kinds: dict[int, type[SlipwayError]] = {2: UserError, 3: InfraError}
        raise kinds.get(status, CheckFailed)(
            "Slipway's own programs could not be built: see above", where=recipe
        )
    return [_product(job, folder) for job in found]


def _jobs(catalog: Catalog, target: str, recipe: str, more: Sequence[str]) -> Iterator[jobs.Job]:
    own = catalog.recipes[recipe].recipe.variants
    named = [name for name, v in own.items() if not v.by_name or name in more]
    plan = jobs.plan(
        catalog,
        targets=[target],
        recipes=[recipe],
        variants=named,
        backend_names=[],
        device_names=["local"],
        devices_file=Path("devices.toml"),
    )
    yield from plan.jobs


def _product(job: jobs.Job, folder: Path) -> Product:
    at = job.layout(folder)
    name = f"{job.backend} {job.variant_name}"
    runtime = at.runtime(backends.load(job.backend).RUNTIME.name) / "runtime.json"
    return Product(name, at, Bundle.open(at.bundle), runtime)
