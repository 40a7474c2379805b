"""Pure functions from what a device measured to the figures that are judged and shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from toolchain.metrics import min_cosine, sqnr_db

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]
Metric = Callable[[list[Array], Array | None, list[Array]], float]


def first(tensors: Tensors, count: int, prefix: str = "output.") -> list[Array]:
    """The first `count` samples of `output.0`, `output.1`, …, in order."""
    names = sorted((n for n in tensors if n.startswith(prefix)), key=lambda n: int(n.split(".")[1]))
    return [tensors[name][:count] for name in names]


def parity(host: Sequence[Array], device: Sequence[Array]) -> dict[str, Any]:
    """How far the device's outputs are from the host's, both of one program on the same samples.

    exact: every bit is equal. sqnr_db: signal to noise in dB over all outputs, None when exact.
    max_abs: largest absolute difference. Both are None too where outputs are NaN or infinite.
    """
    flat_host, flat_device = (
        np.concatenate([output.astype(np.float64).ravel() for output in outputs])
        for outputs in (host, device)
    )
    if not (np.isfinite(flat_device).all() and np.isfinite(flat_host).all()):
        return {"exact": False, "sqnr_db": None, "max_abs": None}
    if all(a.tobytes() == b.tobytes() for a, b in zip(host, device, strict=True)):
        return {"exact": True, "sqnr_db": None, "max_abs": 0.0}
    ratio = sqnr_db(flat_host, flat_device)
    return {
        "exact": False,
        "sqnr_db": ratio if np.isfinite(ratio) else None,  # the host's outputs are all zero
        "max_abs": float(np.abs(flat_host - flat_device).max()),
    }


def instructions(counts: Sequence[int] | None) -> int | None:
    """User-space instructions of one inference: the median over the iterations."""
    return None if not counts else int(np.median(counts))


def against_float(reference: Sequence[Array], actual: Sequence[Array]) -> dict[str, Any]:
    """Error of the outputs against the float model's: of several outputs, that of the worst.

    equal: no number differs. sqnr_db: signal to quantization noise of an output; None where all are
    equal, and where it is not finite. min_cosine: the least of all samples; None if not finite.
    """
    pairs = list(zip(reference, actual, strict=True))
    real = [(a, b) for a, b in pairs if a.dtype.kind == "f"]
    noise = min((sqnr_db(a, b) for a, b in real), key=_worst_first, default=math.inf)
    cosine = min((min_cosine(a, b) for a, b in real), key=_worst_first, default=math.inf)
    return {
        "sqnr_db": noise if math.isfinite(noise) else None,
        "min_cosine": cosine if math.isfinite(cosine) else None,
        "equal": all(np.array_equal(a, b) for a, b in pairs),
    }


def _worst_first(figure: float) -> float:
    """Sort key: NaN is worse than any figure."""
    return -math.inf if math.isnan(figure) else figure


def quality(
    outputs: Sequence[Array], reference: Sequence[Array], labels: Array | None, metric: Metric
) -> dict[str, Any]:
    """The metric of `outputs`, its drop against the float model's, and `against_float`."""
    ours, floats = list(outputs), list(reference)
    accuracy, floating = metric(ours, labels, floats), metric(floats, labels, floats)
    return {
        "accuracy": accuracy,
        "accuracy_float": floating,
        "drop": floating - accuracy,
        **against_float(reference, outputs),
        "samples": len(reference[0]),
    }


def latency(wall_ns: Sequence[int]) -> dict[str, float]:
    """p50, p90 and p99 in ms (nearest rank: each is a sample that was taken), and `count`."""
    ranks = np.percentile(np.asarray(wall_ns) / 1e6, [50, 90, 99], method="inverted_cdf")
    p50, p90, p99 = (float(value) for value in ranks)
    return {"p50": p50, "p90": p90, "p99": p99, "count": len(wall_ns)}


# What `figures` gives; all None where a device gave no measurement.
FIGURES = (
    "samples", "samples_available", "accuracy", "accuracy_float", "drop", "sqnr_db",
    "min_cosine", "equal", "host", "parity",
    "instructions_per_inference", "instructions_unavailable", "latency_ms", "latency_moved",
    "load_ms", "threads", "peak_rss_bytes",
)  # fmt: skip


def sizes(by_part: Mapping[str, int]) -> dict[str, Any]:
    """Sizes in bytes, known without a device: the program, the bundle as shipped, and its parts."""
    parts = {name: size for name, size in by_part.items() if name not in ("bundle", "total")}
    return {
        "model_bytes": by_part["program"],
        "bundle_bytes": by_part["bundle"],
        "bundle_parts": parts,
    }


def figures(
    samples: Mapping[str, Any],
    outputs: Tensors,
    *,
    reference: Tensors,
    host: Tensors,
    label: Array | None,
    metric: Metric,
    wall_ns: Sequence[int] | None = None,
    moved: Sequence[str] = (),
) -> dict[str, Any]:
    """All figures that one measurement gives (`FIGURES`).

    samples: what the measure step wrote. outputs, reference, host: `output.k` of shape [N, ...]
    from the device, the float model and the same program on this host; of the device only the first
    samples, those that it ran. `host` is the quality over all. label: [N, ...] or None.
    wall_ns, moved: of a race on real hardware, its times and why they are not to be trusted.
    """
    count = samples["samples"]
    runner, on_board = samples["runner"], samples["device"]["emulated"]
    available = samples["samples_available"]
    device, floating = first(outputs, count), first(reference, count)
    iterations = runner["iterations"]
    return {
        **quality(device, floating, None if label is None else label[:count], metric),
        "samples_available": available,
        "host": quality(first(host, available), first(reference, available), label, metric),
        "parity": parity(first(host, count), device),
        "instructions_per_inference": instructions(iterations["instructions"]),
        "instructions_unavailable": runner.get("instructions_unavailable"),
        # An emulated clock counts instructions, not time: it is never shown as latency.
        "latency_ms": None if on_board or not wall_ns else latency(wall_ns),
        "latency_moved": list(moved),
        "load_ms": None if on_board else runner["load_ns"] / 1e6,
        "threads": runner["threads"],
        "peak_rss_bytes": runner["peak_rss_bytes"],
    }
