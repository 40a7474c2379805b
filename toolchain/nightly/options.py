"""What a person may write behind `scripts/nightly`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from toolchain import words
from toolchain.errors import UserError
from toolchain.history import addresses
from toolchain.schema import Frozen

HELP = """
Everything built, measured on all devices at once, held against the nights before.

  ./scripts/nightly                                  all targets, on all units of devices.toml
  ./scripts/nightly target=arm64 device=qemu:cortex-a72*4      on four emulated boards
  ./scripts/nightly device=@pi5                      on the units with a tag
  ./scripts/nightly resume=1                         go on with what was stopped or killed

  target=, recipe=, variant=, backend=    as for scons; each one or several, with commas
  device=WORD[,WORD]     a unit of the devices file, @TAG, all, local, qemu:CPU or qemu:CPU*COUNT
                         (default: all units of the devices file; each target without one: its own)
  devices=PATH           where your devices stand (default: devices.toml)
  recipes=PATH           your own recipes instead of those in recipes/
  build=PATH             where everything is built (default: build)
  history=URL            an SQLite file, or postgresql://… (default: history.sqlite)
  retries=2              attempts after one that the device, the network or a tool broke
  resume=1               the last run with the same options, of this host, that did not end
  run=ID                 that run: build/nightly/ID

Exit status: 0 all pass, 1 a check failed, could not be decided, or is worse than it was before,
2 something to mend in a recipe or an option, 3 a device, the network or a tool broke.
"""
NAMES = ("target", "recipe", "variant", "backend", "device")
PATHS = {"recipes": "recipes", "devices": "devices.toml", "build": "build"}
MOST_RETRIES = 20
RUN = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}-[0-9]{2}Z-[0-9a-f]{4}"


class Options(Frozen):
    """The options of one call, decoded. Empty tuples mean all."""

    target: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()
    variant: tuple[str, ...] = ()
    backend: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    recipes: Path
    devices: Path
    build: Path
    history: str
    retries: int = 2
    resume: bool = False
    run: str | None = None

    def same(self) -> str:
        """What two calls have to share for one to go on with the other's run, as words."""
        return " ".join(self._words())

    def resumed(self, run: str) -> str:
        """The command that goes on with a run; a password in it is hidden."""
        history = f"history={addresses.shown(addresses.parse(self.history))}"
        return shlex.join(["./scripts/nightly", *self._words(), history, f"run={run}"])

    def _words(self) -> list[str]:
        lists = {name: ",".join(getattr(self, name)) for name in NAMES}
        paths = {name: str(getattr(self, name)) for name in PATHS}
        return [f"{name}={value}" for name, value in (lists | paths).items() if value]


def read(said: Sequence[str]) -> Options:
    """Decode `name=value` words; UserError for the first that is wrong."""
    given = words.pairs(said, Options.model_fields, "./scripts/nightly")
    names = {name: words.names(given.get(name, "")) for name in NAMES}
    paths = {name: _path(given.get(name, PATHS[name]), given=name in given) for name in PATHS}
    retries = given.get("retries", "2")
    if not retries.isdecimal() or int(retries) > MOST_RETRIES:
        raise UserError(f"'{retries}' is no number from 0 to {MOST_RETRIES}", where="retries=")
    if given.get("resume", "0") not in ("0", "1"):
        raise UserError(f"'{given['resume']}' is neither 0 nor 1", where="resume=", hint="resume=1")
    if not re.fullmatch(RUN, run := given.get("run", "2026-01-01T00-00-00Z-0000")):
        hint = f"runs are folders of {paths['build']}/nightly"
        raise UserError(f"'{run}' is no name of a run", where="run=", hint=hint)
    return Options(
        target=names["target"],
        recipe=names["recipe"],
        variant=names["variant"],
        backend=names["backend"],
        device=names["device"],
        recipes=paths["recipes"],
        devices=paths["devices"],
        build=paths["build"],
        history=_history(given.get("history", addresses.DEFAULT), given="history" in given),
        retries=int(retries),
        resume=given.get("resume") == "1",
        run=given.get("run"),
    )


def _history(text: str, *, given: bool) -> str:
    """The URL of a history; UserError if it can be none, before anything is built."""
    url = addresses.parse(text)
    if file := addresses.file_of(url):
        url = url.set(database=str(_path(str(file), given=given)))
    return url.render_as_string(hide_password=False)


def _path(text: str, *, given: bool) -> Path:
    return words.path(text, given=given).absolute()
