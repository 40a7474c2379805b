"""Which layers a quantized program loses its accuracy in: a table, a JSON and a picture.

Samples are worked on in parallel; each that is done is kept beside the output, so that a step that
was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import io
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from toolchain import backends, metrics, pictures, programs, pt2e, sensitivity, simulation
from toolchain.atomic import write_bytes, write_json
from toolchain.errors import InfraError, UserError
from toolchain.parent import end_with
from toolchain.samples import load
from toolchain.steps.main import say, step

SCHEMA = 1
WORST = 5  # layers that are tried in float together
SHOWN = 20  # rows of the table; the JSON and the picture have all
CODE = (simulation, sensitivity, pt2e)  # what a kept sample depends on, besides the inputs


def run(
    *,
    model: Path,
    quantized: Path,
    data: Path,
    backend: str,
    metric: str,
    folder: Path,
    samples: int,
    who: str,
    out: Path,
    picture: Path,
) -> None:
    """Write what each layer of `quantized` does to the outputs, over the first `samples`."""
    programs.prepare_torch()
    exact = pt2e.folded(backends.load(backend).prepare(programs.from_file(model)))
    simulated = simulation.Simulation(programs.from_file(quantized), exact)
    if not simulated.layers:
        raise UserError(f"{who}: no layer has quantized weights", where=str(quantized))
    given = programs.samples(data)[:samples]
    kept = out.with_suffix(".partial") / _digest(model, quantized, data)
    say(f"{who}: {len(simulated.layers)} layers, two ways each, on {len(given)} samples")
    effects = partial(sensitivity.effects, simulated)
    outputs = sensitivity.stacked(_each(effects, given, kept / "each"))
    labels, scored = load(data).get("label"), metrics.find(metric, folder)
    shown = None if labels is None else labels[: len(given)]

    def score(ours: sensitivity.Outputs, floats: sensitivity.Outputs) -> float:
        return scored(ours, shown, floats)

    found = sensitivity.effect_of_each(simulated.layers, outputs, score)
    worst = sensitivity.ranked(found)[:WORST]
    say(f"the {len(worst)} worst layers in float, one after the other")
    less = partial(sensitivity.without_worst, simulated, worst)
    ranking = hashlib.sha256("\n".join(worst).encode()).hexdigest()
    without = sensitivity.stacked(_each(less, given, kept / ranking))
    exact_outputs = outputs[sensitivity.EXACT]
    drop = sensitivity.drop_from(exact_outputs, score)
    found["without_worst"] = [
        {"layers": worst[:count]} | sensitivity.figures(without[str(count)], exact_outputs, drop)
        for count in range(1, len(worst) + 1)
    ]
    drawn = [
        row | {f"{w}_sqnr_db": sensitivity.decibels(row, f"{w}_") for w in ("only", "without")}
        for row in found["layers"]
    ]
    pictures.sensitivity(drawn, picture, title=f"{who}: what each layer costs")
    write_json(out, {"schema": SCHEMA, "metric": metric, "samples": len(given), **found})
    shutil.rmtree(kept.parent)
    print(_page(who, found, out, picture), flush=True)


Effects = Callable[[Any], dict[str, sensitivity.Outputs]]  # of one sample


def _each(effects: Effects, samples: list[Any], kept: Path) -> list[dict[str, Any]]:
    """The effects on each sample, from files of an earlier try where there are any."""
    kept.mkdir(parents=True, exist_ok=True)
    files = [kept / f"{number}.npz" for number in range(len(samples))]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    if len(missing) < len(files):
        say(f"{len(files) - len(missing)} samples were done before")
    _WORK[:] = [(effects, samples[number], files[number]) for number in missing]
    # Forked workers share the program; each has one thread, as the build gives it.
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(os.cpu_count(), fork, end_with, (os.getpid(),))
    try:
        with pool:
            for done, _ in enumerate(pool.map(_one, range(len(_WORK))), 1):
                if done * 4 // len(_WORK) > (done - 1) * 4 // len(_WORK):
                    say(f"{done} of {len(_WORK)} samples")
    except BrokenProcessPool:
        raise InfraError(
            "a worker was killed (out of memory?)", hint="fewer samples: [sensitivity] samples"
        ) from None
    return [_read(file) for file in files]


_WORK: list[tuple[Effects, Any, Path]] = []  # what forked workers find


def _one(number: int) -> None:
    effects, sample, file = _WORK[number]
    arrays = {
        f"{k}|{case}": array
        for case, outputs in effects(sample).items()
        for k, array in enumerate(outputs)
    }
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # its options come by name too
    write_bytes(file, content.getvalue())


def _read(file: Path) -> dict[str, sensitivity.Outputs]:
    found: dict[str, sensitivity.Outputs] = {}
    with np.load(file) as arrays:
        for name in sorted(arrays.files, key=lambda name: int(name.partition("|")[0])):
            found.setdefault(name.partition("|")[2], []).append(arrays[name])
    return found


def _digest(*inputs: Path) -> str:
    """Of all that a kept sample depends on."""
    files = [*inputs, *(Path(str(module.__file__)) for module in CODE)]
    return hashlib.sha256(
        b"".join(hashlib.sha256(f.read_bytes()).digest() for f in files)
    ).hexdigest()


def _page(who: str, found: dict[str, Any], out: Path, picture: Path) -> str:
    worst = sorted(found["layers"], key=lambda row: row["rank"])
    table = tabulate(
        [
            [row["rank"], row["layer"], row["operator"]]
            + [_decibel(row, word) for word in ("only_", "without_")]
            + [f"{row[key]:+.4f}" for key in ("only_drop", "without_drop")]
            for row in worst[:SHOWN]
        ],
        headers=[
            "", "layer", "operator", "only it: SQNR", "all but it", "only it: drop", "all but it"
        ],
        tablefmt="presto",
        disable_numparse=True,
        colalign=("right", "left", "left", "right", "right", "right", "right"),
    )  # fmt: skip
    lines = [f"\n{who}: the layers that cost most when they alone are quantized\n", table, ""]
    if len(worst) > SHOWN:
        lines.append(f"  and {len(worst) - SHOWN} more layers, which cost less.")
    lines += [
        f"  All layers quantized: {_decibel(found)}, drop {found['drop']:+.4f}"
        f" on {found['samples']} samples.",
        *(_bought_back(found, row) for row in found["without_worst"]),
        f"  All figures: {out}; as a picture: {picture}",
        "",
    ]
    return "\n".join(lines)


def _bought_back(found: dict[str, Any], row: dict[str, Any]) -> str:
    """How much of the loss is gone with a few layers in float."""
    count = len(row["layers"])
    text = f"  The {count} worst in float: " if count > 1 else "  The worst one in float: "
    text += f"{_decibel(row)}, drop {row['drop']:+.4f}"
    if found["drop"] > 0:
        text += f" ({(found['drop'] - row['drop']) / found['drop']:.0%} of the drop bought back)"
    return text


def _decibel(row: dict[str, Any], word: str = "") -> str:
    value = sensitivity.decibels(row, word)
    return f"{value:.1f} dB" if math.isfinite(value) else "no loss" if value > 0 else "not finite"


if __name__ == "__main__":
    step(run)
