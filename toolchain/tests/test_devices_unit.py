"""Devices without a device: archives, sources, known hosts, naming units, the fake one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import paramiko
import pytest

from toolchain import cache, devices
from toolchain.devices import cpio, debian, facts, image, known_hosts, login, qemu, rootfs, sources
from toolchain.devices.fake import FakeDevice
from toolchain.devices.ssh import connect as ssh_connect
from toolchain.devices.tied import tied
from toolchain.errors import InfraError, UserError

# ---- archives


def test_an_archive_does_not_depend_on_the_order_of_its_entries():
    entries = {"b/x": cpio.file(b"1", 0o755), "a": cpio.link("b/x"), "b": cpio.folder(0o700)}
    assert cpio.pack(entries) == cpio.pack(dict(reversed(entries.items())))


def test_an_archive_is_in_the_newc_form():
    archive = cpio.pack({"d/f": cpio.file(b"hello", 0o640), "tty": cpio.character_device(5, 1)})
    records = _records(archive)
    assert [name for name, *_ in records] == ["d", "d/f", "tty", "TRAILER!!!"]
    assert [oct(mode) for _, mode, *_ in records[:3]] == ["0o40755", "0o100640", "0o20600"]
    assert records[1][2] == b"hello"
    assert records[2][3] == (5, 1)
    assert len(archive) % 512 == 0


def test_two_archives_in_a_row_stay_aligned():
    one = cpio.pack({"a": cpio.file(b"x")})
    assert _records(one)[0][2] == b"x"
    assert _records((one + cpio.pack({"b": cpio.file(b"y")}))[len(one) :])[0][0] == "b"


def _records(archive: bytes) -> list[tuple[str, int, bytes, tuple[int, int]]]:
    """An independent reader of newc."""
    found, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701", f"no header at {at}"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + length - 1].decode()
        start = at + 110 + length
        start += -start % 4
        found.append((name, mode, archive[start : start + size], (fields[9], fields[10])))
        if name == "TRAILER!!!":
            return found
        at = start + size
        at += -at % 4


def test_a_missing_library_is_named():
    elf = Path(sys.executable).resolve().read_bytes()
    with pytest.raises(InfraError, match=r"usr/bin/tool needs lib\S+\.so\S*, which none"):
        rootfs.check_needed({"usr/bin/tool": cpio.file(elf)})


# ---- apt sources

LIST = """\
# a comment
deb http://mirror.test/debian bookworm main contrib   # the archive
deb-src http://mirror.test/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://vendor.test stable main
deb [ arch=amd64,arm64 signed-by=/k.gpg ] https://both.test stable main
deb [arch-=arm64] https://without.test stable main
deb cdrom:[Debian]/ bookworm main
"""
SOURCES = """\
Types: deb deb-src
# a comment inside
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBFt

Types: deb
URIs: https://vendor.test
Suites: stable
Components: main
Architectures: amd64 i386

types: deb
uris: https://off.test
suites: stable
enabled: no

Types: deb-src
URIs: http://source.test
Suites: bookworm
"""


def test_one_line_sources_are_limited_to_arm64():
    found = sources.one_line(LIST, "sources.list")
    assert [(s.where, s.dropped) for s in found] == [
        ("sources.list:2", ""),
        ("sources.list:4", "is limited to amd64"),
        ("sources.list:5", ""),
        ("sources.list:6", "leaves out arm64"),
        ("sources.list:7", "is a CD-ROM"),
    ]
    assert found[0].text == "deb [arch=arm64] http://mirror.test/debian bookworm main contrib\n"
    assert found[2].text == "deb [signed-by=/k.gpg arch=arm64] https://both.test stable main\n"


def test_deb822_sources_are_limited_to_arm64():
    found = sources.deb822(SOURCES, "debian.sources")
    assert [(s.where, s.dropped) for s in found] == [
        ("debian.sources (stanza 1)", ""),
        ("debian.sources (stanza 2)", "is limited to amd64, i386"),
    ]
    assert found[0].text == (
        "Types: deb\nArchitectures: arm64\nUris: http://mirror.test/debian\n"
        "Suites: bookworm bookworm-updates\nComponents: main\n"
        "Signed-By: -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBFt\n"
    )


def test_sources_are_found_where_apt_finds_them(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.test x main\n")
    (tmp_path / "sources.list.d/two.sources").write_text("Types: deb\nURIs: http://two.test\n")
    (tmp_path / "sources.list.d/three.list.disabled").write_text("deb http://three.test x main\n")
    uris = " ".join(source.text for source in sources.machine(tmp_path))
    assert "one.test" in uris
    assert "two.test" in uris
    assert "three.test" not in uris


def _archive(tmp_path: Path, listed: str) -> debian.Archive:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "sources.list").write_text(listed)
    return debian.Archive(tmp_path / "cache", lambda _: None, etc)


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this machine")
def test_sources_without_arm64_are_a_users_error(tmp_path):
    archive = _archive(tmp_path, "deb [arch=amd64] http://mirror.test/ubuntu noble main\n")
    with pytest.raises(UserError, match="no apt source of this machine carries arm64") as caught:
        archive.update()
    assert f"{tmp_path}/etc/sources.list:1 is limited to amd64" in str(caught.value)


def _repository(folder: Path, name: str, *, arch: str = "arm64") -> str:
    """A small archive of one package in a local folder; gives its line for sources.list."""
    package = folder / "package"
    (package / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1:2.0\nArchitecture: {arch}\nSection: libs\n"
    control += "Maintainer: none <none@test>\nDescription: none\nDepends: gone | other, tool\n"
    (package / "DEBIAN/control").write_text(control)
    deb = folder / "it.deb"
    subprocess.run(["dpkg-deb", "-b", package, deb], check=True, stdout=subprocess.DEVNULL)
    data = deb.read_bytes()
    index = f"{control}Filename: ./it.deb\nSize: {len(data)}\n"
    index += f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
    (folder / "Packages").write_text(index)
    return f"deb [trusted=yes] file:{folder} ./\n"


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this machine")
def test_packages_come_from_the_sources_and_a_damaged_download_is_fetched_again(tmp_path):
    archive = _archive(tmp_path, _repository(tmp_path / "repository", "libthing"))
    archive.update()
    chosen = archive.closure(["libthing"])
    assert [(p.name, p.version) for p in chosen] == [("libthing", "1:2.0")]
    path = archive.download(chosen)["libthing"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert archive.download(chosen)["libthing"].read_bytes() == whole


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this machine")
def test_a_package_that_no_source_has_is_named(tmp_path):
    archive = _archive(tmp_path, _repository(tmp_path / "repository", "libthing"))
    archive.update()
    with pytest.raises(UserError, match="no arm64 package openssh-server"):
        archive.closure(["libthing", "openssh-server"])


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this machine")
def test_an_unreachable_mirror_is_an_infra_error_with_apts_words(tmp_path):
    archive = _archive(tmp_path, f"deb [trusted=yes] file:{tmp_path}/nothing ./\n")
    archive.update()
    with pytest.raises(InfraError, match=r"(?s)no arm64 package.*nothing"):
        archive.closure(["libc6"])


# ---- the image in the cache


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path))
    return tmp_path


class _System:
    packages = {"libc6": "2.36"}  # noqa: RUF012
    kernel = b"kernel"
    archive = b"archive"


@pytest.fixture
def quick_image(monkeypatch):
    """Images without packages; says how often one was made."""
    made: list[int] = []

    class _Archive:
        def update(self) -> None:
            made.append(1)

    monkeypatch.setattr(debian, "archive", lambda _say: _Archive())
    monkeypatch.setattr(rootfs, "make", lambda _archive, _say: _System())
    return made


def test_the_cache_root_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "own"))
    assert cache.root() == tmp_path / "own"
    monkeypatch.delenv("SLIPWAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.root() == tmp_path / "slipway"


def test_an_image_is_made_once(own_cache, quick_image):
    first = image.ensure(lambda _: None)
    again = image.ensure(lambda _: pytest.fail("a second image was made"))
    assert first == again
    assert quick_image == [1]
    assert first.initrd.read_bytes().startswith(b"archive070701")
    assert first.client_key.stat().st_mode & 0o077 == 0
    assert first.known_hosts.read_text().startswith("slipway-board ssh-ed25519 AAAA")
    assert own_cache in first.folder.parents


@pytest.mark.usefixtures("quick_image")
def test_the_digest_tells_content_not_keys(tmp_path, monkeypatch):
    digests, keys = set(), set()
    for name in ("a", "b"):
        monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / name))
        made = image.ensure(lambda _: None)
        digests.add(made.digest)
        keys.add(made.client_key.read_bytes())
    assert len(digests) == 1
    assert len(keys) == 2
    monkeypatch.setattr(_System, "kernel", b"other")
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "c"))
    assert image.ensure(lambda _: None).digest not in digests


def test_what_a_killed_maker_left_is_never_an_image(own_cache, quick_image, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            image.ensure(lambda _: None)
    left = list((own_cache / "boards").glob(".*.partial/*"))
    assert left
    (left[0].parent / "half").write_text("left over")
    made = image.ensure(lambda _: None)
    assert not (made.folder / "half").exists()
    assert quick_image == [1, 1]


def test_a_cache_that_cannot_be_written_is_a_users_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="folder cannot be written") as caught:
        image.ensure(lambda _: None)
    assert "SLIPWAY_CACHE=" in caught.value.hint


@pytest.mark.usefixtures("own_cache", "quick_image")
def test_a_full_disk_is_a_users_error(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "there")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="there: the board's image cannot be kept: No space left"):
        image.ensure(lambda _: None)


def test_a_lock_is_waited_for_and_ends_with_its_holder(tmp_path):
    script = "import sys, time; from toolchain import cache; from pathlib import Path\n"
    script += "with cache.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")], stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with cache.locked(tmp_path / "lock", waiting=lambda: holder.send_signal(signal.SIGKILL)):
            assert holder.wait(10) == -signal.SIGKILL


# ---- naming a unit


def test_a_board_is_named_by_its_cpu():
    unit = devices.resolve("qemu:cortex-a72", None)
    assert (unit.driver, unit.cpu, unit.name) == ("qemu", "cortex-a72", "qemu:cortex-a72")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("qemu:cortex-72", "unknown CPU model 'cortex-72'.*did you mean 'cortex-a72'"),
        ("qemu:", "unknown CPU model ''.*cortex-a72"),
        ("qemu:max", "emulation of SME is at fault.*cortex-a53"),
        ("qmeu:cortex-a72", "unknown kind of device 'qmeu'.*qemu:cortex-a72"),
        ("pi5", "no devices file is given that could list 'pi5'.*devices=PATH"),
    ],
)
def test_a_wrong_device_is_a_users_error(spec, words):
    with pytest.raises(UserError, match=f"(?s)device={spec}.*{words}"):
        devices.resolve(spec, None)


@pytest.fixture
def lab(tmp_path):
    """A function that writes a devices file."""
    (tmp_path / "key").write_text("")
    (tmp_path / "known").write_text("")

    def write(text: str) -> Path:
        path: Path = tmp_path / "devices.toml"
        path.write_text(text)
        return path

    return write


def test_a_unit_of_the_devices_file(lab, tmp_path):
    path = lab('[pi5]\nhost = "pi5.lab"\nuser = "pi"\nkey = "key"\nknown_hosts = "known"\n')
    unit = devices.resolve("pi5", path)
    assert (unit.driver, unit.host, unit.port, unit.user) == ("ssh", "pi5.lab", 22, "pi")
    assert unit.key == str(tmp_path / "key")
    assert unit.known_hosts == str(tmp_path / "known")


def test_paths_of_a_unit_may_be_in_the_home_folder(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/id").write_text("")
    assert devices.resolve("a", lab('[a]\nhost="h"\nkey="~/id"\n')).key == f"{tmp_path}/home/id"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[pi4]\nhost = "h"\n', "no unit 'pi5'.*did you mean 'pi4'"),
        ("", "no unit 'pi5'.*there are none"),
        ('[pi5]\nuser = "pi"\n', "the key 'host' is missing"),
        ('[pi5]\nhots = "h"\n', "unknown key 'hots'.*did you mean 'host'"),
        ('[pi5]\nhost = "h"\nport = "22"\n', "port: '22' should be a valid integer"),
        ('[pi5]\nhost = "h"\nport = 70000\n', "port: 70000"),
        ('[pi5]\nhost = "h"\nkey = "none"\n', r"\[pi5\].key: no such file.*relative to the"),
        ('[pi5]\nhost = "h"\nknown_hosts = "none"\n', "known_hosts: no such file"),
        ('[pi5]\nhost = "h"\ndriver = "smoke"\n', "'smoke' should be 'qemu' or 'ssh'"),
        ('[pi5]\ndriver = "qemu"\ncpu = "max"\n', "SME"),
        ('[pi5]\nname = "x"\nhost = "h"\n', "unknown key 'name'"),
        ("pi5 = 3\n", "is not a table"),
        ("[pi5\n", "is not TOML"),
    ],
)
def test_a_wrong_devices_file_is_a_users_error(lab, text, words):
    with pytest.raises(UserError, match=f"(?s)(pi5|devices.toml).*{words}"):
        devices.resolve("pi5", lab(text))


def test_a_devices_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"(?s)none\.toml, and there is no such.*devices=PATH"):
        devices.resolve("pi5", tmp_path / "none.toml")


def test_resolving_imports_nothing_heavy():
    code = "import sys; from toolchain import devices; devices.resolve('qemu:cortex-a72', None)\n"
    code += "print([m for m in ('paramiko', 'elftools', 'cryptography', 'torch') "
    code += "if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- known hosts

NAME = "[board.lab]:2222"


@pytest.mark.parametrize(
    ("line", "listed"),
    [
        (f"{NAME} ssh-ed25519 AAAA", True),
        (f"other,{NAME} ssh-ed25519 AAAA comment", True),
        ("[*.lab]:2222 ssh-ed25519 AAAA", True),
        (f"*,!{NAME} ssh-ed25519 AAAA", False),
        ("board.lab ssh-ed25519 AAAA", False),
        (f"# {NAME} ssh-ed25519 AAAA", False),
        (f"@cert-authority {NAME} ssh-ed25519 AAAA", False),
        ("garbage", False),
    ],
)
def test_known_hosts_are_read_as_ssh_reads_them(line, listed):
    good, revoked = known_hosts.known_keys(line, NAME)
    assert good == ({"AAAA": "ssh-ed25519"} if listed else {})
    assert revoked == set()


def test_a_revoked_key_is_told_apart():
    good, revoked = known_hosts.known_keys(f"@revoked {NAME} ssh-ed25519 AAAA", NAME)
    assert (good, revoked) == ({}, {"AAAA"})


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen on this machine")
def test_hashed_hosts_and_fingerprints_agree_with_ssh_keygen(tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    kind, public = (tmp_path / "key.pub").read_text().split()[:2]
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{NAME} {kind} {public}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", hosts], check=True, capture_output=True)
    assert hosts.read_text().startswith("|1|")
    assert known_hosts.known_keys(hosts.read_text(), NAME)[0] == {public: kind}
    assert known_hosts.known_keys(hosts.read_text(), "other")[0] == {}
    listed = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True)
    assert known_hosts.fingerprint(public) == listed.stdout.split()[1]


# ---- reaching a unit


def test_a_port_where_nobody_listens(lab):
    unit = devices.resolve("a", lab('[a]\nhost="127.0.0.1"\nport=1\nknown_hosts="known"\n'))
    with (
        pytest.raises(InfraError, match=r"127.0.0.1:1: .*cannot be reached: Connection refused"),
        ssh_connect(unit),
    ):
        pass


def test_a_name_that_does_not_resolve(lab):
    unit = devices.resolve("a", lab('[a]\nhost="nothing.invalid"\nknown_hosts="known"\n'))
    with pytest.raises(InfraError, match="cannot be reached"), ssh_connect(unit):
        pass


@pytest.fixture
def listener():
    """A server on a free port that takes one connection, and what it then says."""
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:

        def serve() -> None:
            accepted = stack.enter_context(server.accept()[0])
            accepted.sendall(b"".join(said))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], said
        thread.join()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "while logging in .Error reading SSH protocol banner"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200, "logging in"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "logging in"),
    ],
    ids=["silent", "no SSH", "silent after the banner"],
)
def test_a_server_that_does_not_speak_ends_in_time(lab, listener, monkeypatch, said, words):
    monkeypatch.setattr(login, "ANSWER_SECONDS", 0.5)
    port, says = listener
    says.append(said)
    text = f'[a]\nhost="127.0.0.1"\nport={port}\nuser="u"\nknown_hosts="known"\n'
    unit = devices.resolve("a", lab(text))
    start = time.monotonic()
    with pytest.raises(InfraError, match=words), ssh_connect(unit):
        pass
    assert time.monotonic() - start < 5


def test_a_host_is_asked_for_the_kind_of_key_that_is_known(lab, tmp_path):
    """It would show its Ed25519 key first, which nobody has seen yet."""
    keys = [_host_key(tmp_path / kind, kind) for kind in ("ed25519", "ecdsa")]
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        port = server.getsockname()[1]

        def serve() -> None:
            transport = paramiko.Transport(server.accept()[0])
            stack.callback(transport.close)
            for key in keys:
                transport.add_server_key(key)
            transport.start_server(event=threading.Event(), server=paramiko.ServerInterface())

        thread = threading.Thread(target=serve)
        thread.start()
        known = f"[127.0.0.1]:{port} {keys[1].get_name()} {keys[1].get_base64()}\n"
        (tmp_path / "known").write_text(known)
        text = f'[a]\nhost="127.0.0.1"\nport={port}\nuser="u"\nkey="ed25519"\n'
        unit = devices.resolve("a", lab(text + 'known_hosts="known"\n'))
        with pytest.raises(InfraError, match="does not let the user 'u' in"), ssh_connect(unit):
            pass
        thread.join()


def _host_key(path: Path, kind: str) -> paramiko.PKey:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
    return paramiko.PKey.from_path(path)


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key(lab, tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    unit = devices.resolve("a", lab('[a]\nhost="127.0.0.1"\nkey="key"\nknown_hosts="known"\n'))
    with pytest.raises(UserError, match="key: is not a private SSH key"), ssh_connect(unit):
        pass


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen on this machine")
def test_a_key_with_a_passphrase(lab, tmp_path):
    (tmp_path / "key").unlink()
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "key"]
    subprocess.run(command, check=True)
    unit = devices.resolve("a", lab('[a]\nhost="127.0.0.1"\nkey="key"\nknown_hosts="known"\n'))
    with pytest.raises(UserError, match=r"(?s)passphrase.*ssh-add"), ssh_connect(unit):
        pass


def test_qemu_that_is_not_installed(monkeypatch, tmp_path):
    for tool in ("setpriv", "sh"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    made = image.Image(tmp_path, tmp_path, tmp_path, tmp_path, tmp_path, "")
    with pytest.raises(UserError, match="qemu-system-aarch64' is not installed") as caught:
        qemu.Board("cortex-a72", made).__enter__()
    assert "apt-get install qemu-system-arm" in caught.value.hint


# ---- facts

PI = """
@machine
aarch64

@kernel
6.6.31 #1

@model
Raspberry Pi 4 Model B Rev 1.4

@cpuinfo
processor : 0
Features\t: fp asimd
CPU implementer\t: 0x41
CPU part\t: 0xd08

processor : 1
CPU implementer\t: 0x41
CPU part\t: 0xd08

@meminfo
MemTotal:        3884396 kB

@cores
2

@libc
ldd (Debian GLIBC 2.36-9+rpt2+deb12u4) 2.36
"""


def test_facts_of_a_raspberry_pi():
    found = facts.parse(PI)
    assert found["cpu"] == "Cortex-A72"
    assert found["libc"] == "2.36"
    assert found["memory"] == str(3884396 * 1024)
    assert found["model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert found["features"] == "fp asimd"


@pytest.mark.parametrize(
    ("said", "libc"),
    [
        ("glibc 2.28", "2.28"),
        ("GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.", "2.36"),
        ("", "unknown"),
    ],
)
def test_the_version_of_libc(said, libc):
    assert facts.parse(f"@libc\n{said}\n")["libc"] == libc


def test_big_and_little_cores_are_both_named():
    text = "@cpuinfo\n" + "".join(
        f"CPU implementer : 0x41\nCPU part : {part}\n" for part in ("0xd05", "0xd0b", "0xfff")
    )
    assert facts.parse(text)["cpu"] == "Cortex-A55 + Cortex-A76 + implementer 0x41 part 0xfff"


# ---- the fake device


def test_the_fake_device_runs_commands(tmp_path):
    (tmp_path / "tool").write_text("#!/bin/sh\necho out; echo err >&2; echo made > f; exit 3\n")
    (tmp_path / "tool").chmod(0o755)
    with FakeDevice() as device:
        device.put({"bin/tool": tmp_path / "tool"})
        done = device.run(["bin/tool"], timeout=10)
        assert (done.status, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
        device.get("f", tmp_path / "f")
        assert device.run(["sh", "-c", "kill -SEGV $$"], timeout=10).signal == "SIGSEGV"
    assert (tmp_path / "f").read_text() == "made\n"
    assert not device.work.exists()


def test_the_fake_device_fails_on_demand(tmp_path):
    (tmp_path / "file").write_text("")
    with FakeDevice(faults={2: "full", 3: "timeout"}) as device:
        device.put({"a": tmp_path / "file"})
        with pytest.raises(InfraError, match="put: the device is full"):
            device.put({"a": tmp_path / "file"})
        with pytest.raises(InfraError, match="run: no end in time"):
            device.run(["true"], timeout=10)
        assert device.run(["true"], timeout=10).status == 0


def test_the_fake_device_kills_what_takes_too_long():
    start = time.monotonic()
    with FakeDevice() as device:
        with pytest.raises(InfraError, match="killed"):
            device.run(["sh", "-c", "echo $$ > pid; sleep 60"], timeout=0.5)
        assert time.monotonic() - start < 10
        pid = int((device.work / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# ---- children


def test_a_tied_child_dies_with_its_parent():
    code = "import subprocess, sys; from toolchain.devices.tied import tied\n"
    code += "p = subprocess.Popen(tied(['sleep', '60'])); print(p.pid, flush=True); p.wait()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        time.sleep(0.2)
        assert Path(f"/proc/{child}/cmdline").read_bytes() == b"sleep\x0060\x00"
        parent.kill()
    _gone(child)


def test_a_tied_child_of_a_parent_that_is_already_dead_does_not_start():
    command = tied(["echo", "started"])
    command[command.index(str(os.getpid()))] = "999999999"
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (143, b"")


def _gone(pid: int) -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} is still there")
