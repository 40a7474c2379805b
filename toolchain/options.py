"""What a person may write behind `scons`, and the page that `scons -h` shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from toolchain import words
from toolchain.errors import UserError, nearest
from toolchain.schema import Frozen

ALIASES = ("programs", "bundles", "check", "sensitivity", "table")

HELP = """
Slipway: from a PyTorch model to a measured, verified release on the device.

  scons target=arm64                      build, deploy, measure and judge the quick recipes
  scons target=arm64 recipe=digits        one recipe (or more: recipe=digits,mobilenet_v2)
  scons target=arm64 device=qemu:cortex-a76     on another board, or on several
  scons target=arm64 recipe=all variant=all     everything, also what takes minutes
  scons target=x86_64                     on this host: all backends raced, the fastest is chosen
  scons bundles                           stop before any device is touched

What to make (default: check)
  programs    the quantized, lowered programs        build/<recipe>/<variant>/<backend>/
                         (below it, in <target>/, where they rely on one target's CPUs)
  bundles     what is shipped: runner, libraries, program    .../<target>/bundle.tar
  check       measured on a device and judged        .../<device>/verdict.json, build/summary.json
              on real hardware also raced against each other    <recipe>/race/<target>/<device>/
  table       check, and a Markdown table of all programs    build/table.md
  sensitivity what quantizing each layer costs, one at a time    .../sensitivity.{{json,svg}}

Options
  target=NAME[,NAME]     of: {targets}
  recipe=NAME[,NAME]     of: {recipes}
  variant=NAME[,NAME]    of: {variants}
                         recipe=all, variant=all: also those that are built only by name
  backend=NAME[,NAME]    of: {backends} (default: all of the target that can)
  device=NAME[,NAME]     qemu:CPU, local, or a name in devices.toml (default: the target's own)
  recipes=PATH           your own recipes instead of those in recipes/
  devices=PATH           where your devices stand (default: devices.toml)
  build=PATH             where everything is built (default: build)
  cache=PATH             share built files between builds; measurements never come from there
  remeasure=1            measure again, though nothing changed

Helpful flags of SCons:  -j N jobs   -n what would run first   -k go on after an error
  -c remove what is built    --debug=explain why each step runs

Exit status: 0 all pass, 1 a check failed or could not be decided, 2 something to mend in a recipe
or an option, 3 a device, the network or a tool broke.
Every night, on all units at once: ./scripts/nightly -h
Devices: .venv/bin/python -m toolchain.devices -h
By hand: pytest device_tests --bundle build/.../bundle.tar --device qemu:cortex-a72
"""


class Options(Frozen):
    """The options of one call, decoded. Empty tuples mean all; no device means the target's own."""

    target: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()
    variant: tuple[str, ...] = ()
    backend: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    recipes: Path
    devices: Path
    build: Path
    cache: Path | None = None
    remeasure: bool = False


DEFAULTS = {"recipes": "recipes", "devices": "devices.toml", "build": "build"}
PATHS = (*DEFAULTS, "cache")


def read(arguments: Mapping[str, str]) -> Options:
    """Decode `name=value` words; UserError for an unknown name or a value of the wrong kind."""
    for name in arguments:
        if name not in Options.model_fields:
            raise UserError(
                f"unknown option '{name}={arguments[name]}'",
                hint=nearest(name, Options.model_fields) + "\n  scons -h shows them all",
            )
    values = {**DEFAULTS, **arguments}
    paths = {n: _path(values[n], given=n in arguments) for n in PATHS if n in values}
    for name, value in values.items():
        if not value.strip(", "):
            raise UserError("has no value", where=f"{name}=", hint="scons -h shows what it takes")
        if "$" in value:
            raise UserError(f"'{value}' holds a $, which SCons would expand", where=f"{name}=")
    if values.get("remeasure", "0") not in ("0", "1"):
        raise UserError(
            f"'{values['remeasure']}' is neither 0 nor 1", where="remeasure=", hint="remeasure=1"
        )
    return Options(
        target=words.names(values.get("target", "")),
        recipe=words.names(values.get("recipe", "")),
        variant=words.names(values.get("variant", "")),
        backend=words.names(values.get("backend", "")),
        device=words.names(values.get("device", "")),
        recipes=paths["recipes"],
        devices=paths["devices"],
        build=paths["build"],
        cache=paths.get("cache"),
        remeasure=values.get("remeasure") == "1",
    )


def check_goals(goals: Iterable[str], build: Path) -> None:
    """Refuse a goal that is neither an alias nor a file of the build folder."""
    for goal in goals:
        if goal not in ALIASES and build.absolute() not in [
            Path(goal).absolute(),
            *Path(goal).absolute().parents,
        ]:
            raise UserError(
                f"unknown goal '{goal}'",
                hint=nearest(goal, ALIASES)
                + f"\n  or an option, such as target={goal}? See scons -h",
            )


def help_page(
    targets: Iterable[str],
    recipes: Iterable[str],
    variants: Iterable[str],
    backends: Iterable[str],
) -> str:
    known = {"targets": targets, "recipes": recipes, "variants": variants, "backends": backends}
    return HELP.format(**{what: ", ".join(names) for what, names in known.items()})


def _path(text: str, *, given: bool) -> Path:
    """A path from where the caller stood; short if it is below the folder that SCons runs in."""
    path = words.path(text, given=given)
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
