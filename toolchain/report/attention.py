"""What a person has to look at first, and the verdict over all in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolchain.report.material import SIGNS, Material, Program

ENDED = ("", "done", "ended", "finished", "complete")
# The order in which things are looked at; what is not a verdict of a program has its place too.
ORDER = ("fail", "regression", "infra-error", "quarantined", "missing", "inconclusive")


@dataclass(frozen=True)
class Item:
    """One thing to look at. whom: the programs or units that it is true of, at least one."""

    kind: str
    text: str
    whom: Sequence[Program | str]


def items(material: Material) -> list[Item]:
    """Each reason once, with all that it is true of, in `ORDER`."""
    found: dict[tuple[str, str], list[Program | str]] = {}
    for program in material.programs:
        if program.verdict != "pass":
            for reason in program.reasons or ["no reason is given"]:
                found.setdefault((program.verdict, reason), []).append(program)
    for unit, reason in material.quarantined.items():
        found.setdefault(("quarantined", reason), []).append(unit)
    for key in material.missing:
        text = "measured in the run before, not in this one"
        found.setdefault(("missing", text), []).append(key)
    listed = [Item(kind, text, whom) for (kind, text), whom in found.items()]
    return sorted(listed, key=lambda item: ORDER.index(item.kind))


def counts(material: Material) -> dict[str, int]:
    """How many programs have each verdict, the worst first; those that none has are left out."""
    verdicts = [program.verdict for program in material.programs]
    return {verdict: verdicts.count(verdict) for verdict in SIGNS if verdict in verdicts}


def overall(material: Material) -> str:
    """The worst verdict of all; a run that measured nothing is an infra-error."""
    return next(iter(counts(material)), "infra-error")


def sentence(material: Material) -> str:
    """The verdict in one sentence."""
    total, count = len(material.programs), counts(material)
    if not total:
        told = "Nothing was measured in this run"
    elif set(count) == {"pass"}:
        told = "The one program passes" if total == 1 else f"All {total} programs pass"
    else:
        *most, last = [_PHRASES[kind].format(number) for kind, number in count.items()]
        told = f"Of {total} programs {', '.join(most)}{' and ' if most else ''}{last}"
    if material.missing:
        told += f"; missing since the run before: {len(material.missing)}"
    if material.state not in ENDED:
        told += f"; the run has not ended (its state: {material.state})"
    return f"{told}."


_PHRASES = {
    "fail": "{} failed",
    "regression": "{} got worse than before",
    "infra-error": "{} gave no result",
    "inconclusive": "{} could not be decided",
    "pass": "{} passed",
}
