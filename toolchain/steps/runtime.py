"""Fetch the wheel of a runtime for a target: its C++ headers and libraries are the target's SDK.

Only for a target of another architecture than this host's: there the installed package is none.
Kept in the machine's cache by version and platform, so that the network is needed once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from toolchain import cache, runtimes
from toolchain.atomic import replacing
from toolchain.errors import InfraError
from toolchain.schema import Target, decode_json
from toolchain.steps.main import say, step


def run(*, target: Path, runtime: str, version: str, out: Path) -> None:
    """Place the wheel of the runtime's package, of `version` for `target`, at `out`."""
    platform = decode_json(Target, target).wheel_platform
    package = runtimes.ALL[runtime].package
    with replacing(out) as partial:
        shutil.copyfile(cached(package, version, platform), partial)


def cached(package: str, version: str, platform: str) -> Path:
    """The wheel in the cache, fetched first if it is not there."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache.root() / "wheels"
    wheel = folder / f"{package}-{version}-py{python}-{platform}.whl"
    with cache.locked(folder / ".lock", lambda: say("waiting for another build's download")):
        if not zipfile.is_zipfile(wheel):
            say(f"fetching {package} {version} for {platform}")
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                _fetch(package, version, platform, python, Path(temporary)).rename(wheel)
    return wheel


def _fetch(package: str, version: str, platform: str, python: str, folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-input", "--no-deps", "--only-binary=:all:", "--implementation", "cp",
        "--python-version", python, "--platform", platform, f"{package}=={version}",
    ]  # fmt: skip
    done = subprocess.run(
        [*command, "--dest", str(folder)], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise InfraError(
            f"the wheel of {package} {version} for {platform} could not be fetched: "
            f"{said[-1] if said else 'pip said nothing'}",
            hint="with the network back, run scons again; to see all that pip says: "
            + " ".join(["python", *command[1:]]).replace(" --quiet", ""),
        )
    return wheels[0]


if __name__ == "__main__":
    step(run)
