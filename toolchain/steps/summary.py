"""Gather the verdicts of one build into summary.json and a table; exit with the worst verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from toolchain import choice
from toolchain.atomic import read_json, write_json
from toolchain.errors import CheckFailed, InfraError
from toolchain.steps.main import step

EXIT = {
    "pass": 0,
    "infra-error": InfraError.exit_status,
    "inconclusive": CheckFailed.exit_status,
    "fail": CheckFailed.exit_status,
}
KEY = ("recipe", "variant", "backend", "target", "device")


def run(*, verdict: list[Path], comparison: list[Path], left_out: Path, out: Path) -> None:
    """Write the summary of all verdict files to `out` and show it.

    comparison: of the races. left_out: what was not built, and why, a line each.
    """
    rows = [read_json(path) for path in verdict]
    for row in rows:
        row["findings"] = findings(row, rows)
    races = [read_json(path) for path in comparison]
    choice.choose(rows, races)
    write_json(out, rows)
    notes = [f"Left out: {reason}" for reason in left_out.read_text().splitlines()]
    notes += [f"{race['device']}: {note}" for race in races for note in race["notes"]]
    print(page(rows, out, notes), flush=True)
    worst = sorted({row["verdict"] for row in rows}, key=list(EXIT).index)[-1]
    raise SystemExit(EXIT[worst])


def findings(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """What a person should know though no check failed."""
    found = []
    if left := row["load"]["undelegated"]:
        found.append(f"not delegated to {row['backend']}: {_counted(left)}")
    if left := row["load"]["not_quantized"]:
        found.append(f"not quantized: {_counted(left)}")
    found += row["load"]["remarks"]
    if row["accuracy"] is None:
        return found
    if row["samples"] < row["samples_available"]:
        host = row["host"]
        found.append(
            f"measured on {row['samples']} of {row['samples_available']} samples; the same program "
            f"on the host, over all: {host['accuracy']:.4f} (drop {host['drop']:+.4f})"
        )
    if row["metric"] == "agreement":
        found.append("accuracy is agreement with the float model, not with labels")
    if row["instructions_unavailable"] and not row["latency_ms"]:
        found.append(f"no instruction count: {row['instructions_unavailable']}")
    same = [r for r in rows if all(r[k] == row[k] for k in KEY if k != "variant")]
    floats = [r for r in same if r["scheme"] == "float" and r["accuracy"] is not None]
    if floats and row["scheme"] != "float":
        found += [f"not cheaper than float in {what}" for what in _dearer(row, floats[0])]
    return found


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} x{count}" for name, count in sorted(counts.items()))


def _dearer(row: dict[str, Any], floating: dict[str, Any]) -> list[str]:
    """Space in which a quantized variant does not gain on the float one.

    Instructions do not rank the two; times are for the race to compare.
    """
    pairs = {
        "size": (row["model_bytes"], floating["model_bytes"]),
        "memory": (row["peak_rss_bytes"], floating["peak_rss_bytes"]),
    }
    return [name for name, (ours, theirs) in pairs.items() if ours >= theirs]


def page(rows: list[dict[str, Any]], out: Path, notes: Sequence[str] = ()) -> str:
    """The table and what has to be said below it."""
    lines = ["", table(rows), ""]
    several = len({row["backend"] for row in rows}) > 1
    named = ("recipe", "variant", *(("backend",) if several else ()), "device")
    said: dict[str, list[str]] = {}
    for row in rows:
        who = " ".join(row[key] for key in named)
        for text in [f"{row['verdict']}: {reason}" for reason in row["reasons"]] + row["findings"]:
            said.setdefault(text, []).append(who)
    for text, whom in said.items():  # what disturbs a race is the same for all that take part
        more = f" (and {len(whom) - 1} more)" if len(whom) > 1 else ""
        lines.append(f"  {whom[0]}{more}: {text}")
    if any(row["latency_ms"] is None and row["accuracy"] is not None for row in rows):
        lines += [
            "  Emulated boards give user-space instructions: exact, on any host. To be compared",
            "  like with like; they do not rank float against int8, and are not latency.",
        ]
    unlimited = sorted({text.partition(":")[0] for row in rows for text in row["unchecked"]})
    if unlimited:
        lines.append(f"  Measured without a limit in some recipe: {', '.join(unlimited)}.")
    if any(row["chosen"] for row in rows):
        lines.append(
            "  *: the fastest backend of the variant that passes, over interleaved rounds."
        )
    lines += [f"  {note}" for note in dict.fromkeys(notes)]
    return "\n".join([*lines, f"  All figures: {out}", ""])


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each row; columns that tell nothing are left out."""
    cells = [_line(row) for row in rows]
    filled = [name for name in cells[0] if any(line[name] != NOTHING for line in cells)]
    if len({line["backend"] for line in cells}) == 1:
        filled.remove("backend")
    return tabulate(
        [[line[name] for name in filled] for line in cells],
        headers=filled,
        tablefmt="presto",
        disable_numparse=True,
        colalign=["left" if name in WORDS else "right" for name in filled],
    )


NOTHING = "-"
WORDS = ("recipe", "variant", "backend", "device", "verdict", "metric")


def _line(row: dict[str, Any]) -> dict[str, str]:
    line = {key: str(row[key]) for key in WORDS}
    line["metric"] = line["metric"].partition(":")[2] or line["metric"]
    if row["accuracy"] is None:
        return line | dict.fromkeys(_FIGURES, NOTHING)
    return line | {name: show(row) for name, show in _FIGURES.items()}


def _megabytes(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: f"{row[key] / 1e6:.2f} MB"


def _parity(row: dict[str, Any]) -> str:
    parity = row["parity"]
    if parity["exact"]:
        return "exact"
    return "not finite" if parity["sqnr_db"] is None else f"{parity['sqnr_db']:.0f} dB"


def _sqnr(row: dict[str, Any]) -> str:
    return NOTHING if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f} dB"


def _instructions(row: dict[str, Any]) -> str:
    count = row["instructions_per_inference"]
    return NOTHING if count is None else f"{count / 1e6:.3f} M"


def _latency(rank: str) -> Callable[[dict[str, Any]], str]:
    def cell(row: dict[str, Any]) -> str:
        latency = row["latency_ms"]
        return NOTHING if latency is None else f"{latency[rank]:.3f} ms"

    return cell


def _runtime(row: dict[str, Any]) -> str:
    """Libraries that a device gets once, beside its bundles."""
    return f"{row['runtime']['bytes'] / 1e6:.1f} MB" if row["runtime"]["apart"] else NOTHING


def _against_float(row: dict[str, Any]) -> str:
    against = row["against_float"]
    return NOTHING if against is None else f"{against['ratio']:.2f}x"


_FIGURES: dict[str, Callable[[dict[str, Any]], str]] = {
    "value": lambda row: f"{row['accuracy']:.4f}",
    "drop": lambda row: f"{row['drop']:+.4f}",
    "SQNR": _sqnr,
    "samples": lambda row: str(row["samples"]),
    "parity": _parity,
    "instr/inf": _instructions,
    "p50": _latency("p50"),
    "p99": _latency("p99"),
    "vs float": _against_float,
    "chosen": lambda row: "*" if row["chosen"] else NOTHING,
    "model": _megabytes("model_bytes"),
    "bundle": _megabytes("bundle_bytes"),
    "runtime": _runtime,
    "RSS": _megabytes("peak_rss_bytes"),
}


if __name__ == "__main__":
    step(run)
