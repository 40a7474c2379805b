"""All variants as a Markdown table: what each scheme costs, and what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tabulate import tabulate

from toolchain.atomic import read_json, write_bytes
from toolchain.steps.main import say, step

HEADERS = (
    "recipe", "variant", "scheme", "backend", "program", "of float", "metric", "value", "drop",
    "SQNR", "samples", "instructions", "of float", "p50", "of float", "verdict",
)  # fmt: skip
SAME = ("recipe", "backend", "target", "device")
WORDS = ("recipe", "variant", "scheme", "backend", "metric", "verdict")
NONE = "-"


def run(*, verdict: list[Path], out: Path) -> None:
    """Write the table of all programs that the verdict files are of."""
    rows = [read_json(path) for path in verdict]
    write_bytes(out, (markdown(rows) + "\n").encode())
    say(f"the table of {len(rows)} programs: {out}")


def markdown(rows: list[dict[str, Any]]) -> str:
    """Metric, drop and SQNR are those of the lowered program on the host, over all samples.

    Columns that tell nothing are left out.
    """
    floats = {_key(row): row for row in rows if row["scheme"] == "float"}
    lines = [_line(row, floats.get(_key(row))) for row in rows]
    told = [k for k in range(len(HEADERS)) if any(line[k] != NONE for line in lines)]
    if len({row["backend"] for row in rows}) == 1:
        told.remove(HEADERS.index("backend"))
    return tabulate(
        [[line[k] for k in told] for line in lines],
        headers=[HEADERS[k] for k in told],
        tablefmt="github",
        disable_numparse=True,
        colalign=["left" if HEADERS[k] in WORDS else "right" for k in told],
    )


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in SAME)


def _line(row: dict[str, Any], floating: dict[str, Any] | None) -> list[str]:
    host = row["host"] or dict.fromkeys(("accuracy", "drop", "sqnr_db", "samples"))
    return [
        row["recipe"],
        row["variant"],
        row["scheme"],
        row["backend"],
        f"{row['model_bytes'] / 1e6:.2f} MB",
        _ratio(row, floating, "model_bytes"),
        row["metric"].partition(":")[2] or row["metric"],
        _shown(host["accuracy"], "{:.4f}"),
        _shown(host["drop"], "{:+.4f}"),
        _shown(host["sqnr_db"], "{:.1f} dB"),
        _shown(host["samples"], "{}"),
        _shown(row["instructions_per_inference"], "{:,}"),
        _ratio(row, floating, "instructions_per_inference"),
        _shown(_p50(row), "{:.3f} ms"),
        f"{_p50(row) / _p50(floating):.1%}" if floating and _p50(row) and _p50(floating) else NONE,
        row["verdict"],
    ]


def _p50(row: dict[str, Any]) -> Any:
    return row["latency_ms"] and row["latency_ms"]["p50"]


def _ratio(row: dict[str, Any], floating: dict[str, Any] | None, key: str) -> str:
    if floating is None or not row[key] or not floating[key]:
        return NONE
    return f"{row[key] / floating[key]:.1%}"


def _shown(value: Any, form: str) -> str:
    return NONE if value is None else form.format(value)


if __name__ == "__main__":
    step(run)
