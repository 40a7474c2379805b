"""Exact costs: what is the same number at each measurement of the same program.

Sizes are of the product alone. Instructions and peak memory are exact on emulated boards, where the
counter differs by 0.1 ppm at most, and only there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

COUNTER = 1e-6  # by which two counts of the same instructions may differ


@dataclass(frozen=True)
class Cost:
    """on_board: exact on emulated boards alone. noise: relative, of the figure itself."""

    key: str
    name: str
    shown: Callable[[float], str]
    on_board: bool = False
    noise: float = 0.0

    def of(self, row: Mapping[str, Any]) -> float | None:
        """The figure of a row; None if there is none that is exact."""
        if self.on_board and "emulator" not in facts(row):
            return None
        value: float | None = row.get(self.key)
        return value

    def dearer(self, now: float, was: float, allowed: float) -> bool:
        """Whether it grew by more than `allowed`, a part of what it was."""
        return now > was * (1 + max(allowed, self.noise))

    def same(self, now: float, was: float) -> bool:
        return abs(now - was) <= was * self.noise


def facts(row: Mapping[str, Any]) -> Mapping[str, str]:
    """What the device of a row told of itself."""
    return (row.get("provenance") or {}).get("device") or {}


def _bytes(value: float) -> str:
    return f"{value:,.0f} bytes"


SIZES = (
    Cost("model_bytes", "the program", _bytes),
    Cost("bundle_bytes", "the bundle", _bytes),
)
ON_BOARDS = (
    Cost("instructions_per_inference", "instructions", "{:,.0f}".format, True, COUNTER),
    Cost("peak_rss_bytes", "peak memory", _bytes, True),
)
