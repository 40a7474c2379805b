"""What a device says of itself, asked with one shell script that busybox understands too."""

from __future__ import annotations

import re

SCRIPT = r"""
say() { printf '\n@%s\n' "$1"; }
say machine; uname -m
say kernel; uname -rv
say model; tr '\0' '\n' </proc/device-tree/model
say cpuinfo; cat /proc/cpuinfo
say meminfo; grep -E "MemTotal|MemAvailable" /proc/meminfo
say clock; date +%s
say lacks; for tool in flock sha256sum; do command -v "$tool" >/dev/null || echo "$tool"; done
say cores; grep -c '^processor' /proc/cpuinfo
say randomize_va_space; cat /proc/sys/kernel/randomize_va_space
say perf_event_paranoid; cat /proc/sys/kernel/perf_event_paranoid
say libc
getconf GNU_LIBC_VERSION || ldd --version | head -n 1 |
    grep . || for libc in /lib/*/libc.so.6 /lib64/libc.so.6 /lib/libc.so.6; do
        if [ -e "$libc" ]; then "$libc" | head -n 1; break; fi
    done
exit 0
"""

# Names of cores by implementer and part, as in Linux' arch/arm64/include/asm/cputype.h.
_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x46", "0x001"): "A64FX",
}


def parse(text: str) -> dict[str, str]:
    """The facts in the script's output; what a device does not tell is `unknown`.

    libc: glibc's version, such as `2.36`. memory, memory_available: bytes. model: of the whole
    unit. clock: seconds since the epoch. lacks: commands that are needed and not there, if any.
    cpu_flags: what all its cores can do, in Linux' words, sorted, a space between two.
    """
    parts = re.split(r"^@(\w+)\n", text, flags=re.M)
    said = {key: value.strip() for key, value in zip(parts[1::2], parts[2::2], strict=True)}
    cpuinfo = said.pop("cpuinfo", "")
    memory = dict(re.findall(r"^(\w+): *(\d+) kB$", said.pop("meminfo", ""), re.M))
    lacks = " ".join(said.pop("lacks", "").split())
    libc = re.search(r"(\d+\.\d+)\.?$", said.pop("libc", ""))
    cores = re.findall(r"^(?:Features|flags)\s*:(.*)$", cpuinfo, re.M)
    flags = set.intersection(*(set(core.split()) for core in cores)) if cores else set()
    found = said | {
        "cpu": _cpu(cpuinfo),
        "cpu_flags": " ".join(sorted(flags)),
        "memory": _bytes(memory.get("MemTotal")),
        "memory_available": _bytes(memory.get("MemAvailable")),
        "libc": libc[1] if libc else "",
    }
    shown = {key: value or "unknown" for key, value in found.items()}
    return shown | ({"lacks": lacks} if lacks else {})


def _bytes(kibibytes: str | None) -> str:
    return str(int(kibibytes) * 1024) if kibibytes else ""


def _cpu(cpuinfo: str) -> str:
    """Names of the cores, once each: a machine may have big and little ones."""
    named = re.findall(r"^model name\s*: *(.*)$", cpuinfo, re.M)
    parts = zip(
        re.findall(r"^CPU implementer\s*: *(\S+)$", cpuinfo, re.M),
        re.findall(r"^CPU part\s*: *(\S+)$", cpuinfo, re.M),
        strict=False,
    )
    decoded = [_CORES.get(part, f"implementer {part[0]} part {part[1]}") for part in parts]
    return " + ".join(dict.fromkeys(decoded or named))
