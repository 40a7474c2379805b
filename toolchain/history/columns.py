"""What of a measurement becomes a column, and what is kept whole."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

FIGURES = (
    "recipe", "variant", "scheme", "backend", "target", "device", "accuracy", "accuracy_float",
    "sqnr_db", "min_cosine", "instructions_per_inference", "model_bytes", "bundle_bytes",
    "peak_rss_bytes",
)  # fmt: skip
LATENCY = ("p50", "p90", "p99")


def of(row: Mapping[str, Any], samples: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row of `summary.json`; what it does not tell is None."""
    latency = row.get("latency_ms") or {}
    provenance = row.get("provenance") or {}
    return {
        **{name: row.get(name) for name in FIGURES},
        **{f"latency_{rank}_ms": latency.get(rank) for rank in LATENCY},
        "latency_count": latency.get("count"),
        "accuracy_drop": row.get("drop"),
        "bundle_sha256": provenance.get("bundle_sha256"),
        "evaluation_sha256": provenance.get("evaluation_sha256"),
        "verdict": str(row["verdict"]),
        "reasons": [clean(reason) for reason in row.get("reasons", ())],
        "medians_ns": medians(samples),
        "row": dict(row),
    }


def medians(samples: Mapping[str, Any]) -> list[float]:
    """The median of each round of `samples["wall_ns"]`; a flat list is one round."""
    wall_ns = samples.get("wall_ns") or []
    rounds = wall_ns if isinstance(wall_ns[0] if wall_ns else None, list | tuple) else [wall_ns]
    return [float(np.median(taken)) for taken in rounds if len(taken)]


def packed(samples: Mapping[str, Any]) -> bytes:
    text = json.dumps(samples, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return zlib.compress(text.encode(), 6)


def unpacked(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(data))
    return found


def clean(text: str) -> str:
    """Text that every database takes: what a device said may hold bytes that are no text."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
