"""The content of a board: Debian's C and C++ runtime, busybox, OpenSSH, and an init of 30 lines."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from toolchain.devices import cpio, debian
from toolchain.devices.image import READY
from toolchain.errors import InfraError, UserError

_PACKAGES = (
    "busybox-static",
    "libatomic1",
    "libc6",
    "libgcc-s1",
    "libgomp1",
    "libstdc++6",
    "openssh-server",
    "openssh-sftp-server",
    "zlib1g",
)
# Leases need flock, which Debian's busybox lacks. It is all that is taken of its package: without
# the libraries that the rest of it wants.
_ALONE, _FLOCK = "util-linux", "usr/bin/flock"
# Debian's and Ubuntu's small kernels for virtual machines, by the packages that lead to them.
_KERNELS = ("linux-image-cloud-arm64", "linux-image-virtual")
_MODULES = ("virtio_mmio", "virtio_net")

_LIBRARIES = "usr/lib/aarch64-linux-gnu"
_KEPT = re.compile(
    rf"{_LIBRARIES}/[^/]+\.so[^/]*|usr/lib/ld-linux-aarch64\.so\.1|usr/lib/openssh/[^/]+"
    rf"|usr/sbin/sshd|usr/bin/busybox|{_FLOCK}"
)

_INIT = f"""#!/usr/bin/busybox sh
# Of Slipway's emulated boards: no services but SSH, and a machine that behaves the same each time.
/usr/bin/busybox --install -s /usr/bin
/usr/bin/chmod 755 /  # or sshd does not trust what lies below
export PATH=/usr/sbin:/usr/bin
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=1777,size=75% tmp /tmp
# Addresses that are the same in each run make memory use exact; counters are for every user.
echo 0 > /proc/sys/kernel/randomize_va_space
echo -1 > /proc/sys/kernel/perf_event_paranoid
hostname board
while read -r module; do insmod "$module"; done < /etc/modules
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
/usr/sbin/sshd
# 0016 is port 22, 0A the state LISTEN.
until grep -q ':0016 0*:0000 0A' /proc/net/tcp; do usleep 10000; done
echo '{READY}' > /dev/console
while true; do wait; sleep 1000; done
"""

_SSHD_CONFIG = """\
ListenAddress 0.0.0.0
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
MaxStartups 100
Subsystem sftp /usr/lib/openssh/sftp-server
"""


@dataclass(frozen=True)
class System:
    """packages: versions by name. archive: the root file system without secrets."""

    kernel: bytes
    archive: bytes
    packages: dict[str, str]


def make(archive: debian.Archive, say: Callable[[str], None]) -> System:
    """Kernel and root file system from the packages that `archive` offers."""
    base = [*archive.closure(_PACKAGES), *archive.find([_ALONE]).values()]
    kernel_packages = _kernel_packages(archive)
    files = archive.download([*base, *kernel_packages])
    say("unpacking")
    entries = _skeleton()
    for package in base:
        for path, entry in _unpacked(files[package.name]).items():
            if _KEPT.fullmatch(path):
                entries[path] = entry
    if _FLOCK not in entries:
        raise InfraError(f"the package {_ALONE} has no {_FLOCK}", where="making a board")
    kernel: dict[str, cpio.Entry] = {}
    for package in kernel_packages:
        kernel |= _unpacked(files[package.name])
    modules = _modules(kernel)
    entries |= {f"usr/lib/modules/{name}.ko": cpio.file(data) for name, data in modules.items()}
    order = "".join(f"/usr/lib/modules/{name}.ko\n" for name in modules)
    entries["etc/modules"] = cpio.file(order.encode())
    check_needed(entries)
    versions = {package.name: package.version for package in (*base, *kernel_packages)}
    return System(_kernel(kernel), cpio.pack(entries), versions)


def secrets(host_key: bytes, authorized: str) -> bytes:
    """The archive that goes on top of the root file system."""
    return cpio.pack(
        {
            "etc/ssh/host_key": cpio.file(host_key, 0o600),
            "etc/ssh/authorized_keys": cpio.file(f"{authorized}\n".encode(), 0o600),
        }
    )


def check_needed(entries: Mapping[str, cpio.Entry]) -> None:
    """Refuse a root file system in which a program or library needs one that is not there."""
    there = {PurePosixPath(path).name for path in entries if path.startswith("usr/lib/")}
    for path, entry in sorted(entries.items()):
        for name in _needed(entry.data):
            if name not in there:
                raise InfraError(
                    f"{path} needs {name}, which none of the board's packages has",
                    where="making a board",
                    hint="the machine's apt sources mix releases? See apt-cache policy",
                )


def _needed(data: bytes) -> list[str]:
    if not data.startswith(b"\x7fELF"):
        return []
    try:
        dynamic = ELFFile(io.BytesIO(data)).get_section_by_name(".dynamic")
    except ELFError:
        return []
    if not isinstance(dynamic, DynamicSection):
        return []
    found = dynamic.iter_tags("DT_NEEDED")
    return [tag.needed for tag in found]  # type: ignore[attr-defined]  # set while reading


def _skeleton() -> dict[str, cpio.Entry]:
    passwd = "root:*:0:0:root:/root:/bin/sh\nsshd:*:100:100:sshd:/run/sshd:/bin/false\n"
    empty = ("dev", "proc", "sys", "run/sshd", "tmp", "var/empty", "etc/ssh")
    return {
        "init": cpio.file(_INIT.encode(), 0o755),
        "bin": cpio.link("usr/bin"),
        "sbin": cpio.link("usr/sbin"),
        "lib": cpio.link("usr/lib"),
        "root": cpio.folder(0o700),
        "dev/console": cpio.character_device(5, 1),
        "etc/passwd": cpio.file(passwd.encode()),
        "etc/group": cpio.file(b"root:x:0:\nsshd:x:100:\n"),
        "etc/ssh/sshd_config": cpio.file(_SSHD_CONFIG.encode()),
    } | {path: cpio.folder() for path in empty}


def _unpacked(deb: Path) -> dict[str, cpio.Entry]:
    """Files and links of a package by path, as if `/lib` and its like were links into `/usr`."""
    entries = {}
    with debian.contents(deb) as tar:
        for member in tar:
            path = member.name.removeprefix("./")
            if re.match(r"(bin|sbin|lib)/", path):
                path = f"usr/{path}"
            if member.isreg():
                data = tar.extractfile(member)
                assert data
                entries[path] = cpio.file(data.read(), member.mode & 0o755)
            elif member.issym():
                entries[path] = cpio.link(member.linkname)
            elif member.islnk():
                entries[path] = _hard_link(tar, member)
    return entries


def _hard_link(tar: tarfile.TarFile, member: tarfile.TarInfo) -> cpio.Entry:
    data = tar.extractfile(member)
    assert data
    return cpio.file(data.read(), member.mode & 0o755)


def _kernel_packages(archive: debian.Archive) -> list[debian.Package]:
    """The package with the kernel, and those with its modules if they are apart (Ubuntu)."""
    offered = archive.find(_KERNELS)
    names = [name for name in _KERNELS if name in offered] or [_KERNELS[0]]
    chosen: dict[str, debian.Package] = {}
    wanted = {names[0]}
    while wanted:
        found = {package.name: package for package in archive.closure(sorted(wanted))}
        new = [found[name] for name in sorted(wanted)]
        chosen |= {package.name: package for package in new}
        depends = {name for package in new for group in package.depends for name in group[:1]}
        wanted = {name for name in depends if re.match(r"linux-(image|modules)-", name)} - set(
            chosen
        )
    return list(chosen.values())


def _kernel(files: Mapping[str, cpio.Entry]) -> bytes:
    for path, entry in sorted(files.items()):
        if path.startswith("boot/vmlinuz-"):
            return gzip.decompress(entry.data) if entry.data[:2] == b"\x1f\x8b" else entry.data
    raise InfraError("the kernel's package holds no boot/vmlinuz-*", where="making a board")


def _modules(files: Mapping[str, cpio.Entry]) -> dict[str, bytes]:
    """Drivers of the board's network by name, each after those that it depends on."""
    found = {}
    builtin = ""
    for path, entry in files.items():
        if match := re.search(r"/([^/]+)\.ko(?:\.(xz|zst|gz))?$", path):
            found[match[1].replace("-", "_")] = (entry.data, match[2])
        elif path.endswith("/modules.builtin"):
            builtin = entry.data.decode().replace("-", "_")
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered or f"/{name}.ko" in builtin:
            return
        if name not in found:
            raise InfraError(f"the kernel has no driver {name}", where="making a board")
        data = _decompressed(*found[name])
        depends = re.search(rb"\0depends=([^\0]*)", data)
        for other in depends[1].decode().split(",") if depends and depends[1] else ():
            add(other.replace("-", "_"))
        ordered[name] = data

    for name in _MODULES:
        add(name)
    return ordered


def _decompressed(data: bytes, form: str | None) -> bytes:
    match form:
        case "xz":
            return lzma.decompress(data)
        case "gz":
            return gzip.decompress(data)
        case "zst":
            raise UserError(
                "this release compresses kernel modules with zstd, which is not supported yet",
                where="making a board",
                hint="work on Debian 12, or name a unit of devices.toml",
            )
    return data
