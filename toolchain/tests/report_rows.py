"""Rows of a summary, and nights of them, for the tests of the report."""

from __future__ import annotations

import copy
import random
from datetime import date, timedelta
from typing import Any

from toolchain.report.material import Measurement

TOOLS = {"torch": "2.13.0+cpu", "executorch": "1.5.1", "slipway": "0.1.0"}
BOARD = {"cpu": "Cortex-A72", "kernel": "6.1.0-56", "libc": "2.36", "features": "fp asimd crc32"}
FIRST = date(2026, 10, 1)


def row(**changes: Any) -> dict[str, Any]:
    """A program that passes, raced on a server."""
    return {
        "recipe": "digits",
        "variant": "int8",
        "scheme": "int8_static",
        "backend": "xnnpack",
        "target": "x86_64",
        "device": "pi5",
        "verdict": "pass",
        "reasons": [],
        "findings": ["not delegated to xnnpack: aten::embedding.out x1"],
        "unchecked": ["SQNR: no limit in the recipe", "the bundle: no limit in the recipe"],
        "metric": "data.py:top1",
        "accuracy": 0.9930,
        "accuracy_float": 0.9944,
        "drop": 0.0014,
        "sqnr_db": 30.2,
        "min_cosine": 0.999,
        "samples": 718,
        "samples_available": 718,
        "parity": {"exact": True, "max_abs": 0.0, "sqnr_db": None},
        "latency_ms": {"p50": 3.593, "p90": 4.167, "p99": 4.422, "count": 1024},
        "latency_moved": [],
        "against_float": {"ratio": 2.03, "low": 1.93, "high": 2.13, "rounds": 8},
        "chosen": True,
        "instructions_per_inference": None,
        "instructions_unavailable": "no counter",
        "model_bytes": 3742880,
        "bundle_bytes": 8038400,
        "runtime": {"apart": False, "bytes": 5000000, "digest": "d" * 64, "version": "1.5.1"},
        "peak_rss_bytes": 14802944,
        "load_ms": 5.9,
        "threads": 1,
        "provenance": {
            "bundle_sha256": "a" * 64,
            "recipe_sha256": "b" * 64,
            "evaluation_sha256": "c" * 64,
            "device": dict(BOARD),
            "tools": dict(TOOLS),
            "taken_at": "2026-11-21T17:17:29+00:00",
        },
    } | changes


def emulated(**changes: Any) -> dict[str, Any]:
    """The same on an emulated board: instructions, and no times."""
    made = row(
        target="arm64",
        device="qemu:cortex-a72",
        latency_ms=None,
        load_ms=None,
        against_float=None,
        chosen=None,
        instructions_per_inference=115_865_464,
    )
    made["provenance"]["device"]["emulator"] = "QEMU 7.2.22 cortex-a72"
    return made | changes


def broken(of: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A row of an infra-error: nothing was measured, only the program's size is known."""
    figures = (
        "accuracy", "accuracy_float", "drop", "sqnr_db", "min_cosine", "samples",
        "samples_available", "parity", "latency_ms", "latency_moved", "against_float", "chosen",
        "instructions_per_inference", "instructions_unavailable", "peak_rss_bytes", "load_ms",
        "threads",
    )  # fmt: skip
    lost = {"verdict": "infra-error", "reasons": ["connection to pi5 lost"], "findings": []}
    return (of or row()) | dict.fromkeys(figures) | lost | changes


def run_of(night: int) -> str:
    return f"night-{night:02}"


def nights(now: dict[str, Any], count: int, seed: int = 1) -> list[Measurement]:
    """Runs before that of `now`: the same but for the noise of times; one of them is lost."""
    random_one = random.Random(seed)
    found = []
    for night in range(count):
        then = copy.deepcopy(now) | {"verdict": "pass", "reasons": []}
        if then["latency_ms"]:
            noise = random_one.uniform(0.98, 1.02)
            then["latency_ms"] |= {k: then["latency_ms"][k] * noise for k in ("p50", "p90", "p99")}
        if night == count // 2:
            then = broken(then)
        when = (FIRST + timedelta(days=night)).isoformat()
        found.append(Measurement(run_of(night), f"{when}T02:00:00+00:00", "pi5", then))
    return found
