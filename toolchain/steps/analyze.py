"""Where the error of a quantized program comes from: layer by layer, on real samples.

quantize.json ─┬─ layers          of each: scale, zero point, SQNR and MSE of weights and output
               ├─ quantized       operators that compute on integers, or with integer weights
               ├─ not_quantized   operators that stayed in float, and why
               ├─ output          SQNR and cosine of the lowered program on the host
               └─ metric          of the same, with the drop against the float model
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolchain import backends, layer_errors, metrics, programs, pt2e, reach, schemes, stats
from toolchain.atomic import read_json, write_json
from toolchain.samples import load
from toolchain.schema import Variant, decode_json
from toolchain.selection import Selection
from toolchain.simulation import Simulation
from toolchain.steps.main import step

SCHEMA = 2
SAMPLES = 16  # that layers are compared on: the figures move little after a few


def run(
    *,
    variant: Path,
    model: Path,
    quantized: Path,
    notes: Path,
    data: Path,
    reference: Path,
    host: Path,
    backend: str,
    metric: str,
    folder: Path,
    out: Path,
) -> None:
    """Compare `quantized` with the float `model` on samples of `data`, and write what was found.

    reference, host: outputs of the float model and of the lowered program over all of `data`.
    """
    programs.prepare_torch()
    wanted = decode_json(Variant, variant)
    scheme, lowering = schemes.load(wanted.scheme), backends.load(backend)
    options = scheme.Options.model_validate_json(json.dumps(wanted.options))
    selection = options if isinstance(options, Selection) else Selection()
    program = programs.from_file(quantized)
    rounds = scheme.NEEDS not in schemes.FLOATS
    able = lowering.quantizable(scheme.NEEDS) if rounds else frozenset()
    done, left = reach.reached(program, able, selection)
    samples = programs.samples(data)[:SAMPLES]
    layers: list[dict[str, Any]] = []
    if rounds:
        folded = pt2e.folded(lowering.prepare(programs.from_file(model)))
        layers = layer_errors.compared(Simulation(program, folded), samples)
    exact, got = load(reference), load(host)
    count = len(exact["output.0"])
    found = {
        "schema": SCHEMA,
        "scheme": wanted.scheme,
        "options": options.model_dump(mode="json"),
        "notes": read_json(notes),
        "quantized": done,
        "not_quantized": left,
        "layers": layers,
        "layers_compared_on": len(samples) if rounds else 0,
        "metric": metric,
        "host": stats.quality(
            stats.first(got, count),
            stats.first(exact, count),
            load(data).get("label"),
            metrics.find(metric, folder),
        ),
    }
    write_json(out, found)


if __name__ == "__main__":
    step(run)
