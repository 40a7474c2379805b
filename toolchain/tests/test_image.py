"""Images of boards in the cache: made once, whole or not there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain import cache
from toolchain.devices import debian, image, rootfs
from toolchain.errors import UserError


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
