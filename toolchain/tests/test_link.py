"""Files that stay on a device: sent once, whole or not there, whoever else sends the same."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolchain.devices import scripts, store, trees
from toolchain.devices.fake import FakeDevice
from toolchain.devices.unix import UnixDevice
from toolchain.errors import InfraError
from toolchain.tests import sshd, stores
from toolchain.tests.processes import gone

DIGEST = "0123456789abcdef" * 4
OTHER = "fedcba9876543210"


@dataclass
class Place:
    """Where devices stand. root: their store, a folder of this machine."""

    root: Path
    connect: Callable[[], AbstractContextManager[UnixDevice]]

    @property
    def kept(self) -> Path:
        return self.root / "trees" / DIGEST

    def names(self, folder: str) -> list[str]:
        """All names there, hidden ones too."""
        there = self.root / folder
        return sorted(os.listdir(there)) if there.exists() else []  # noqa: PTH208

    @property
    def partial(self) -> dict[str, int]:
        """Sizes of what was sent and not kept, by digest."""
        return {p.name: p.stat().st_size for p in self.root.glob("clients/*/partial/*")}


@pytest.fixture(params=stores.KINDS)
def place(request, tmp_path) -> Iterator[Place]:
    with stores.opened(request.param, tmp_path) as at:
        yield Place(*at)


CONTENT = {"libone.so": b"one" * 100_000, "lib two.so.6": b"", "plugins/deep.so": b"deep"}


@pytest.fixture
def files(tmp_path) -> Mapping[str, Path]:
    (tmp_path / "build").mkdir()
    for number, data in enumerate(CONTENT.values()):
        (tmp_path / f"build/{number}").write_bytes(data)
        (tmp_path / f"build/{number}").chmod(0o755)
    return {name: tmp_path / f"build/{number}" for number, name in enumerate(CONTENT)}


@pytest.fixture
def sent(monkeypatch) -> list[str]:
    """Digests of the files that were sent to stay, in order; with a star if one was resumed."""
    seen: list[str] = []
    upload = UnixDevice.upload

    def seeing(device: UnixDevice, files: Mapping[str, Path], resume: bool = False) -> None:
        seen.extend(Path(to).name + "*" * resume for to in files if "/partial/" in to)
        upload(device, files, resume)

    monkeypatch.setattr(UnixDevice, "upload", seeing)
    return seen


def sha(name: str) -> str:
    return hashlib.sha256(CONTENT[name]).hexdigest()


def _content(device: UnixDevice, name: str = "lib") -> bytes:
    script = 'cd "$1" && cat libone.so "lib two.so.6" plugins/deep.so'
    return device.run(["sh", "-c", script, "sh", name], timeout=20).stdout


ALL = b"".join(CONTENT.values())


def test_files_are_sent_once_and_stay(place, files, sent):
    for _ in range(2):
        with place.connect() as device:
            device.link("lib", DIGEST, files)
            assert _content(device) == ALL
        assert place.names("trees") == [DIGEST]
        assert place.names("clients") == []
    assert sorted(sent) == sorted(map(sha, CONTENT)) == place.names("files")
    assert (place.kept / "libone.so").stat().st_mode & 0o777 == 0o555
    assert (place.kept / "libone.so").samefile(place.root / "files" / sha("libone.so"))
    assert place.root.stat().st_mode & 0o077 == 0, "others must not put libraries there"


def test_only_what_is_missing_is_sent(place, files, sent, tmp_path):
    """Whatever its name is, and whatever tree it is of."""
    (tmp_path / "new").write_bytes(b"new")
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        del sent[:]
        more = {"renamed.so": files["libone.so"], "new": tmp_path / "new"}
        device.link("other", OTHER, more)
        assert sent == [hashlib.sha256(b"new").hexdigest()]
        assert device.run(["cat", "other/new"], timeout=20).stdout == b"new"
        one = place.root / "trees" / OTHER / "renamed.so"
        assert one.samefile(place.kept / "libone.so")


def test_one_device_may_link_under_several_names(place, files, sent):
    with place.connect() as device:
        for name in ("a/lib", "b/lib", "a/lib"):
            device.link(name, DIGEST, files)
            assert _content(device, name) == ALL
    assert len(sent) == 3


def test_what_stays_does_not_follow_the_build(place, files):
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        with files["libone.so"].open("r+b") as file:
            file.write(b"changed in place")
        assert _content(device) == ALL


def test_nothing_is_put_into_what_stays(place, files, tmp_path):
    (tmp_path / "f").write_bytes(b"mine")
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        with pytest.raises(InfraError, match="leads to what stays"):
            device.put({"lib/libone.so": tmp_path / "f"})
        device.run(["ln", "-s", f"{place.kept}/libone.so", "own"], timeout=20)
        device.put({"own": tmp_path / "f"})
        assert device.run(["cat", "own"], timeout=20).stdout == b"mine"
        assert _content(device) == ALL


def test_use_is_seen_in_the_time_of_change(place, files):
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        os.utime(place.kept, (0, 0))
        device.link("lib", DIGEST, files)
    assert time.time() - place.kept.stat().st_mtime < 60


@pytest.mark.parametrize("damage", ["cut", "gone", "more", "empty", "a file", "a folder"])
def test_a_damaged_tree_is_mended(place, files, sent, damage):
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        del sent[:]
        one = place.kept / "libone.so"
        match damage:
            case "cut":
                one.write_bytes(b"one")
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
            case "a folder":
                one.unlink()
                (one / "deep").mkdir(parents=True)
        device.link("lib", DIGEST, files)
        assert _content(device) == ALL
        assert not (place.kept / "libthree.so").exists()
    assert sent == ([sha("libone.so")] if damage == "cut" else [])
    assert place.names("trees") == [DIGEST]


def test_what_is_damaged_is_mended_in_all_trees(place, files):
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        device.link("other", OTHER, {"renamed.so": files["libone.so"]})
        (place.kept / "libone.so").write_bytes(b"one")
        device.link("lib", DIGEST, files)
        assert (place.root / "trees" / OTHER / "renamed.so").read_bytes() == CONTENT["libone.so"]


def _damaging(device: UnixDevice, times: int, monkeypatch) -> None:
    """So many uploads write other bytes than they should, as many of them."""
    upload, left = device._upload, [times]

    def damaged(copied: Mapping[str, Path], resume: bool = False) -> None:
        upload(copied, resume)
        found = [Path(to) for to in copied if to.endswith(sha("libone.so"))]
        if found and left[0]:
            left[0] -= 1
            found[0].chmod(0o600)
            found[0].write_bytes(b"two" * 100_000)

    monkeypatch.setattr(device, "_upload", damaged)


def test_what_arrives_damaged_is_sent_once_more_from_the_start(place, files, sent, monkeypatch):
    with place.connect() as device:
        _damaging(device, 1, monkeypatch)
        device.link("lib", DIGEST, files)
        assert _content(device) == ALL
    assert sent.count(sha("libone.so")) == 2
    assert sha("libone.so") + "*" not in sent


def test_a_damaged_upload_is_never_kept(place, files, monkeypatch):
    with place.connect() as device:
        with monkeypatch.context() as broken:
            _damaging(device, 99, broken)
            with pytest.raises(InfraError, match=r"arrived damaged, more than once: libone\.so"):
                device.link("lib", DIGEST, files)
        assert place.names("trees") == []
        assert sha("libone.so") not in place.names("files")
        device.link("lib", DIGEST, files)
        assert _content(device) == ALL


def test_a_full_disk_is_told_with_figures_before_the_first_byte(place, files, sent, monkeypatch):
    text = "Filesystem\nfs 9 9 2 50%% /\n"
    with place.connect() as device:
        with monkeypatch.context() as full:
            full.setattr(scripts, "LOOK", f"df() {{ printf '{text}'; }}\n{scripts.LOOK}")
            told = rf"full: 2048 bytes are free in {place.root}, 300004 are needed"
            with pytest.raises(InfraError, match=told):
                device.link("lib", DIGEST, files)
        assert sent == place.names("trees") == []


def test_two_clients_send_the_same(place, files, sent, monkeypatch):
    """Both find nothing, both send; one of them finds the other's in place."""
    both = threading.Barrier(2)
    seen: list[bytes] = []

    def work() -> None:
        with place.connect() as device:
            upload = device._upload

            def together(copied: Mapping[str, Path], resume: bool = False) -> None:
                upload(copied, resume)
                both.wait(30)

            monkeypatch.setattr(device, "_upload", together)
            device.link("lib", DIGEST, files)
            seen.append(_content(device))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [ALL] * 2
    assert len(sent) == 6
    assert place.names("trees") == [DIGEST]
    assert place.names("files") == sorted(map(sha, CONTENT))


def test_a_tree_in_use_is_not_replaced_by_the_same(place, files, monkeypatch):
    """Whoever comes second must not pull it from under the first one's run."""
    with place.connect() as first, place.connect() as second:
        look = store.look
        with monkeypatch.context() as late:
            found = look(second, [trees.of_files(DIGEST, files)])
            first.link("lib", DIGEST, files)
            number = (place.kept / "libone.so").stat().st_ino, place.kept.stat().st_ino
            late.setattr(store, "look", lambda *_: found)
            second.link("lib", DIGEST, files)
        assert _content(second) == ALL
    assert place.kept.stat().st_ino == number[1]
    assert _readable(place.kept)


def _readable(folder: Path) -> bool:
    return b"".join((folder / name).read_bytes() for name in CONTENT) == ALL


KILLED = """
import os, sys
from pathlib import Path
from toolchain.devices import store
from toolchain.devices.local import LocalDevice
device = LocalDevice("local", Path(sys.argv[1]))
upload, keep = device._upload, store._keep
def half(files, resume=False):
    for to, path in files.items():
        Path(to).write_bytes(path.read_bytes()[:200_000])
    os.kill(os.getpid(), 9)
def all_(*args):
    os.kill(os.getpid(), 9)
if sys.argv[3] == "upload":
    device._upload = half
else:
    store._keep = all_
named = dict(a.split("=") for a in sys.argv[4:])
device.link("lib", sys.argv[2], {n: Path(p) for n, p in named.items()})
"""


@pytest.mark.parametrize("when", ["upload", "rename"])
def test_a_killed_client_leaves_what_the_next_one_goes_on_with(tmp_path, files, sent, when):
    """Half of a file, or all files but none of them in place."""
    arguments = [f"{name}={path}" for name, path in files.items()]
    command = [sys.executable, "-c", KILLED, tmp_path / "store", DIGEST, when, *arguments]
    assert subprocess.run(command, check=False).returncode == -9
    place = Place(tmp_path / "store", lambda: stores.local(tmp_path / "store"))
    assert place.names("trees") == place.names("files") == []
    assert place.partial[sha("libone.so")] == (200_000 if when == "upload" else 300_000)
    with place.connect() as device:
        device.link("lib", DIGEST, files)
        assert _content(device) == ALL
        assert device.sent_bytes < (150_000 if when == "upload" else 10_000)
    assert sha("libone.so") + "*" in sent
    assert place.names("clients") == []


def test_what_a_client_that_lives_sends_is_left_to_it(place, files, sent):
    with place.connect() as first, place.connect() as second:
        found = store.look(first)
        begun = Path(found.client, "partial", sha("libone.so"))
        begun.write_bytes(b"one")
        second.link("lib", DIGEST, files)
        assert begun.exists()
        assert sha("libone.so") in sent
        shutil.rmtree(place.kept)
        for file in (place.root / "files").iterdir():
            file.unlink()
        os.utime(begun, (0, time.time() - 300))
        second.link("lib", DIGEST, files)
        assert not begun.exists(), "after minutes without a byte it is nobody's"
        assert sent[-1] == sha("libone.so") + "*" or sha("libone.so") + "*" in sent


@pytest.mark.slow
def test_a_server_that_is_killed_on_the_way(tmp_path, files, monkeypatch):
    (tmp_path / "sshd").mkdir()
    with sshd.serving(tmp_path / "sshd") as server, server.connect() as device:
        upload = device._upload

        def cut(copied: Mapping[str, Path], resume: bool = False) -> None:
            upload(dict(list(copied.items())[:2]), resume)
            server.kill()
            gone(server.pid)
            upload(copied, resume)

        monkeypatch.setattr(device, "_upload", cut)
        with pytest.raises(InfraError, match="the connection was lost while uploading"):
            device.link("lib", DIGEST, files)
        place = Place(server.home / ".cache/slipway", server.connect)
        assert place.names("trees") == place.names("files") == []
        assert place.partial[sha("libone.so")] == 300_000


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
    for script in ("LOOK", "LEAVE"):
        text = f"unset HOME XDG_CACHE_HOME SLIPWAY_CACHE; {HOMES[home]}\n{getattr(scripts, script)}"
        monkeypatch.setattr(scripts, script, text)
    there = shared.exists()
    with stores.local(tmp_path / "store") as device:
        try:
            device.link("lib", digest, files)
            assert _content(device) == ALL
            assert Path(device.work, "lib").resolve() == shared / "trees" / digest
            assert shared.stat().st_mode & 0o077 == 0 or there
        finally:
            shutil.rmtree(shared / "trees" / digest if there else shared, ignore_errors=True)


NO_LINKS = """ln() { case $1 in -s) command ln "$@" ;; *) return 1 ;; esac; }
"""


def test_copies_where_there_are_no_hard_links(place, files, sent, monkeypatch):
    monkeypatch.setattr(scripts, "KEEP", NO_LINKS + scripts.KEEP)
    with place.connect() as device:
        for _ in range(2):
            device.link("lib", DIGEST, files)
            assert _content(device) == ALL
        assert (place.kept / "libone.so").stat().st_nlink == 1
    assert len(sent) == 3


def test_a_device_without_flock_is_told(place, files, monkeypatch):
    text = "command() { [ $2 != flock ]; }\n"
    with place.connect() as device:
        monkeypatch.setattr(scripts, "LOOK", text + scripts.LOOK)
        with pytest.raises(InfraError, match="there is no command flock"):
            device.link("lib", DIGEST, files)


def test_a_client_that_lost_its_lease_changes_nothing(place, files):
    with place.connect() as device:
        device.fence = "echo 'slipway: the lease passed on' >&2; exit 97"
        with pytest.raises(InfraError, match="the lease passed on"):
            device.link("lib", DIGEST, files)
        assert place.names("trees") == place.names("files") == []


def test_names_that_are_refused(tmp_path, files):
    with stores.local(tmp_path) as device:
        with pytest.raises(ValueError, match="not a name inside the work folder"):
            device.link("../lib", DIGEST, files)
        for digest in ("", "..", "a/b", "ABCDEF0123456789"):
            with pytest.raises(ValueError, match="is not a digest"):
                device.link("lib", digest, files)
        for name in ("../up", "/abs", "a\nb", " a", "a/./b", ""):
            with pytest.raises(ValueError, match=r"cannot be kept|not a name inside"):
                device.link("lib", DIGEST, {name: files["libone.so"]})


def test_the_fake_device_links_too(files):
    with FakeDevice(faults={3: "lost"}) as device:
        device.link("lib", DIGEST, files)
        assert device.run(["ls", "lib/plugins"], timeout=20).stdout == b"deep.so\n"
        with pytest.raises(InfraError, match="link: the connection was lost"):
            device.link("lib", DIGEST, files)
