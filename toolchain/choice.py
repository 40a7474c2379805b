"""Which backend of a variant is chosen, and what is worth saying of a race.

Only programs that pass are in the running: a fast wrong one wins nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolchain import racing

Row = dict[str, Any]
Comparison = Mapping[str, Any]
UNSTEADY = 1.25  # between medians of rounds that count
OPERATORS = 3  # so many are named where a program is slow
PLACE = ("recipe", "target", "device")  # of one race


def choose(rows: Sequence[Row], comparisons: Iterable[Comparison]) -> None:
    """Set `chosen` and `against_float` of each row, and add to its findings what a race showed.

    chosen: whether it is the fastest of its variant that passes; None where there was no race.
    against_float: ratio of the float program's times to its own, on the same backend, or None.
    Of a race that was disturbed nothing is said: its programs do not pass.
    """
    for row in rows:
        row |= {"chosen": None, "against_float": None}
    for comparison in comparisons:
        here = [row for row in rows if all(row[key] == comparison[key] for key in PLACE)]
        for variant in dict.fromkeys(row["variant"] for row in here):
            _choose_one([row for row in here if row["variant"] == variant], comparison)
        if comparison["moved"]:
            continue
        for row in here:
            row["findings"] += _unsteady(row, comparison)
        for pays in comparison["pays"]:
            for row in here:
                if row["variant"] == pays["variant"] and row["backend"] == pays["backend"]:
                    row["against_float"] = pays
                    row["findings"] += _slower(pays, comparison)


def _choose_one(rows: Sequence[Row], comparison: Comparison) -> None:
    """Of the backends of one variant."""
    passing = [row for row in rows if row["verdict"] == "pass" and row["latency_ms"]]
    best = next((row for row in passing if _beats_all(row, passing, comparison)), None)
    for row in rows:
        row["chosen"] = row is best
    if len(rows) < 2:
        return
    if best is None:
        rows[0]["findings"].append("no backend is chosen: none of them passes")
        return
    others = [_against(best, row, comparison) for row in rows if row is not best]
    best["findings"].append(f"chosen: {best['backend']}; " + "; ".join(others))


def _beats_all(row: Row, others: Sequence[Row], comparison: Comparison) -> bool:
    pairs = [_pair(row, other, comparison) for other in others if other is not row]
    return all(pair["faster"] == row["backend"] for pair in pairs)


def _pair(one: Row, two: Row, comparison: Comparison) -> Mapping[str, Any]:
    """What the race says of two backends of a variant, both of which took part."""
    names = {one["backend"], two["backend"]}
    return next(
        pair
        for pair in comparison["backends"]
        if pair["variant"] == one["variant"] and {pair["faster"], pair["slower"]} == names
    )


def _against(best: Row, row: Row, comparison: Comparison) -> str:
    """The chosen one against another backend: how much faster, and how near the outputs."""
    if row["latency_ms"] is None:
        return f"{row['backend']} gave no times ({row['verdict']})"
    pair = _pair(best, row, comparison)
    if pair["faster"] == row["backend"]:
        return f"{row['backend']} is {interval(pair)} as fast, but: {row['verdict']}"
    told = f"{interval(pair)} as fast as {row['backend']}"
    if pair["low"] is not None and pair["low"] <= 1:
        told += " (no difference that could be told)"
    return f"{told}, outputs {_agreement(pair['parity'])}"


def _unsteady(row: Row, comparison: Comparison) -> list[str]:
    """A program whose rounds differ though nothing disturbed them."""
    program = comparison["programs"].get(racing.key(row["variant"], row["backend"]))
    if program is None or program["spread"] < UNSTEADY:
        return []
    return [f"medians of the rounds differ by up to {program['spread']:.2f}x: compare with care"]


def _agreement(parity: Mapping[str, Any]) -> str:
    if parity["exact"] or parity["max_abs"] == 0:
        return "equal"
    return "not finite" if parity["sqnr_db"] is None else f"at {parity['sqnr_db']:.0f} dB"


def interval(ratio: Mapping[str, Any]) -> str:
    """`1.62x (1.60 to 1.64)`."""
    if ratio["low"] is None:
        return f"{ratio['ratio']:.2f}x"
    return f"{ratio['ratio']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _slower(pays: Mapping[str, Any], comparison: Comparison) -> list[str]:
    """A quantized program that is slower than the float one, with where both spend their time."""
    high = pays["high"] if pays["high"] is not None else pays["ratio"]
    if high >= 1:
        return []
    told = []
    for variant in (pays["variant"], pays["float"]):
        program = comparison["programs"][racing.key(variant, pays["backend"])]
        told.append(f"{variant}: {_operators(program)}")
    return [
        f"quantization does not pay: {interval(pays)} as fast as float; time in " + "; ".join(told)
    ]


def _operators(program: Mapping[str, Any]) -> str:
    listed = [f"{row['type']} {row['share']:.0%}" for row in program["operators"][:OPERATORS]]
    return ", ".join(listed) or "unknown operators"
