"""`.venv-benchmarks`: the peers and their converters, pinned, apart from `.venv`."""

from __future__ import annotations

import shutil
import sys
from importlib import metadata
from pathlib import Path

from toolchain import bootstrap, cache
from toolchain.errors import UserError

LOCK = bootstrap.ROOT / "requirements-benchmarks.lock"
VENV = bootstrap.ROOT / ".venv-benchmarks"


def python() -> Path:
    """The interpreter of the environment, which is made, or made anew, if the lock file says so."""
    done, interpreter = VENV / LOCK.name, VENV / "bin" / "python"
    try:
        with cache.locked(VENV.with_name(f"{VENV.name}.lock")):
            if not done.exists() or done.read_bytes() != LOCK.read_bytes():
                _make(interpreter)
                shutil.copyfile(LOCK, done)
    except bootstrap.SetupError as error:
        raise UserError(str(error)) from None
    return interpreter


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Of distributions installed there; one that is not is left out."""
    found = {}
    for place in VENV.glob("lib/python3*/site-packages"):
        for one in metadata.distributions(path=[str(place)]):
            name = one.metadata["Name"].lower().replace("_", "-")
            if name in names:
                found[name] = one.version
    return found


def _make(interpreter: Path) -> None:
    if not bootstrap.usable(interpreter):
        bootstrap.say(f"making {VENV.name}")
        bootstrap.run([sys.executable, "-m", "venv", "--clear", str(VENV)], "the environment")
    bootstrap.say("installing the peers (about 2.5 GB unpacked; two to five minutes)")
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    bootstrap.run([*pip, "install", "--no-deps", "-r", str(LOCK)], "the peers (no network?)")
    bootstrap.check_consistency([*pip, "check"])
