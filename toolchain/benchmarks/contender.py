"""Run a peer's model on samples, take its times, and print them as JSON. In `.venv-benchmarks`.

python -m toolchain.benchmarks.contender --peer=openvino --model=model.xml
    --inputs=evaluation.safetensors --outputs=outputs.safetensors --iterations=128

The same order as in Slipway's runner: all samples once, for their outputs; then the first sample,
warmed up, as often as asked for. What is timed is the inference alone: no input goes in, and no
output comes out, within it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolchain.benchmarks import surroundings

PROFILED_RUNS = 10  # the operators of the last are told


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True)
    for name, required in (("model", True), ("inputs", True), ("outputs", False)):
        parser.add_argument(f"--{name}", type=Path, required=required)
    for name, default in (("threads", 1), ("warmup", 0), ("iterations", 0), ("profile", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args(words)
    cpus = surroundings.keep_to_last_cpus(asked.threads)  # before any runtime counts them
    print(json.dumps({"cpus": cpus, "threads": asked.threads, **run(asked)}, allow_nan=False))


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """The report: times in ns, memory in bytes."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from toolchain.benchmarks import peers
    from toolchain.samples import ordered

    peer = peers.load(asked.peer)
    samples = list(zip(*ordered(load_file(asked.inputs), "input."), strict=True))
    start = time.perf_counter_ns()
    session = peer.open(asked.model, asked.threads, bool(asked.profile))
    load_ns = time.perf_counter_ns() - start
    made = []
    for sample in samples:
        session.give(sample)
        session.infer()
        made.append(session.take())
    if asked.outputs:
        columns = [np.stack(column) for column in zip(*made, strict=True)]
        save_file({f"output.{k}": column for k, column in enumerate(columns)}, asked.outputs)
    session.give(samples[0])
    if asked.profile:
        for _ in range(PROFILED_RUNS):
            session.infer()
        return {"operators": session.operators()}
    for _ in range(asked.warmup):
        session.infer()
    guards = surroundings.Guards()
    wall_ns = timed(session, asked.iterations)
    seen = guards.taken()
    return {
        "load_ns": load_ns,
        "peak_rss_bytes": surroundings.peak_rss_bytes(),
        "iterations": {"wall_ns": wall_ns},
        "guards": seen,
    }


def timed(session: Any, iterations: int) -> list[int]:
    """ns of each of so many inferences."""
    infer, clock = session.infer, time.perf_counter_ns  # nothing is looked up between the readings
    times = [0] * iterations
    for k in range(iterations):
        start = clock()
        infer()
        times[k] = clock() - start
    return times


if __name__ == "__main__":
    main(sys.argv[1:])
