"""apt's private configuration: the machine's own sources, cut down to what carries arm64.

No mirror is named in our code: what the administrator chose (a local mirror, a proxy, a snapshot)
is what a board is made from. Both forms are read:

    deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm main   (.list)
    Types: deb / URIs: … / Suites: … / Components: … / Architectures: …                  (.sources)

Each kept source is written again in its own form, limited to binary packages for arm64.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from toolchain.errors import UserError

ARCH = "arm64"


@dataclass(frozen=True)
class Source:
    """One source. text: as apt shall read it. dropped: why it is left out, or empty."""

    where: str
    form: str
    text: str
    dropped: str = ""


def machine(etc: Path = Path("/etc/apt")) -> list[Source]:
    """All sources that apt itself would read on this machine, in apt's order."""
    found: list[Source] = []
    parts = etc / "sources.list.d"
    paths = [etc / "sources.list"] + (sorted(parts.iterdir()) if parts.is_dir() else [])
    for path in paths:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        text = path.read_text("utf-8", errors="replace")
        parse = one_line if path.suffix == ".list" else deb822
        found += parse(text, str(path))
    return found


def one_line(text: str, where: str) -> list[Source]:
    """The sources of a `.list` file."""
    found = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].strip()
        match = re.match(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(.+)$", line)
        if not match:
            continue
        options = dict(_option(word) for word in (match[1] or "").split())
        dropped = _refused(match[2], options.pop("arch", ""), options.pop("arch-", ""))
        options["arch"] = ARCH
        shown = " ".join(f"{key}={value}" for key, value in options.items())
        again = f"deb [{shown}] {match[2]} {match[3]}\n"
        found.append(Source(f"{where}:{number}", ".list", again, dropped))
    return found


def _option(word: str) -> tuple[str, str]:
    """`arch-=i386` as ("arch-", "i386"): what follows `+=` or `-=` adds to or removes from."""
    key, _, value = word.partition("=")
    return (key.removesuffix("+"), value)


def deb822(text: str, where: str) -> list[Source]:
    """The sources of a `.sources` file: stanzas of fields, which may go on over several lines."""
    found = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for number, stanza in enumerate(re.split(r"\n(?:[ \t]*\n)+", "\n".join(lines).strip("\n")), 1):
        fields: dict[str, str] = {}
        for match in re.finditer(r"^([^\s:]+):(.*(?:\n[ \t].*)*)", stanza, re.M):
            fields[match[1].title()] = match[2].strip()
        if "deb" not in fields.pop("Types", "").split() or not _enabled(fields.pop("Enabled", "")):
            continue
        arches = fields.pop("Architectures", "") or fields.pop("Architectures-Add", "")
        dropped = _refused(fields.get("Uris", ""), arches, fields.pop("Architectures-Remove", ""))
        again = f"Types: deb\nArchitectures: {ARCH}\n"
        again += "".join(f"{key}: {_continued(value)}\n" for key, value in fields.items())
        found.append(Source(f"{where} (stanza {number})", ".sources", again, dropped))
    return found


def _continued(value: str) -> str:
    """Further lines of a field start with a space (a key given inline has many)."""
    return "\n ".join(line.strip() for line in value.splitlines())


def _enabled(value: str) -> bool:
    return value.lower() not in ("no", "false", "without", "off", "disable", "0")


def _refused(uris: str, arches: str, without: str) -> str:
    """Why a source cannot serve, or an empty text. Lists of architectures use space or comma."""
    if uris.startswith("cdrom:"):
        return "is a CD-ROM"
    listed = re.split(r"[\s,]+", arches.strip()) if arches.strip() else []
    if listed and ARCH not in listed:
        return f"is limited to {', '.join(listed)}"
    if ARCH in re.split(r"[\s,]+", without.strip()):
        return f"leaves out {ARCH}"
    return ""


def configure(folder: Path, etc: Path) -> None:
    """Write apt's private configuration and the kept sources."""
    parts = folder / "sources.d"
    parts.mkdir(exist_ok=True)
    for old in parts.iterdir():
        old.unlink()
    found = machine(etc)
    kept = [source for source in found if not source.dropped]
    if not kept:
        left_out = "".join(f"\n  {source.where} {source.dropped}" for source in found)
        raise UserError(
            "no apt source of this machine carries arm64 packages",
            where=str(etc),
            hint=f"add Debian's mirror, or Ubuntu's ports archive, for arm64{left_out}",
        )
    for number, source in enumerate(kept):
        (parts / f"{number:03d}{source.form}").write_text(source.text)
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text("")
    own = {
        "APT::Architecture": ARCH,
        "APT::Sandbox::User": "",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": parts,
        "Dir::Etc::trusted": etc / "trusted.gpg",
        "Dir::Etc::trustedparts": etc / "trusted.gpg.d",
        "Dir::Etc::netrc": etc / "auth.conf",
        "Dir::Etc::netrcparts": etc / "auth.conf.d",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Update::Error-Mode": "any",
    }
    text = _network_settings() + f'APT::Architectures {{ "{ARCH}"; }};\n'
    text += "".join(f'{key} "{value}";\n' for key, value in own.items())
    (folder / "apt.conf").write_text(text)


def _network_settings() -> str:
    """How the host's apt reaches the network: proxies, certificates, time-outs, validity."""
    try:
        done = subprocess.run(
            ["apt-config", "dump"], capture_output=True, text=True, timeout=30, check=False
        )
    except FileNotFoundError:
        raise no_tool("apt-config") from None
    ours = r"Acquire::(?!IndexTargets|Languages|Gzip|Compression|CompressionTypes)\S+ \"[^\"]"
    return "".join(f"{line}\n" for line in done.stdout.splitlines() if re.match(ours, line))


def no_tool(name: str) -> UserError:
    return UserError(
        f"the command '{name}' is not installed",
        where="making a board",
        hint="apt-get install apt dpkg util-linux",
    )
