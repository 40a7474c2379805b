"""`name=value` words behind a script, and paths that count from where its caller stood."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from toolchain.errors import UserError, nearest

CALLED_FROM = "SLIPWAY_FROM"  # scripts go to the repository; this is where they were called


def pairs(words: Sequence[str], known: Iterable[str], script: str) -> dict[str, str]:
    """The values by name; UserError for the first word that is wrong."""
    return dict(_pair(word, list(known), script) for word in words)


def names(text: str) -> tuple[str, ...]:
    """Names between commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def path(text: str, *, given: bool) -> Path:
    """A path from where the caller stood, if it was given, and not a default."""
    start = os.environ.get(CALLED_FROM, "") if given else ""
    return Path(start) / Path(text).expanduser()


def _pair(word: str, known: list[str], script: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if name not in known or not equals:
        hint = f"{nearest(name, known)}\n  {script} -h shows them all"
        raise UserError(f"unknown option '{word}'", hint=hint)
    if not value.strip(", "):
        raise UserError("has no value", where=f"{name}=")
    return name, value
