"""Uploads and downloads: whole, resumed, cut off; with SFTP and without; on fast and slow links."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolchain.devices import transfer
from toolchain.devices.local import LocalDevice
from toolchain.devices.ssh import SshDevice
from toolchain.errors import InfraError
from toolchain.tests import dropbear, proxy, sshd

pytestmark = pytest.mark.slow
SIZES = (0, 1, 65_535, 65_536, 65_537, 300_000, 2_500_000)


@contextmanager
def _local(folder: Path) -> Iterator[LocalDevice]:
    device = LocalDevice("local", folder / "store")
    try:
        yield device
    finally:
        device.remove_work()


@pytest.fixture(
    scope="module", params=["sftp", "no sftp", "dropbear", "dropbear, no sftp", "local"]
)
def device(request, tmp_path_factory) -> Iterator[SshDevice | LocalDevice]:
    folder = tmp_path_factory.mktemp("device")
    if request.param == "local":
        with _local(folder) as local:
            yield local
        return
    sftp = "no sftp" not in request.param
    serving = dropbear.serving if "dropbear" in request.param else sshd.serving
    arguments = () if "dropbear" in request.param else (folder,)
    with serving(*arguments, sftp=sftp) as server, server.connect() as connected:
        yield connected
        assert connected._sender._has_sftp == sftp


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[sshd.Server]:
    with sshd.serving(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@contextmanager
def _linked(server: sshd.Server, link: proxy.Proxy, folder: Path) -> Iterator[SshDevice]:
    """The server through a link, on whose port it is known too."""
    known = folder / "known"
    key = server.known_hosts.read_text().split(" ", 1)[1]
    known.write_text(f"[127.0.0.1]:{link.port} {key}")
    with server.connect(port=link.port, known_hosts=str(known)) as device:
        yield device


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[int, Path]:
    """Files by size."""
    folder = tmp_path_factory.mktemp("parts")
    files = {size: folder / str(size) for size in SIZES}
    for size, path in files.items():
        path.write_bytes(random.Random(size).randbytes(size))
        path.chmod(0o700 + size % 8)
    return files


def test_files_go_there_and_back(device, parts, tmp_path):
    before = device.sent_bytes
    device.put({f"whole/it's {size}": path for size, path in parts.items()})
    assert device.sent_bytes - before == sum(parts)
    for size, path in parts.items():
        device.get(f"whole/it's {size}", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
    modes = device.run(["sh", "-c", "stat -c %a whole/*"], timeout=20).stdout.decode().split()
    wanted = {size: f"{path.stat().st_mode & 0o777:o}" for size, path in parts.items()}
    assert modes == [wanted[size] for size in sorted(wanted, key=lambda s: f"it's {s}")]


def test_what_is_longer_is_replaced(device, parts):
    device.put({"replaced": parts[300_000]})
    device.put({"replaced": parts[65_537]})


@pytest.mark.parametrize("there", [0, 1, 65_536, 65_537, 200_000, 299_999, 300_000])
def test_the_rest_of_a_file_is_sent(device, parts, tmp_path, there):
    content = parts[300_000].read_bytes()
    (tmp_path / "partial").write_bytes(content[:there])
    device.put({"partial": tmp_path / "partial"})
    before = device.sent_bytes
    device._upload({f"{device.work}/partial": parts[300_000]}, resume=True)
    assert device.sent_bytes - before <= 300_000 - there + 65_535 * (there < 300_000)
    device.get("partial", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_nothing_there_and_too_much_there(device, parts, tmp_path):
    device.put({"long": parts[2_500_000]})
    names = {f"{device.work}/{name}": parts[65_537] for name in ("long", "absent")}
    device._upload(names | {f"{device.work}/empty": parts[0]}, resume=True)
    for name, size in (("long", 65_537), ("absent", 65_537), ("empty", 0)):
        device.get(name, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == parts[size].read_bytes()


def test_what_is_there_is_not_looked_at(device, parts, tmp_path):
    """It is the caller's task to verify: a wrong beginning stays."""
    (tmp_path / "wrong").write_bytes(bytes(200_000))
    device.put({"wrong": tmp_path / "wrong"})
    device._upload({f"{device.work}/wrong": parts[300_000]}, resume=True)
    device.get("wrong", tmp_path / "back")
    assert (tmp_path / "back").read_bytes()[:100] == bytes(100)


def test_a_file_that_is_not_there(device, tmp_path):
    with pytest.raises(InfraError, match="there is no file 'nothing' to fetch"):
        device.get("nothing", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("size", [300_000, 2_500_000])
def test_a_full_disk(device, parts, size):
    """The kernel's own full file; root may write it, and others too."""
    if isinstance(device, LocalDevice):
        pytest.skip("shutil refuses a special file before it is full")
    with pytest.raises(InfraError, match=r"uploading /dev/full failed|the device is full"):
        device._upload({"/dev/full": parts[size]})
    assert device.run(["true"], timeout=20).status == 0


def test_a_folder_that_is_not_there(device, parts):
    with pytest.raises(InfraError, match=r"(?i)nowhere/x failed.*(no such file|nonexistent)"):
        device._upload({f"{device.work}/nowhere/x": parts[1]})
    with pytest.raises(InfraError, match=r"(?i)failed.*(no such file|nonexistent)"):
        device._upload({f"{device.work}/nowhere/x": parts[1]}, resume=True)


# ---- slow links


def _text(size: int) -> bytes:
    """Compresses to about a third, as programs do."""
    chance = random.Random(7)
    return bytes(chance.choices(b"abcdefgh", k=size))


@pytest.mark.parametrize("sftp", [True, False])
def test_a_slow_link_carries_what_can_be_compressed(tmp_path, sftp):
    (tmp_path / "text").write_bytes(_text(1_500_000))
    (tmp_path / "noise").write_bytes(os.urandom(100_000))
    (tmp_path / "s").mkdir()
    with (
        sshd.serving(tmp_path / "s", sftp=sftp) as server,
        proxy.Proxy(server.port, rate=3e5) as link,
        _linked(server, link, tmp_path) as device,
    ):
        device.put({"text": tmp_path / "text"})
        assert device.sent_bytes < 0.6 * 1_500_000
        before = device.sent_bytes
        device.put({"noise": tmp_path / "noise"})
        assert device.sent_bytes - before == 100_000


def test_a_device_without_gzip_gets_it_plain(server, tmp_path, monkeypatch):
    (tmp_path / "text").write_bytes(_text(1_500_000))
    with proxy.Proxy(server.port, rate=2e6) as link, _linked(server, link, tmp_path) as device:
        ask = device._sender._ask
        monkeypatch.setattr(
            device._sender, "_ask", lambda script, **more: ask(f"PATH=/none; {script}", **more)
        )
        device.put({"text": tmp_path / "text"})
        assert device.sent_bytes == 1_500_000


def test_a_link_that_is_faster_than_packing_is_left_alone(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_compressed", lambda _piece: (0.3, 0.0))
    (tmp_path / "text").write_bytes(_text(1_500_000))
    with server.connect() as device:
        device.put({"text": tmp_path / "text"})
        assert device.sent_bytes == 1_500_000


# ---- bad links


def _work(server, link, folder, parts):
    with _linked(server, link, folder) as device:
        device.put({"a": parts[2_500_000], "b": parts[300_000]})
        device.get("a", folder / "back")
        device.run(["head", "-c", "3000000", "/dev/zero"], timeout=20)
        device.put({"c": parts[2_500_000]})


@pytest.mark.parametrize("sftp", [True, False])
@pytest.mark.parametrize("counted", ["up", "down"])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_cut_at_any_byte_is_told_in_words(tmp_path, parts, sftp, counted, how):
    chance = random.Random(f"{sftp} {counted} {how}")
    (tmp_path / "s").mkdir()
    with sshd.serving(tmp_path / "s", sftp=sftp) as server:
        whole = 3_200_000 if counted == "up" else 2_600_000
        places = [int(whole ** chance.random()) for _ in range(12)]  # half of them near the start
        for place in [0, 1, 21, 22, *places]:
            with (
                proxy.Proxy(server.port, cut_after=place, counted=counted, how=how) as link,
                pytest.raises(InfraError) as caught,
            ):
                _work(server, link, tmp_path, parts)
            assert "()" not in str(caught.value)
            if "cannot be reached" in str(caught.value):  # a reset before the first byte
                assert place == 0
                continue
            assert "the connection was lost while" in str(caught.value), place
            assert "Run the same command again" in caught.value.hint
            assert link.cuts == 1


@pytest.mark.parametrize("sftp", [True, False])
def test_a_link_that_breaks_again_and_again_gets_it_there(tmp_path, parts, sftp):
    folder = tmp_path / "s"
    folder.mkdir()
    broken = 0
    with (
        sshd.serving(folder, sftp=sftp) as server,
        proxy.Proxy(server.port, cut_after=900_000, counted="up", how="close") as link,
    ):
        while True:
            try:
                with _linked(server, link, tmp_path) as device:
                    name = str(server.home / "stays")
                    device._upload({name: parts[2_500_000]}, resume=True)
                    break
            except InfraError:
                broken += 1
        assert (server.home / "stays").read_bytes() == parts[2_500_000].read_bytes()
    assert 2 <= broken <= 20  # what was on its way is lost, not what had come


def test_silence_is_told_after_a_while(server, tmp_path, parts, monkeypatch):
    monkeypatch.setattr(SshDevice, "patience", 0.7)
    with (
        proxy.Proxy(server.port, cut_after=500_000, how="silence") as link,
        pytest.raises(InfraError, match="no answer for 2 s while uploading"),
        _linked(server, link, tmp_path) as device,
    ):
        device.put({"a": parts[2_500_000]})


def test_two_clients_that_send_the_same_disturb_nobody(server, parts):
    """One is stopped in the middle and goes on when the other one has sent all."""
    name = str(server.home / "shared")
    with server.connect() as first, server.connect() as second:

        def touched() -> None:
            if first._sender.sent_bytes > 1_000_000 and not second.sent_bytes:
                second._upload({name: parts[2_500_000]}, resume=True)

        first._sender.send({name: parts[2_500_000]}, resume=True, touch=touched)
    assert second.sent_bytes
    assert Path(name).read_bytes() == parts[2_500_000].read_bytes()
