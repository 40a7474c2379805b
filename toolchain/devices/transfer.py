"""Files on their way to a device: by SFTP where the server has it, else through a command there.

    files = transfer.Sender(transport, device.ask, patience=30)
    files.send({"/tmp/x/program": path}, resume=True, touch=watchdog.touch)

Whatever is there is written at its own place, never appended: two clients that send the same file
to one name disturb nobody. A file is sent whole or, where that was seen to be faster on this
connection, compressed. That is tried once, on the first file that is large and can be compressed:
a piece is sent plain, the next one compressed, and the faster way is kept. So the speed of the
link, of this machine and of the device all count, and nobody has to tell them.
"""

from __future__ import annotations

import shlex
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import paramiko

from toolchain.devices.streams import Streams
from toolchain.devices.watchdog import gone

_WRITE = 32_640  # bytes in one request of SFTP: with its header it fits into one packet of SSH
_PIECE = 1 << 20  # bytes read at a time
_BLOCK = 1 << 16  # what is resumed starts at a multiple of it
_PLAIN_TRIAL, _PACKED_TRIAL = 1 << 18, 1 << 19  # bytes
_WORTH_TRYING = 1 << 20  # bytes of one file
_WORTH_PACKING = 1 << 16
_SAMPLE = 1 << 15  # bytes, at three places of a file
_RATIO = 0.8  # of a sample, compressed to plain: more is not worth the work
_LEVEL = 1  # libraries to a third, at three times the speed of level 6 for a tenth more bytes
_END_SECONDS = 5.0

# How much is there of each file; one that has more than it should starts again.
_THERE = """
while [ $# -gt 0 ]; do
    [ -e "$1" ] || : >"$1" && there=$(wc -c <"$1") || exit
    [ "$there" -le "$2" ] || { : >"$1" && there=0; } || exit
    echo $((there))
    shift 2
done
"""
# Both are in busybox; dd's report is on stderr with the error, if there is one.
_PLAIN = 'dd of="$1" bs=65536 seek="$2" conv=notrunc && chmod "$3" "$1"'
_PACKED = 'gzip -dc | dd of="$1" bs=65536 seek="$2" conv=notrunc && chmod "$3" "$1"'
_FRESH = '{ : >"$1"; } && '

Touch = Callable[[], object]


@dataclass(frozen=True)
class Piece:
    """A part of a file: up to `end`, from `start`, a multiple of `_BLOCK`.

    fresh: what is there of the file is thrown away.
    """

    to: str
    path: Path
    start: int
    end: int
    fresh: bool

    @property
    def mode(self) -> int:
        return self.path.stat().st_mode & 0o777

    def data(self, size: int = _PIECE) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.end - self.start
            while left and (data := file.read(min(size, left))):
                left -= len(data)
                yield data


class CannotWrite(OSError):
    """The device does not take the file `to`."""

    def __init__(self, to: str, reason: str) -> None:
        super().__init__(reason)
        self.to = to


class Sender:
    """What was learned about a connection, and how much went over it.

    ask: runs a shell script on the device. patience: seconds for what is on the way to arrive.
    sent_bytes: of contents of files, as sent.
    """

    def __init__(
        self, transport: paramiko.Transport, ask: Callable[..., str], patience: float
    ) -> None:
        self.sent_bytes = 0
        self._transport = transport
        self._ask = ask
        self._patience = patience
        self._has_sftp = True  # until it turns out not to be so
        self._packs: bool | None = None  # not tried yet

    def send(self, files: Mapping[str, Path], resume: bool, touch: Touch) -> None:
        """Copy to absolute names in folders that exist; `CannotWrite` if the device refuses.

        resume: what is there of a file is taken for its beginning.
        """
        sizes = {to: path.stat().st_size for to, path in files.items()}
        there = self._there(sizes) if resume else {}
        with ExitStack() as stack:
            sftp = self._sftp(stack)
            for to in sorted(files, key=lambda name: -sizes[name]):  # what can be tried comes first
                start = there.get(to, 0)
                if start < sizes[to]:
                    start -= start % _BLOCK
                self._send(sftp, Piece(to, files[to], start, sizes[to], not resume), touch)

    def _there(self, sizes: Mapping[str, int]) -> dict[str, int]:
        argv = [word for to, size in sizes.items() for word in (to, str(size))]
        shown = self._ask(_THERE, *argv, doing="looking for what is there already")
        return dict(zip(sizes, map(int, shown.split()), strict=True))

    def _send(self, sftp: paramiko.SFTPClient | None, piece: Piece, touch: Touch) -> None:
        ratio, speed = _compressed(piece)
        if self._packs is None and ratio <= _RATIO and piece.end - piece.start >= _WORTH_TRYING:
            piece = self._try(sftp, piece, speed, touch)
        if self._packs and ratio <= _RATIO and piece.end - piece.start >= _WORTH_PACKING:
            self._through_command(piece, touch, packed=True)
        else:
            self._plain(sftp, piece, touch)

    def _try(
        self, sftp: paramiko.SFTPClient | None, piece: Piece, speed: float, touch: Touch
    ) -> Piece:
        """Learn which way is faster; what is left of the file."""
        middle = piece.start + _PLAIN_TRIAL
        plain = Piece(piece.to, piece.path, piece.start, middle, piece.fresh)
        began = time.monotonic()
        self._plain(sftp, plain, touch)
        plain_rate = _PLAIN_TRIAL / (time.monotonic() - began)
        self._packs = False
        if plain_rate < speed and self._ask("command -v gzip || :", doing="looking for gzip"):
            packed = Piece(piece.to, piece.path, middle, middle + _PACKED_TRIAL, fresh=False)
            middle = packed.end
            began = time.monotonic()
            self._through_command(packed, touch, packed=True)
            self._packs = _PACKED_TRIAL / (time.monotonic() - began) > plain_rate
        return Piece(piece.to, piece.path, middle, piece.end, fresh=False)

    def _plain(self, sftp: paramiko.SFTPClient | None, piece: Piece, touch: Touch) -> None:
        if sftp:
            self._by_sftp(sftp, piece, touch)
        else:
            self._through_command(piece, touch)

    def _sftp(self, stack: ExitStack) -> paramiko.SFTPClient | None:
        """A session, or None if the server has no SFTP: told so, or its program is missing."""
        if not self._has_sftp:
            return None
        channel = stack.enter_context(closing(self._transport.open_session()))
        try:
            channel.invoke_subsystem("sftp")
            session = paramiko.SFTPClient(channel)
            stack.callback(_end, channel)
            return session
        except (paramiko.SSHException, paramiko.SFTPError):
            if gone(self._transport):
                raise
            self._has_sftp = False
            return None

    def _by_sftp(self, sftp: paramiko.SFTPClient, piece: Piece, touch: Touch) -> None:
        try:
            if piece.fresh or piece.start < piece.end:
                with sftp.open(piece.to, "wb" if piece.fresh else "r+b") as file:
                    file.seek(at := piece.start)
                    for data in piece.data(_WRITE):
                        at += len(data)
                        # Only a write that is not pipelined waits for the answers to all before it.
                        file.set_pipelined(at < piece.end)
                        file.write(data)
                        self.sent_bytes += len(data)
                        touch()
            sftp.chmod(piece.to, piece.mode)
        except (paramiko.SSHException, EOFError):
            raise
        except OSError as error:
            self._refuse(piece, error)

    def _refuse(self, piece: Piece, error: OSError) -> None:
        if gone(self._transport):
            raise error
        raise CannotWrite(piece.to, str(error)) from error

    def _through_command(self, piece: Piece, touch: Touch, *, packed: bool = False) -> None:
        script = _FRESH * piece.fresh + (_PACKED if packed else _PLAIN)
        place = str(piece.start // _BLOCK)
        argv = ["sh", "-c", script, "slipway", piece.to, place, f"{piece.mode:o}"]
        with closing(self._transport.open_session()) as channel:
            channel.exec_command(shlex.join(argv))
            said = Streams(
                channel.recv, channel.recv_stderr, channel.close, lost=paramiko.SSHException
            )
            try:
                for data in _packed(piece.data()) if packed else piece.data():
                    self._push(channel, data, touch)
                channel.shutdown_write()
            except OSError:
                if not channel.status_event.wait(1):  # else it has ended and says why
                    raise
            end = time.monotonic() + self._patience
            if not (said.wait(end) and channel.status_event.wait(1)):
                raise TimeoutError
            status = channel.recv_exit_status()
        if status < 0 and gone(self._transport):
            raise EOFError
        if status:
            lines = said.stderr.decode(errors="replace").splitlines()
            reasons = [line for line in lines if ": " in line] or [f"status {status}"]
            raise CannotWrite(piece.to, reasons[0])

    def _push(self, channel: paramiko.Channel, data: bytes, touch: Touch) -> None:
        view = memoryview(data)
        while view:
            sent = channel.send(bytes(view[:_BLOCK]))  # which sends as much as fits into a packet
            if not sent:
                raise OSError("the command there has ended")
            self.sent_bytes += sent
            view = view[sent:]
            touch()


def _end(channel: paramiko.Channel) -> None:
    """Wait for the end of the program behind a channel.

    Dropbear would take it for the end of the one behind the next channel that is opened.
    """
    with suppress(OSError):
        channel.shutdown_write()
        channel.status_event.wait(_END_SECONDS)


def _compressed(piece: Piece) -> tuple[float, float]:
    """How small a sample of what is to be sent gets, as a share, and at how many bytes a second."""
    size = piece.end - piece.start
    if size < _WORTH_PACKING:
        return 1.0, 0.0
    sample = b""
    with piece.path.open("rb") as file:
        for place in (0, (size - _SAMPLE) // 2, size - _SAMPLE):
            file.seek(piece.start + place)
            sample += file.read(_SAMPLE)
    began = time.monotonic()
    small = len(zlib.compress(sample, _LEVEL))
    return small / len(sample), len(sample) / (time.monotonic() - began)


def _packed(plain: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL, wbits=31)  # with gzip's header
    for data in plain:
        yield packer.compress(data)
    yield packer.flush()
