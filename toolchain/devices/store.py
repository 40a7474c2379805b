"""Folders that stay on a device: runtimes that are too large to be sent for each measurement.

    <cache>/slipway/runtimes/<digest>/            whole, and never changed
    <cache>/slipway/runtimes/.partial.XXXXXX/     what one client is sending just now

A folder is filled beside its place, verified, and appears there by one rename: a client that is cut
off leaves nothing that counts, and of two clients which send the same the later one finds it there.
The folder's time of change is that of its last use.

<cache> is $XDG_CACHE_HOME or ~/.cache of the user there; if that cannot be written, the folder of
the user in /var/tmp or /tmp. $SLIPWAY_CACHE, where it is set, replaces <cache>/slipway.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from toolchain.errors import InfraError

# What others may have put in a shared folder is not ours: libraries are loaded from there.
_FOLDERS = r"""
umask 077
home=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
own=${SLIPWAY_CACHE:-${home:+$home/slipway}}
user=$(id -u)
ours() { [ -O "$1" ] && { [ "$1" = "$own" ] || [ ! -h "$1" ]; }; }
set -- "${1-}" "$own" "/var/tmp/slipway-$user" "${TMPDIR:-/tmp}/slipway-$user"
digest=$1
shift
"""
_LOOK = rf"""{_FOLDERS}
for folder; do
    cd -- "$folder/runtimes/$digest" 2>/dev/null && ours "$folder" || continue
    printf '@%s\n' "$folder/runtimes/$digest"
    find . ! -type d -exec ls -ln {{}} +
done
exit 0
"""
# A partial folder of yesterday is nobody's any more.
_STAGE = rf"""{_FOLDERS}
for folder; do
    [ -n "$folder" ] && mkdir -p -- "$folder/runtimes" && ours "$folder" || continue
    find "$folder/runtimes" -name '.partial.*' -prune -mmin +1440 -exec rm -rf {{}} + 2>/dev/null
    mktemp -d "$folder/runtimes/.partial.XXXXXX" && exit
done
exit 1
"""
# `mv` of a folder onto one that is there and not empty fails, without a race. What it says does not
# matter: whether the folder is whole is looked at afterwards. The files have to be on the disk
# before the name is, or a power cut could leave the name with files of zeros.
_KEEP = 'sync; mv -f -- "$1/$2" "${1%/*}/" 2>&1 || :'
_REPLACE = 'mv -f -- "${1%/*}/$2" "$1/damaged" 2>&1; mv -f -- "$1/$2" "${1%/*}/" 2>&1 || :'
_LINK = """
touch -c -- "$1" 2>/dev/null  # which others' folders and read-only ones refuse
mkdir -p -- "${2%/*}" && rm -f -- "$2" && ln -s -- "$1" "$2"
"""
_LISTED = re.compile(r"^\S+ +\d+ +\S+ +\S+ +(\d+) .*? \./(.*)$")


class Shell(Protocol):
    """What is needed of a device."""

    def ask(self, script: str, *args: str, doing: str, more: float = 0.0) -> str: ...
    def deliver(self, files: Mapping[str, Path], into: str) -> None: ...


def place(device: Shell, at: str, digest: str, files: Mapping[str, Path]) -> None:
    """Make the absolute name `at` a symbolic link to a folder of `files`, sent if it is not there.

    digest: of the files' names and contents, in hexadecimal digits.
    """
    if not re.fullmatch("[0-9a-f]{16,}", digest):
        raise ValueError(f"{digest!r} is not a digest")
    folder = _whole(device, digest, files) or _send(device, digest, files)
    device.ask(_LINK, folder, at, doing="linking to a folder that stays")


def _whole(device: Shell, digest: str, files: Mapping[str, Path]) -> str | None:
    """The folder `digest` of the device, if names and sizes are right.

    Contents were verified when they came; to hash some hundred megabytes each time takes too long.
    """
    wanted = {name: path.stat().st_size for name, path in files.items()}
    shown = device.ask(_LOOK, digest, doing="looking for a folder that stays")
    found: dict[str, dict[str, int]] = {}
    for line in shown.splitlines():
        if line.startswith("@"):
            found[line[1:]] = {}
        elif listed := _LISTED.match(line):
            found[next(reversed(found))][listed[2]] = int(listed[1])
    return next((folder for folder, there in found.items() if there == wanted), None)


def _send(device: Shell, digest: str, files: Mapping[str, Path]) -> str:
    more = sum(path.stat().st_size for path in files.values()) / 1e6
    stage = device.ask(_STAGE, doing="making a folder that stays").strip()
    try:
        device.deliver({f"{stage}/{digest}/{n}": path for n, path in files.items()}, into=stage)
        for script in (_KEEP, _REPLACE):
            said = device.ask(script, stage, digest, doing="keeping a folder", more=more)
            if folder := _whole(device, digest, files):
                return folder
        raise InfraError(f"the folder {digest} could not be kept: {said.strip()}", where=stage)
    finally:
        with suppress(InfraError):
            device.ask('rm -rf -- "$1"', stage, doing="removing what was sent", more=more)
