"""Runs, measurements and verdicts as lines of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolchain.history.values import Judged, Row, Run

NOTHING = "-"


def runs(found: Sequence[Run]) -> list[dict[str, str]]:
    return [
        {
            "run": one.id,
            "began (UTC)": f"{one.began:%Y-%m-%d %H:%M}",
            "took": str(one.ended - one.began).partition(".")[0] if one.ended else NOTHING,
            "state": one.state,
            "revision": one.revision[:12] or NOTHING,
            "host": one.host,
            "user": one.user,
            "options": one.options or NOTHING,
        }
        for one in found
    ]


def rows(found: Sequence[Row]) -> list[dict[str, str]]:
    return [
        {
            "run": one.run,
            "key": one.key,
            "unit": one.unit,
            "verdict": one.verdict,
            "gate": one.gate.verdict if one.gate else NOTHING,
            "accuracy": _figure(one, "accuracy", "{:.4f}"),
            "instr/inf": _figure(one, "instructions_per_inference", "{:,}"),
            "p50 ms": _p50(one),
            "program": _figure(one, "model_bytes", "{:,}"),
            "bundle": _figure(one, "bundle_bytes", "{:,}"),
            "RSS": _figure(one, "peak_rss_bytes", "{:,}"),
        }
        for one in found
    ]


def judged(found: Mapping[str, Judged]) -> list[dict[str, str]]:
    return [
        {
            "key": key,
            "gate": one.verdict,
            "baseline": one.baseline_run or NOTHING,
            "first bad": one.first_bad_run or NOTHING,
            "why": "\n".join([*one.reasons, *one.notes]),
        }
        for key, one in found.items()
    ]


def _figure(row: Row, name: str, form: str) -> str:
    value = row.row.get(name)
    return NOTHING if value is None else form.format(value)


def _p50(row: Row) -> str:
    latency = row.row.get("latency_ms")
    return f"{latency['p50']:.3f}" if latency else NOTHING
