"""Pairs what is asked for into jobs: recipe x variant x backend x target x device.

A job is one line of the final table. Pairs that cannot work are refused here, before anything is
built, or left out with the reason where others remain. Imports no torch.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from toolchain import backends, devices, isa, schemes
from toolchain.catalog import Catalog, Entry, inability, possible
from toolchain.errors import UserError, nearest
from toolchain.layout import Layout, device_folder
from toolchain.schema import Checks, Device, Frozen, Measure, Settings, Target, Variant

Value = TypeVar("Value")
Layer = TypeVar("Layer", bound=Frozen)


@dataclass(frozen=True)
class Job:
    """What one row of the summary is about.

    measure, checks: the target's and the recipe's, overlaid with the variant's own, and those `on`
    this target and with this backend.
    """

    entry: Entry
    variant_name: str
    variant: Variant
    backend: str
    target_name: str
    target: Target
    device: Device
    measure: Measure
    checks: Checks

    def layout(self, build: Path) -> Layout:
        """Where its files stand below `build`."""
        return Layout(
            build,
            self.entry.name,
            self.variant_name,
            self.backend,
            self.target_name,
            searched="search" in schemes.load(self.variant.scheme).USES,
            per_target=backends.load(self.backend).PER_TARGET,
        )

    @property
    def recipe_sha256(self) -> str:
        """Digest of the recipe, as decoded, without its other variants."""
        own = self.entry.recipe.model_copy(update={"variants": {self.variant_name: self.variant}})
        return hashlib.sha256(own.canonical().encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """jobs: in a fixed order. left_out: what was not named and cannot be done, and why."""

    jobs: tuple[Job, ...]
    left_out: tuple[str, ...]


def plan(
    catalog: Catalog,
    *,
    targets: Sequence[str],
    recipes: Sequence[str],
    variants: Sequence[str],
    backend_names: Sequence[str],
    device_names: Sequence[str],
    devices_file: Path,
) -> Plan:
    """What is asked for. An empty sequence means all (for devices: the target's default).

    What is built `by_name` has to be named, as recipe=NAME or variant=NAME, or by the word all.
    Raises UserError for unknown names and for a selection that leaves nothing to do.
    """
    chosen_recipes = _chosen(catalog.recipes, recipes)
    every_variant = {name: 0 for entry in chosen_recipes for name in entry.recipe.variants}
    for name in variants:
        if name != "all":
            _pick("variant", name, every_variant)
    for name in targets:
        _pick("target", name, catalog.targets)
    for name in backend_names:
        _pick("backend", name, dict.fromkeys(backends.names()))
    made: list[Job] = []
    left_out: list[str] = []
    used: set[str] = set()
    for target_name, target in catalog.targets.items():
        if target_name not in (targets or [n for n, t in catalog.targets.items() if not t.by_name]):
            continue
        fitting = [entry for entry in chosen_recipes if target_name in entry.recipe.targets]
        if not fitting:
            continue
        units, misfits = _fitting(target_name, target, device_names, devices_file)
        used |= {unit.name for unit in units}
        if not units and targets:
            raise UserError(misfits[0], where=f"target={target_name}", hint="name a device of it")
        if not units:
            left_out += misfits
            continue
        if strange := [name for name in backend_names if name not in target.backends]:
            listed = ", ".join(target.backends)
            left_out.append(f"target {target_name} has no backend {strange[0]}; it has {listed}")
        for entry in fitting:
            for name, variant in entry.recipe.variants.items():
                if not (name in variants or "all" in variants if variants else not variant.by_name):
                    continue
                able, unable = _backends(entry, name, variant, target_name, target, backend_names)
                left_out += unable
                made += [
                    _job(entry, name, backend, target_name, target, unit)
                    for backend in able
                    for unit in units
                ]
    if made and (idle := [name for name in device_names if name not in used]):
        raise UserError("is of none of the chosen targets", where=f"device={idle[0]}")
    if not made:
        raise _nothing_to_do(chosen_recipes, targets, left_out)
    return Plan(tuple(sorted(made, key=lambda job: chosen_recipes.index(job.entry))), (*left_out,))


def _job(
    entry: Entry, name: str, backend: str, target_name: str, target: Target, unit: Device
) -> Job:
    recipe, variant = entry.recipe, entry.recipe.variants[name]
    places = (target_name, backend)
    everywhere = Settings(measure=recipe.measure, checks=recipe.checks)
    of_recipe = [everywhere, *(recipe.on[place] for place in places if place in recipe.on)]
    own = Settings(measure=variant.measure, checks=variant.checks)
    of_variant = [own, *(variant.on[place] for place in places if place in variant.on)]
    measure, checks = target.measure, Checks()
    for settings in of_recipe + of_variant:
        measure = overlaid(measure, settings.measure)
        checks = overlaid(checks, settings.checks)
    return Job(entry, name, variant, backend, target_name, target, unit, measure, checks)


def _backends(
    entry: Entry,
    name: str,
    variant: Variant,
    target_name: str,
    target: Target,
    asked: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Those that build the variant, and why others do not."""
    able, unable = [], []
    pinned = possible(entry.recipe, variant, target)
    if not pinned:
        unable.append(f"{entry.name} {name}: it is for backends that {target_name} has not")
    for backend in pinned:
        if asked and backend not in asked:
            continue
        if reason := inability(variant, backend, ""):
            unable.append(f"{entry.name} {name}: {reason.message}")
        else:
            able.append(backend)
    return able, unable


def _nothing_to_do(
    chosen: Sequence[Entry], targets: Sequence[str], left_out: Sequence[str]
) -> UserError:
    if left_out:
        more = f"\n  and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        return UserError(f"nothing to do: {left_out[0]}{more}")
    fitting = [e for e in chosen if not targets or set(targets) & set(e.recipe.targets)]
    if fitting:
        listed = "; ".join(f"{e.name}: {', '.join(e.recipe.variants)}" for e in fitting)
        return UserError(
            "nothing to do: all that is chosen is built by name only, or with another backend",
            hint=f"name it: variant=NAME, or variant=all. Variants: {listed}",
        )
    return UserError(
        "nothing to do: no chosen recipe is for the chosen target",
        hint="targets of the recipes: "
        + "; ".join(f"{e.name}: {', '.join(e.recipe.targets)}" for e in chosen),
    )


def _chosen(known: Mapping[str, Entry], names: Sequence[str]) -> list[Entry]:
    """Recipes by name; without names all but those `by_name`, and the only one in any case."""
    picked = [_pick("recipe", name, known) for name in names if name != "all"]
    if "all" in names or (len(known) == 1 and not names):
        return list(known.values())
    if names:
        return picked
    return [entry for entry in known.values() if not entry.recipe.by_name]


def overlaid(base: Layer, own: Layer) -> Layer:
    """`base` with the keys that `own` sets explicitly."""
    return base.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})


def _fitting(
    target_name: str, target: Target, names: Sequence[str], devices_file: Path
) -> tuple[list[Device], list[str]]:
    """Of the named devices, or the target's own, those that can be one; and why others cannot."""
    units = [devices.resolve(n, devices_file) for n in (names or [target.device.default])]
    taken: dict[str, str] = {}
    for unit in units:
        other = taken.setdefault(device_folder(unit.name), unit.name)
        if other != unit.name:
            raise UserError(
                f"would share its results' folder with '{other}'",
                where=f"device={unit.name}",
                hint="give it another name in the devices file",
            )
    reasons = {unit.name: _misfit(unit, target_name, target) for unit in units}
    misfits = [
        f"target {target_name}: '{name}' {reason}" for name, reason in reasons.items() if reason
    ]
    return [unit for unit in units if not reasons[unit.name]], misfits


def _misfit(unit: Device, target_name: str, target: Target) -> str:
    """Why a unit cannot be one of the target, as far as is known without asking it."""
    if unit.target not in (None, target_name):
        return f"is a device of target '{unit.target}', not of '{target_name}'"
    arch = {"local": platform.machine(), "qemu": "aarch64"}.get(unit.driver, target.arch)
    if arch != target.arch:
        return f"is {arch}, the target is {target.arch}"
    missing = isa.features(target.isa) - isa.of_this_host() if unit.driver == "local" else ()
    return f"lacks {', '.join(sorted(missing))} of the target's [isa]" if missing else ""


def _pick(what: str, name: str, known: Mapping[str, Value]) -> Value:
    if name not in known:
        raise UserError(f"unknown {what} '{name}'", hint=nearest(name, known))
    return known[name]
