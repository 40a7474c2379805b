"""Reads recipes and targets from their folders, and pairs what is asked for into jobs.

A job is one line of the final table: recipe x variant x backend x target x device. Pairs that
cannot work are refused here, before anything is built. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from toolchain import backends, devices, named, schemes
from toolchain.errors import UserError, nearest
from toolchain.layout import device_folder
from toolchain.schema import (
    Checks,
    Device,
    Frozen,
    Measure,
    Recipe,
    Target,
    Variant,
    check_name,
    decode,
    read_toml,
    shown,
)

RESERVED = {
    "recipe": ("runtime", "tools", "all"),
    "variant": ("spec", "all"),
}  # folders of the build tree
Value = TypeVar("Value")
Settings = TypeVar("Settings", bound=Frozen)


@dataclass(frozen=True)
class Entry:
    """A recipe with the place that it was read from."""

    name: str
    folder: Path
    recipe: Recipe


@dataclass(frozen=True)
class Job:
    """What one row of the summary is about.

    measure, checks: the recipe's, overlaid with the variant's own.
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


@dataclass(frozen=True)
class Catalog:
    recipes: Mapping[str, Entry]
    targets: Mapping[str, Target]


def read(recipes: Path, targets: Path) -> Catalog:
    """All recipes and targets; `recipes` holds recipe folders, or is one itself."""
    if not recipes.is_dir():
        raise UserError("no such folder", where=f"recipes={recipes}")
    known_targets = {path.stem: _read_target(path) for path in sorted(targets.glob("*.toml"))}
    single = (recipes / "recipe.toml").exists()
    files = [recipes / "recipe.toml"] if single else sorted(recipes.glob("*/recipe.toml"))
    if not files:
        raise UserError(
            "holds no recipe",
            where=f"recipes={recipes}",
            hint="a recipe is a folder with a recipe.toml; recipes/digits is an example",
        )
    entries = [_read_recipe(path.absolute(), known_targets) for path in files]
    return Catalog({entry.name: entry for entry in entries}, known_targets)


def jobs(
    catalog: Catalog,
    *,
    targets: Sequence[str],
    recipes: Sequence[str],
    variants: Sequence[str],
    device_names: Sequence[str],
    devices_file: Path,
) -> list[Job]:
    """What is asked for, in a fixed order. An empty sequence means all (for devices: the default).

    What is built `by_name` has to be named, as recipe=NAME or variant=NAME, or by the word all.
    Raises UserError for unknown names and for a selection that leaves nothing to do.
    """
    chosen_recipes = _chosen(catalog.recipes, recipes)
    every_variant = {name: 0 for entry in chosen_recipes for name in entry.recipe.variants}
    for name in variants:
        if name != "all":
            _pick("variant", name, every_variant)
    variants = tuple(every_variant) if "all" in variants else variants
    for name in targets:
        _pick("target", name, catalog.targets)
    result = []
    for entry in chosen_recipes:
        for target_name in entry.recipe.targets:
            if targets and target_name not in targets:
                continue
            target = catalog.targets[target_name]
            units = _units(target_name, target, device_names, devices_file)
            result += [
                Job(
                    entry,
                    name,
                    variant,
                    backend,
                    target_name,
                    target,
                    unit,
                    overlaid(entry.recipe.measure, variant.measure),
                    overlaid(entry.recipe.checks, variant.checks),
                )
                for name, variant in entry.recipe.variants.items()
                if (name in variants if variants else not variant.by_name)
                for backend in target.backends
                for unit in units
            ]
    if not result:
        raise _nothing_to_do(chosen_recipes, targets)
    return result


def _nothing_to_do(chosen: Sequence[Entry], targets: Sequence[str]) -> UserError:
    fitting = [e for e in chosen if not targets or set(targets) & set(e.recipe.targets)]
    if fitting:
        listed = "; ".join(f"{e.name}: {', '.join(e.recipe.variants)}" for e in fitting)
        return UserError(
            "nothing to do: all that is chosen is built by name only",
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


def overlaid(base: Settings, own: Settings) -> Settings:
    """`base` with the keys that `own` sets explicitly."""
    return base.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})


def _units(
    target_name: str, target: Target, names: Sequence[str], devices_file: Path
) -> list[Device]:
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
        if unit.target not in (None, target_name):
            raise UserError(
                f"is a device of target '{unit.target}', not of '{target_name}'",
                where=f"device={unit.name}",
                hint=f"scons target={unit.target} device={unit.name}",
            )
    return units


def _pick(what: str, name: str, known: Mapping[str, Value]) -> Value:
    if name not in known:
        raise UserError(f"unknown {what} '{name}'", hint=nearest(name, known))
    return known[name]


def _read_target(path: Path) -> Target:
    target = decode(Target, read_toml(path), shown(path))
    for backend in target.backends:
        if backend not in backends.names():
            raise UserError(
                f"unknown backend '{backend}'",
                where=f"{shown(path)}: backends",
                hint=nearest(backend, backends.names()),
            )
    return target


def _read_recipe(path: Path, targets: Mapping[str, Target]) -> Entry:
    where, name = shown(path), path.parent.name
    recipe = decode(Recipe, read_toml(path), where)
    check_name(name, "recipe", where)
    _refuse_reserved("recipe", name, where)
    for target in recipe.targets:
        if target not in targets:
            raise UserError(
                f"unknown target '{target}'",
                where=f"{where}: targets",
                hint=nearest(target, targets),
            )
    named.check_model(path.parent, recipe.model, f"{where}: [model]")
    named.check_data(path.parent, recipe.data, f"{where}: [data]")
    if recipe.training is not None:
        named.check_training(path.parent, recipe, f"{where}: [training]")
    variants = {
        variant_name: _with_options(
            recipe, variant_name, variant, targets, f"{where}: [variants.{variant_name}]"
        )
        for variant_name, variant in recipe.variants.items()
    }
    return Entry(name, path.parent, recipe.model_copy(update={"variants": variants}))


def _with_options(
    recipe: Recipe, name: str, variant: Variant, targets: Mapping[str, Target], where: str
) -> Variant:
    """The variant with its options decoded by the scheme, defaults filled in."""
    check_name(name, "variant", where)
    _refuse_reserved("variant", name, where)
    if variant.scheme not in schemes.names():
        raise UserError(
            f"unknown scheme '{variant.scheme}'",
            where=f"{where}.scheme",
            hint=nearest(variant.scheme, schemes.names()),
        )
    scheme = schemes.load(variant.scheme)
    for key in variant.options:
        good = [*scheme.Options.model_fields, *(f for f in Variant.model_fields if f != "options")]
        if key not in good:
            raise UserError(
                f"unknown key '{key}' for the scheme '{variant.scheme}'",
                where=where,
                hint=nearest(key, good),
            )
    options = decode(scheme.Options, variant.options, where)
    given = options.model_dump(mode="json")
    for backend in sorted({b for target in recipe.targets for b in targets[target].backends}):
        able = backends.load(backend).ABILITIES
        schemes.check_able(variant.scheme, given, backend, able, where)
    if "calibration" in scheme.USES and recipe.data.calibration is None:
        raise UserError(
            f"the scheme '{variant.scheme}' needs calibration data, and there is none",
            where=f"{where}.scheme",
            hint='name it: [data] calibration = "data.py:calibration"',
        )
    if "training" in scheme.USES and recipe.training is None:
        raise UserError(
            f"the scheme '{variant.scheme}' trains the model, and the recipe does not say how",
            where=f"{where}.scheme",
            hint='say it: [training] samples = "data.py:training", epochs = 60, rate = 0.01',
        )
    return variant.model_copy(update={"options": given})


def _refuse_reserved(what: str, name: str, where: str) -> None:
    if name in RESERVED[what]:
        raise UserError(f"'{name}' cannot name a {what}: the build tree uses it", where=where)
