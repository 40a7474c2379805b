"""Figures of a row as a person reads them. What a row has not is `NOTHING`, and never a zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolchain.choice import interval

Row = Mapping[str, Any]
NOTHING = "-"


def get(row: Row, path: str) -> Any:
    """`latency_ms.p50` of a row; None where any part of the way is missing."""
    value: Any = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def metric_name(row: Row) -> str:
    """`top1`; of a metric of the recipe's own, `data.py:neighbors`, its last part."""
    name = str(get(row, "metric") or "metric")
    return name.rpartition(":")[2]


def megabytes(value: float) -> str:
    return f"{value / 1e6:.2f} MB"


def milliseconds(value: float) -> str:
    """Of small models in µs: `0.005 ms` says little."""
    return f"{value:.3f} ms" if value >= 0.1 else f"{value * 1e3:.2f} µs"


def millions(value: float) -> str:
    return f"{value / 1e6:.3f} M"


def _parity(value: Mapping[str, Any]) -> str:
    if value.get("exact"):
        return "exact"
    return "not finite" if value.get("sqnr_db") is None else f"{value['sqnr_db']:.0f} dB"


def _runtime(value: Mapping[str, Any]) -> str:
    """Libraries that a device gets once, beside its bundles."""
    return megabytes(value["bytes"]) if value.get("apart") else NOTHING


# Heading, what of a row it is, and how that is written. The page explains the headings.
COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("value", "accuracy", lambda v: f"{v:.4f}"),
    ("drop", "drop", lambda v: f"{v:+.4f}"),
    ("SQNR", "sqnr_db", lambda v: f"{v:.1f} dB"),
    ("samples", "samples", str),
    ("parity", "parity", _parity),
    ("p50", "latency_ms.p50", milliseconds),
    ("p90", "latency_ms.p90", milliseconds),
    ("p99", "latency_ms.p99", milliseconds),
    ("times taken", "latency_ms.count", lambda v: f"{v:,}"),
    ("against float", "against_float", interval),
    ("instructions", "instructions_per_inference", millions),
    ("program", "model_bytes", megabytes),
    ("bundle", "bundle_bytes", megabytes),
    ("runtime", "runtime", _runtime),
    ("memory", "peak_rss_bytes", megabytes),
    ("loading", "load_ms", lambda v: f"{v:.1f} ms"),
)


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line of cells for each row; columns that tell nothing are left out."""
    lines = [[_cell(row, path, show) for _, path, show in COLUMNS] for row in rows]
    told = [k for k in range(len(COLUMNS)) if any(line[k] != NOTHING for line in lines)]
    return [COLUMNS[k][0] for k in told], [[line[k] for k in told] for line in lines]


def _cell(row: Row, path: str, show: Callable[[Any], str]) -> str:
    value = get(row, path)
    return NOTHING if value is None else show(value)
