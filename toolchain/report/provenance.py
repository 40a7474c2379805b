"""What is known of where a figure comes from, and what of it changed between two measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolchain.report.figures import NOTHING, Row, get

DIGEST = 12  # letters of a digest that are shown
MOMENT = "taken_at"
WORDS = {
    "bundle_sha256": "bundle",
    "recipe_sha256": "recipe",
    "evaluation_sha256": "evaluation data",
    "device": "device",
    "tools": "tool",
    "cpu_flags": "CPU features",
    "features": "CPU features",
}
OTHERS = {  # of a row, beside its provenance
    "device": "measured on",
    "threads": "threads",
    "runtime.digest": "runtime libraries",
    "runtime.version": "runtime version",
    "samples": "evaluation samples",
}
SETS = {"CPU features"}  # listed as what came and what went


@dataclass(frozen=True)
class Change:
    """before, now: in full; shown_*: short enough for a table."""

    what: str
    before: str
    now: str
    shown_before: str
    shown_now: str


def facts(row: Row) -> dict[str, str]:
    """All that may explain a figure, by readable names."""
    known = get(row, "provenance") or {}
    found = dict(_flat(known, ""))
    for path, name in OTHERS.items():
        if (value := get(row, path)) is not None:
            found[name] = str(value)
    return found


def _flat(value: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for key in sorted(value):
        if key == MOMENT:
            continue
        name = f"{before}{WORDS.get(key, key)}"
        if isinstance(value[key], Mapping):
            yield from _flat(value[key], f"{name}: ")
        else:
            yield name, str(value[key])


def changes(before: Row, now: Row) -> list[Change]:
    """Facts that differ, in the order of their names; `NOTHING` for one that was not known."""
    was, are = facts(before), facts(now)
    names = [name for name in sorted(was | are) if was.get(name) != are.get(name)]
    return [_change(name, was.get(name, NOTHING), are.get(name, NOTHING)) for name in names]


def _change(name: str, before: str, now: str) -> Change:
    if name.rpartition(": ")[2] in SETS:
        gone, come = set(before.split()) - set(now.split()), set(now.split()) - set(before.split())
        return Change(name, before, now, _listed("lost", gone), _listed("new", come))
    return Change(name, before, now, short(before), short(now))


def _listed(word: str, names: set[str]) -> str:
    return f"{word}: {', '.join(sorted(names))}" if names else NOTHING


def short(value: str) -> str:
    """A digest's first letters; anything else as it is."""
    is_digest = len(value) == 64 and all(letter in "0123456789abcdef" for letter in value)
    return f"{value[:DIGEST]}…" if is_digest else value
