"""Folders that stay on a device: sent once, whole or not there, whoever else sends the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolchain.devices import store
from toolchain.devices.fake import FakeDevice
from toolchain.devices.local import LocalDevice
from toolchain.devices.unix import UnixDevice
from toolchain.errors import InfraError
from toolchain.tests import sshd
from toolchain.tests.processes import gone

DIGEST = "0123456789abcdef" * 4


@dataclass
class Place:
    """Where devices stand. runtimes: their store, a folder of this machine."""

    runtimes: Path
    connect: Callable[[], AbstractContextManager[UnixDevice]]

    @property
    def kept(self) -> Path:
        return self.runtimes / DIGEST

    @property
    def left(self) -> list[str]:
        """All names in the store, hidden ones too."""
        return sorted(os.listdir(self.runtimes)) if self.runtimes.exists() else []  # noqa: PTH208


@pytest.fixture(params=["local", pytest.param("ssh", marks=pytest.mark.slow)])
def place(request, tmp_path) -> Iterator[Place]:
    if request.param == "local":
        yield Place(tmp_path / "store/runtimes", lambda: _local(tmp_path / "store"))
        return
    (tmp_path / "sshd").mkdir()
    with sshd.serving(tmp_path / "sshd") as server:
        yield Place(server.home / ".cache/slipway/runtimes", server.connect)


@contextmanager
def _local(folder: Path) -> Iterator[UnixDevice]:
    device = LocalDevice("local", folder)
    try:
        yield device
    finally:
        device.remove_work()


@pytest.fixture
def files(tmp_path) -> Mapping[str, Path]:
    (tmp_path / "build").mkdir()
    named = {"libone.so": b"one" * 1000, "lib two.so.6": b"", "plugins/deep.so": b"deep"}
    for number, data in enumerate(named.values()):
        (tmp_path / f"build/{number}").write_bytes(data)
        (tmp_path / f"build/{number}").chmod(0o755)
    return {name: tmp_path / f"build/{number}" for number, name in enumerate(named)}


@pytest.fixture
def sent(monkeypatch) -> list[str]:
    """The folder into which each delivery went."""
    seen: list[str] = []
    deliver = UnixDevice.deliver

    def seeing(device: UnixDevice, files: Mapping[str, Path], into: str) -> None:
        seen.append(into)
        deliver(device, files, into)

    monkeypatch.setattr(UnixDevice, "deliver", seeing)
    return seen


def _content(device: UnixDevice, name: str = "lib") -> bytes:
    script = 'cd "$1" && cat libone.so "lib two.so.6" plugins/deep.so'
    return device.run(["sh", "-c", script, "sh", name], timeout=20).stdout


def test_files_are_sent_once_and_stay(place, files, sent):
    for _ in range(2):
        with place.connect() as device:
            device.link("lib", DIGEST, files)
            assert _content(device) == b"one" * 1000 + b"deep"
        assert place.left == [DIGEST]
    assert len(sent) == 1
    assert (place.kept / "libone.so").stat().st_mode & 0o777 == 0o755
    assert place.runtimes.stat().st_mode & 0o077 == 0, "others must not put libraries there"


def test_one_device_may_link_under_several_names(place, files, sent):
    with place.connect() as device:
        for name in ("a/lib", "b/lib", "a/lib"):
            device.link(name, DIGEST, files)
            assert _content(device, name).startswith(b"one")
    assert len(sent) == 1


def test_what_stays_does_not_follow_the_build(place, files):
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        with files["libone.so"].open("r+b") as file:
            file.write(b"changed in place")
        assert _content(device).startswith(b"oneone")


def test_use_is_seen_in_the_time_of_change(place, files):
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        os.utime(place.kept, (0, 0))
        device.link("lib", DIGEST, files)
    assert time.time() - place.kept.stat().st_mtime < 60


@pytest.mark.parametrize("damage", ["cut", "gone", "more", "empty", "a file"])
def test_a_damaged_folder_is_sent_again(place, files, sent, damage):
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        match damage:
            case "cut":
                (place.kept / "libone.so").write_bytes(b"one")
            case "gone":
                (place.kept / "lib two.so.6").unlink()
            case "more":
                (place.kept / "libthree.so").write_bytes(b"")
            case "empty":
                shutil.rmtree(place.kept)
                place.kept.mkdir()
            case "a file":
                shutil.rmtree(place.kept)
                place.kept.write_bytes(b"")
        device.link("lib", DIGEST, files)
        assert _content(device) == b"one" * 1000 + b"deep"
        assert not (place.kept / "libthree.so").exists()
    assert len(sent) == 2
    assert place.left == [DIGEST]


def test_a_damaged_upload_is_never_kept(place, files, monkeypatch):
    with place.connect() as device:
        upload = device._upload

        def damaging(copied: Mapping[str, Path]) -> None:
            upload(copied)
            Path(next(to for to in copied if to.endswith("libone.so"))).write_bytes(b"two" * 1000)

        with monkeypatch.context() as broken:
            broken.setattr(device, "_upload", damaging)
            with pytest.raises(InfraError, match=r"libone.so arrived damaged: sha256 \w{64} inst"):
                device.link("lib", DIGEST, files)
        assert place.left == []
        device.link("lib", DIGEST, files)
        assert _content(device).startswith(b"one")


def test_a_full_disk_is_told_with_figures(place, files, monkeypatch):
    with place.connect() as device:
        with monkeypatch.context() as full:
            full.setattr(device, "_free", lambda _folder: 2048)
            text = rf"full: 2048 bytes are free in {place.runtimes}/\S+, 3004 are needed"
            with pytest.raises(InfraError, match=text):
                device.link("lib", DIGEST, files)
        assert place.left == []


def test_two_clients_send_the_same(place, files, sent, monkeypatch):
    """Both find nothing, both send; one of them finds the other's in place."""
    both = threading.Barrier(2)
    seen: list[bytes] = []

    def work() -> None:
        with place.connect() as device:
            upload = device._upload

            def together(copied: Mapping[str, Path]) -> None:
                upload(copied)
                both.wait(30)

            monkeypatch.setattr(device, "_upload", together)
            device.link("lib", DIGEST, files)
            seen.append(_content(device))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [b"one" * 1000 + b"deep"] * 2
    assert len(set(sent)) == 2
    assert place.left == [DIGEST]


def test_a_folder_in_use_is_not_replaced_by_the_same(place, files, monkeypatch):
    """Whoever comes second must not pull the folder from under the first one's run."""
    with place.connect() as first, place.connect() as second:
        look = store._whole
        with monkeypatch.context() as late:
            answers = iter([None])
            late.setattr(store, "_whole", lambda *args: next(answers, None) or look(*args))
            first.link("lib", DIGEST, files)
        number = place.kept.stat().st_ino
        with monkeypatch.context() as late:
            asked: list[int] = []

            def nothing_at_first(*args):
                asked.append(1)
                return None if len(asked) == 1 else look(*args)

            late.setattr(store, "_whole", nothing_at_first)
            second.link("lib", DIGEST, files)
    assert place.kept.stat().st_ino == number


def test_a_client_that_is_killed_leaves_nothing_that_counts(tmp_path, files, sent):
    code = "import os, sys; from pathlib import Path; from toolchain.devices.local import *\n"
    code += "device = LocalDevice('local', Path(sys.argv[1])); upload = device._upload\n"
    code += "def half(files):\n    upload(dict(list(files.items())[:2])); os.kill(os.getpid(), 9)\n"
    code += "device._upload = half; named = dict(a.split('=') for a in sys.argv[3:])\n"
    code += "device.link('lib', sys.argv[2], {n: Path(p) for n, p in named.items()})\n"
    arguments = [f"{name}={path}" for name, path in files.items()]
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "store", DIGEST, *arguments], check=False
    )
    assert done.returncode == -9
    place = Place(tmp_path / "store/runtimes", lambda: _local(tmp_path / "store"))
    (partial,) = place.left
    assert partial.startswith(".partial.")
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        assert _content(device) == b"one" * 1000 + b"deep"
        assert sorted(place.left) == sorted([partial, DIGEST]), "it may still be at work"
        os.utime(place.runtimes / partial, (0, 0))
        device.link("lib", "fedcba9876543210", files)
    assert place.left == sorted([DIGEST, "fedcba9876543210"])
    assert len(sent) == 2


@pytest.mark.slow
def test_a_server_that_is_killed_on_the_way(tmp_path, files, monkeypatch):
    (tmp_path / "sshd").mkdir()
    with sshd.serving(tmp_path / "sshd") as server, server.connect() as device:
        upload = device._upload

        def cut(copied: Mapping[str, Path]) -> None:
            upload(dict(list(copied.items())[:2]))
            server.kill()
            gone(server.pid)
            upload(copied)

        monkeypatch.setattr(device, "_upload", cut)
        with pytest.raises(InfraError, match="the connection was lost while uploading"):
            device.link("lib", DIGEST, files)
        place = Place(server.home / ".cache/slipway/runtimes", server.connect)
        (partial,) = place.left
        assert partial.startswith(".partial.")


HOMES = {
    "absent": "",
    "not ours": "HOME=/proc/1",
    "read-only": "HOME=/sys",
}


@pytest.mark.slow
@pytest.mark.parametrize("home", HOMES)
def test_a_home_that_cannot_be_written(tmp_path, files, home, monkeypatch):
    """The user's folder in /var/tmp is taken."""
    shared = Path(f"/var/tmp/slipway-{os.getuid()}")
    digest = os.urandom(16).hex()
    monkeypatch.setattr(store, "_FOLDERS", "")
    for script in ("_LOOK", "_STAGE"):
        text = f"unset HOME XDG_CACHE_HOME SLIPWAY_CACHE; {HOMES[home]}\n{getattr(store, script)}"
        monkeypatch.setattr(store, script, text)
    there = shared.exists()
    with _local(tmp_path / "store") as device:
        try:
            device.link("lib", digest, files)
            assert _content(device).startswith(b"one")
            assert Path(device.work, "lib").resolve() == shared / "runtimes" / digest
            assert shared.stat().st_mode & 0o077 == 0 or there
        finally:
            shutil.rmtree(shared / "runtimes" / digest if there else shared, ignore_errors=True)


def test_a_name_outside_the_work_folder_or_a_wrong_digest(tmp_path, files):
    with _local(tmp_path) as device:
        with pytest.raises(ValueError, match="not a name inside the work folder"):
            device.link("../lib", DIGEST, files)
        for digest in ("", "..", "a/b", "ABCDEF0123456789"):
            with pytest.raises(ValueError, match="is not a digest"):
                device.link("lib", digest, files)


def test_the_fake_device_links_too(files):
    with FakeDevice(faults={3: "lost"}) as device:
        device.link("lib", DIGEST, files)
        assert device.run(["ls", "lib/plugins"], timeout=20).stdout == b"deep.so\n"
        with pytest.raises(InfraError, match="link: the connection was lost"):
            device.link("lib", DIGEST, files)
