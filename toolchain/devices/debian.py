"""Debian packages of another architecture, without root and without touching the host's apt.

apt runs with a configuration of its own: own state, own cache, an empty list of installed packages
and arm64 as its only architecture. From the host it takes the sources, the keys that sign them,
credentials, and how to reach the network (proxies); never its hooks.

    sources of the machine ─ update ─ index ─ closure of the wanted names ─ download ─ *.deb
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolchain import cache
from toolchain.devices import sources
from toolchain.devices.tied import tied
from toolchain.errors import InfraError, UserError

# Libraries are followed through `Depends`; what maintains a running system (init scripts, debconf,
# adduser, …) is not wanted on a board.
_FOLLOWED_SECTIONS = {"libs"}


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    arch: str
    section: str
    depends: tuple[tuple[str, ...], ...]
    sha256: str
    size: int

    @property
    def file(self) -> str:
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.arch}.deb"


class Archive:
    """What the machine's sources offer for arm64.

    folder: where indexes and downloads are kept; one process at a time works in it.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], etc: Path) -> None:
        self.folder = folder
        self.say = say
        self.etc = etc
        self.trouble = ""
        self._known: dict[str, Package | None] = {}

    def update(self) -> None:
        """Read the indexes again.

        A third-party source that is unreachable or has no arm64 fails the update but not us: what
        counts is whether the packages are found afterwards.
        """
        (self.folder / "debs").mkdir(parents=True, exist_ok=True)
        sources.configure(self.folder, self.etc)
        self.say("reading the package index for arm64")
        done = self._apt("apt-get", "-q", "update", timeout=600)
        self.trouble = _complaints(done.stderr)

    def find(self, names: Iterable[str]) -> dict[str, Package]:
        """Packages by name, their candidate versions; a name that does not exist is absent."""
        wanted = sorted(set(names))
        if unknown := [name for name in wanted if name not in self._known]:
            shown = self._apt("apt-cache", "show", "--no-all-versions", *unknown, timeout=60)
            self._known |= dict.fromkeys(unknown)
            self._known |= {package.name: package for package in _parse(shown.stdout)}
        return {name: found for name in wanted if (found := self._known[name]) is not None}

    def closure(self, names: Sequence[str]) -> list[Package]:
        """The named packages and the libraries that they depend on, sorted by name."""
        chosen: dict[str, Package] = {}
        wanted = set(names)
        while wanted:
            found = self.find(wanted)
            if missing := sorted(wanted - found.keys()):
                raise self._missing(missing)
            chosen |= found
            offers = {n for p in found.values() for group in p.depends for n in group}
            known = self.find(offers - chosen.keys())
            wanted = set()
            for package in found.values():
                for group in package.depends:
                    if any(name in chosen for name in group):
                        continue
                    first = next((known[name] for name in group if name in known), None)
                    if first is not None and first.section.split("/")[-1] in _FOLLOWED_SECTIONS:
                        wanted.add(first.name)
        return sorted(chosen.values(), key=lambda package: package.name)

    def download(self, packages: Sequence[Package]) -> dict[str, Path]:
        """The packages' files. A file counts as there only if its digest is the index's."""
        debs = self.folder / "debs"
        absent = [package for package in packages if not _whole(debs / package.file, package)]
        if absent:
            size = sum(package.size for package in absent) / 1e6
            self.say(f"downloading {len(absent)} packages ({size:.0f} MB)")
            exact = [f"{package.name}={package.version}" for package in absent]
            done = self._apt("apt-get", "-q", "download", *exact, timeout=1800, cwd=debs)
            for package in absent:
                if not _whole(debs / package.file, package):
                    raise InfraError(
                        f"{package.file} could not be downloaded",
                        where="apt-get download",
                        hint=_complaints(done.stderr) or "run the same command again",
                    )
        return {package.name: debs / package.file for package in packages}

    def _missing(self, names: list[str]) -> InfraError | UserError:
        text = f"no arm64 package {', '.join(names)} in this machine's apt sources"
        if self.trouble:
            return InfraError(text, where="apt-get update", hint=self.trouble)
        return UserError(
            text,
            where=str(self.etc),
            hint="Debian's mirrors carry arm64; Ubuntu's main ones do not: add its ports archive\n"
            "  (deb [arch=arm64] … <release> main universe) and run the same command again",
        )

    def _apt(
        self, *argv: str, timeout: float, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "APT_CONFIG": str(self.folder / "apt.conf"),
            "LC_ALL": "C.UTF-8",
        }
        env |= {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
        try:
            return subprocess.run(
                tied(argv),
                cwd=cwd or self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise sources.no_tool(str(error.filename)) from None
        except subprocess.TimeoutExpired:
            raise InfraError(
                f"no end after {timeout:.0f} s",
                where=" ".join(argv[:3]),
                hint="is the mirror reachable? Run the same command again",
            ) from None


def archive(say: Callable[[str], None], etc: Path = Path("/etc/apt")) -> Archive:
    """The archive of this machine's sources, its indexes in the cache root."""
    if not etc.is_dir():
        raise UserError(
            "boards are made from Debian packages, and this machine has no apt",
            where=str(etc),
            hint="work on Debian or Ubuntu, or name a unit of devices.toml",
        )
    return Archive(cache.root() / "debian", say, etc)


def contents(deb: Path) -> tarfile.TarFile:
    """The files of a package, in memory."""
    try:
        done = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=False)
    except FileNotFoundError:
        raise sources.no_tool("dpkg-deb") from None
    if done.returncode:
        raise InfraError(done.stderr.decode(errors="replace").strip(), where=str(deb))
    return tarfile.open(fileobj=io.BytesIO(done.stdout))


def _parse(shown: str) -> list[Package]:
    """Packages from the stanzas of `apt-cache show`."""
    found = []
    for stanza in shown.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.M))
        if "SHA256" not in fields:
            continue
        clauses = f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}".split(",")
        groups = [
            tuple(
                re.split(r"[\s(:]", option.strip(), maxsplit=1)[0] for option in clause.split("|")
            )
            for clause in clauses
            if clause.strip()
        ]
        found.append(
            Package(
                name=fields["Package"],
                version=fields["Version"],
                arch=fields["Architecture"],
                section=fields.get("Section", ""),
                depends=tuple(groups),
                sha256=fields["SHA256"],
                size=int(fields["Size"]),
            )
        )
    return found


def _whole(path: Path, package: Package) -> bool:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(data).hexdigest() == package.sha256


def _complaints(stderr: str) -> str:
    """The lines of apt that say what went wrong, the last few."""
    lines = [line.strip() for line in stderr.splitlines() if line.startswith(("E:", "W:", "Err:"))]
    return "\n  ".join(lines[-4:])
