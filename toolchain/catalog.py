"""Reads recipes and targets from their folders. Imports no torch.

A recipe that no backend of a target can build is refused here; `toolchain.jobs` pairs the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolchain import backends, isa, named, schemes
from toolchain.errors import UserError, nearest
from toolchain.schema import (
    Recipe,
    Target,
    Variant,
    check_name,
    decode,
    read_toml,
    shown,
)

RESERVED = {
    "recipe": ("runtime", "tools", "devices", "benchmark", "nightly", "all"),
    "variant": ("spec", "race", "all"),
}  # folders of the build tree


@dataclass(frozen=True)
class Entry:
    """A recipe with the place that it was read from."""

    name: str
    folder: Path
    recipe: Recipe


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


def _read_target(path: Path) -> Target:
    target = decode(Target, read_toml(path), shown(path))
    if len(set(target.backends)) < len(target.backends):
        raise UserError("names a backend twice", where=f"{shown(path)}: backends")
    for backend in target.backends:
        if backend not in backends.names():
            raise UserError(
                f"unknown backend '{backend}'",
                where=f"{shown(path)}: backends",
                hint=nearest(backend, backends.names()),
            )
    try:
        isa.features(target.isa)
    except UserError as error:
        place = f"{shown(path)}: {error.where}"
        raise UserError(error.message, where=place, hint=error.hint) from None
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
    _check_places(recipe, recipe.backends, recipe.on, targets, where)
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
    variant = variant.model_copy(update={"options": options.model_dump(mode="json")})
    _check_places(recipe, variant.backends, variant.on, targets, where)
    for target in recipe.targets:
        _check_able(recipe, variant, targets[target], where)
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
    return variant


def possible(recipe: Recipe, variant: Variant, target: Target) -> list[str]:
    """The target's backends that recipe and variant admit, able or not."""
    pins = [pin for pin in (recipe.backends, variant.backends) if pin is not None]
    return [name for name in target.backends if all(name in pin for pin in pins)]


def inability(variant: Variant, backend: str, where: str) -> UserError | None:
    """Why a backend cannot build a variant, if so."""
    able = backends.load(backend).ABILITIES
    try:
        schemes.check_able(variant.scheme, variant.options, backend, able, where)
    except UserError as error:
        return error
    return None


def _check_able(recipe: Recipe, variant: Variant, target: Target, where: str) -> None:
    """Some backend has to do it; and each that the variant names.

    A target that has none of those is not meant.
    """
    names = possible(recipe, variant, target)
    reasons = [inability(variant, name, where) for name in names]
    needed = any if variant.backends else all
    if reasons and needed(reasons):
        raise next(filter(None, reasons))


def _check_places(
    recipe: Recipe,
    pinned: Iterable[str] | None,
    on: Iterable[str],
    targets: Mapping[str, Target],
    where: str,
) -> None:
    """`backends` and `on` name backends and targets of the recipe."""
    good = sorted({name for target in recipe.targets for name in targets[target].backends})
    for name in pinned or ():
        if name not in good:
            raise UserError(
                f"unknown backend '{name}'", where=f"{where}: backends", hint=nearest(name, good)
            )
    good += recipe.targets
    for name in on:
        if name not in good:
            raise UserError(
                f"'{name}' is neither a backend nor a target of the recipe",
                where=f"{where}: [on.{name}]",
                hint=nearest(name, good),
            )


def _refuse_reserved(what: str, name: str, where: str) -> None:
    if name in RESERVED[what]:
        raise UserError(f"'{name}' cannot name a {what}: the build tree uses it", where=where)
