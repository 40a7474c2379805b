"""The result of a race as a Markdown table: the fastest first, with what each figure is against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from toolchain import racing, stats

HEADERS = (
    "contender", "p50", "p99", "of the best peer", "SQNR", "least cosine", "drop", "model",
    "peak RSS",
)  # fmt: skip
NONE = "-"
Row = dict[str, Any]


def rows(record: Mapping[str, Any], entrants: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Figures of all that finished, the fastest first. Times are those of the rounds that count.

    record: of `rounds.race`. entrants: by name `ours`, `bytes`, `accuracy`, `below`.
    """
    finished = [name for name in entrants if name not in record["failed"]]
    found = [_row(name, record, entrants[name]) for name in finished]
    found.sort(key=lambda row: row["latency_ms"]["p50"])
    best = best_peer(found)
    for row in found:
        row["against_best_peer"] = racing.ratio(record, row["name"], best) if best else None
    return found


def best_peer(found: Sequence[Row]) -> str | None:
    """The fastest of those of the peers that hold the recipe's accuracy."""
    return next((row["name"] for row in found if not row["ours"] and not row["below"]), None)


def _row(name: str, record: Mapping[str, Any], entrant: Mapping[str, Any]) -> Row:
    return {
        "name": name,
        "ours": entrant["ours"],
        "latency_ms": stats.latency(racing.wall_ns(record, name)),
        "bytes": entrant["bytes"],
        "peak_rss_bytes": max(
            one["runs"][name]["peak_rss_bytes"] for one in racing.counted(record)
        ),
        "accuracy": entrant["accuracy"],
        "below": entrant["below"],
    }


def markdown(result: Mapping[str, Any]) -> str:
    """A heading, the table, and all that a reader has to know of it."""
    found = result["rows"]
    best = best_peer(found)
    table = tabulate(
        [_line(row, best) for row in found],
        headers=HEADERS,
        tablefmt="github",
        disable_numparse=True,
        colalign=["left", *["right"] * (len(HEADERS) - 1)],
    )
    return "\n".join([f"### {result['recipe']}", "", table, "", *_notes(result), ""])


def _line(row: Row, best: str | None) -> list[str]:
    accuracy = row["accuracy"]
    name = f"**{row['name']}**" if row["ours"] else row["name"]
    return [
        f"{name} (too inexact)" if row["below"] else name,
        f"{row['latency_ms']['p50']:.3f} ms",
        f"{row['latency_ms']['p99']:.3f} ms",
        "1" if row["name"] == best else _ratio(row["against_best_peer"]),
        _shown(accuracy["sqnr_db"], "{:.1f} dB"),
        _shown(accuracy["min_cosine"], "{:.4f}"),
        f"{accuracy['drop']:+.4f}",
        f"{row['bytes'] / 1e6:.2f} MB",
        f"{row['peak_rss_bytes'] / 1e6:.0f} MB",
    ]


def _ratio(ratio: Mapping[str, Any] | None) -> str:
    """`0.92 (0.90 to 0.94)`: below 1 is faster than the best peer."""
    if ratio is None:
        return NONE
    if ratio["low"] is None:
        return f"{ratio['ratio']:.2f}"
    return f"{ratio['ratio']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _notes(result: Mapping[str, Any]) -> list[str]:
    race, taken = result["race"], result["taken"]
    counted, moved = len(racing.counted(race)), racing.moved(race)
    before, after = race["facts"]["before"]["load_1m"], race["facts"]["after"]["load_1m"]
    least = min((row["latency_ms"]["count"] for row in result["rows"]), default=0)
    lines = [
        f"{taken['cpu']}, {taken['threads']} thread(s); {counted} of {len(race['rounds'])} rounds "
        f"are in the figures, {least} inferences each; load of the machine {before:.1f} before, "
        f"{after:.1f} after.",
    ]
    if moved:
        lines.append(f"**Not to be trusted:** {'; '.join(moved)}.")
    lines += [
        f"A call of {name} from Python that computes nothing takes {cost['p50_ms']:.4f} ms, in "
        f"{cost['peak_rss_bytes'] / 1e6:.0f} MB: both are in its figures. Slipway's runner is C++."
        for name, cost in result["overheads"].items()
    ]
    lines += [f"{row['name']} is too inexact: {row['below']}." for row in result["rows"]
              if row["below"]]  # fmt: skip
    if not result["limited"]:
        lines.append(
            "The recipe sets no limit of accuracy: none is out of the running for its answers, so "
            "read SQNR and drop beside the times."
        )
    lines += [f"Absent: {name}: {why}." for name, why in sorted(result["absent"].items())]
    lines += [f"Out: {name}: {why}." for name, why in sorted(race["failed"].items())]
    return [f"- {line}" for line in lines]


def profiles(result: Mapping[str, Any], most: int = 10) -> str:
    """Where the fastest of Slipway's programs and the fastest peer that tells spend their time."""
    parts = []
    for name, operators in result["profiles"].items():
        total = sum(row["ns"] for row in operators)
        lines = [
            [row["type"], row["name"][:60], f"{row['ns'] / 1e3:.1f} us", f"{row['ns'] / total:.1%}"]
            for row in operators[:most]
            if total
        ]
        head = f"#### {name}: {total / 1e6:.3f} ms in {len(operators)} operators"
        parts += [head, "", tabulate(lines, ("type", "name", "time", "share"), "github"), ""]
    return "\n".join(parts)


def _shown(value: Any, form: str) -> str:
    return NONE if value is None else form.format(value)
