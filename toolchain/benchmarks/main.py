"""`scripts/benchmark`: build, convert, race, and tell. See `options.HELP`."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from toolchain import bootstrap, catalog, devices, errors, metrics, quiet, rounds
from toolchain.atomic import write_bytes, write_json
from toolchain.benchmarks import (
    accuracy,
    conversions,
    environment,
    models,
    options,
    peers,
    products,
    table,
)  # fmt: skip
from toolchain.benchmarks.entrants import Data, Entrant, Ours, Theirs
from toolchain.devices.base import Device
from toolchain.errors import CheckFailed, InfraError, UserError
from toolchain.steps.main import say

SCHEMA = 1
Tensors = Mapping[str, Any]


def main(words: Sequence[str]) -> None:
    with errors.shown():
        if {"-h", "--help"} & set(words):
            print(options.HELP)
            return
        known = catalog.read(bootstrap.ROOT / "recipes", bootstrap.ROOT / "targets")
        asked = options.read(words, known.recipes)
        environment.python()
        target = asked.target or products.own_target(known)
        for recipe in asked.recipe:
            if target not in known.recipes[recipe].recipe.targets:
                raise UserError(f"'{recipe}' is not for {target}", where="recipe=")
        for recipe in asked.recipe:
            _one(known, target, recipe, asked)


def _one(known: catalog.Catalog, target: str, recipe: str, asked: options.Options) -> None:
    """Build, convert, race and report one recipe."""
    out = asked.out / recipe
    own = products.build(known, target, recipe, asked.variant, asked.build)
    converted = _converted(known.recipes[recipe], asked.build / recipe, out)
    with (
        tempfile.TemporaryDirectory() as name,
        devices.connect(devices.resolve(devices.LOCAL)) as device,
        quiet.alone(lambda: say("waiting until nothing else of ours works here")),
    ):
        result = _raced(known.recipes[recipe], own, converted, device, Path(name), asked, out)
    write_json(out / "result.json", result)
    text = table.markdown(result)
    write_bytes(out / "table.md", text.encode())
    print(f"\n{text}")
    if asked.profile:
        print(table.profiles(result))
    say(f"all samples and profiles: {out / 'result.json'}")


def _converted(entry: catalog.Entry, at: Path, out: Path) -> list[conversions.Converted]:
    """The peers' models, of the form of the network that they know best."""
    program = at / "model.pt2"
    if entry.name in models.STANDARD:
        program = out / "standard" / "model.pt2"
        given = at / "calibration.safetensors", at / "reference.safetensors"
        _export(entry.name, entry.folder, at / "evaluation.safetensors", given[1], program)
    material = conversions.Material(program, at / "calibration.safetensors")
    return conversions.all_of(material, out, say)


def _export(model: str, folder: Path, samples: Path, reference: Path, out: Path) -> None:
    """torch stays out of this process: its threads and memory would be beside what is timed."""
    command = [
        sys.executable, "-m", "toolchain.benchmarks.models", f"--model={model}",
        f"--folder={folder}", f"--samples={samples}", f"--reference={reference}", f"--out={out}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=bootstrap.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise InfraError(done.stderr.strip(), where=f"the peers' form of {model}")


def _raced(
    entry: catalog.Entry,
    own: Sequence[products.Product],
    converted: Sequence[conversions.Converted],
    device: Device,
    folder: Path,
    asked: options.Options,
    out: Path,
) -> dict[str, Any]:
    at = asked.build / entry.name
    evaluation = load_file(at / "evaluation.safetensors")
    data = Data.written(evaluation, folder)
    absent = {made.name: made.absent for made in converted if made.absent}
    entrants: list[Entrant] = [Ours(one, data, f"p{k}") for k, one in enumerate(own)]
    entrants += [
        Theirs(made, data, peers.size(made.model)) for made in converted if not made.absent
    ]
    known: dict[str, dict[str, Any]] = {}
    reference = load_file(at / "reference.safetensors")
    metric = metrics.find(entry.recipe.data.metric, entry.folder)
    for one in list(entrants):
        try:
            one.enter(device)
            outputs = one.outputs(device, asked.threads)
            found = accuracy.figures(outputs, reference, evaluation, metric)
        except CheckFailed as error:
            absent[one.name] = str(error)
            entrants.remove(one)
            continue
        below = accuracy.below(found, entry.recipe.checks)
        known[one.name] = {
            "ours": one.ours, "bytes": one.bytes, "accuracy": found, "below": below
        }  # fmt: skip
    count = math.ceil(asked.samples / asked.rounds)
    turns = {
        one.name: partial(one.turn, device, asked.threads, rounds.warmup(count), count)
        for one in entrants
    }
    race = rounds.taken(turns, device, wanted=asked.rounds, say=say)
    rows = table.rows(race, known)
    return {
        "schema": SCHEMA,
        "recipe": entry.name,
        "limited": accuracy.limited(entry.recipe.checks),
        "taken": _provenance(device, asked),
        "race": race,
        "rows": rows,
        "absent": absent,
        "overheads": _overheads(device, folder, out, asked.threads),
        "profiles": _profiles(rows, entrants, device, asked.threads),
    }


def _provenance(device: Device, asked: options.Options) -> dict[str, Any]:
    facts = device.facts()
    packages = {name: peers.load(name).PACKAGES for name in peers.names()}
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": facts["cpu"],
        "device": facts,
        "threads": asked.threads,
        "samples": asked.samples,
        "peers": {name: environment.versions(of) for name, of in packages.items()},
    }


def _overheads(device: Device, folder: Path, out: Path, threads: int) -> dict[str, Any]:
    """What a call that computes nothing costs each peer."""
    import numpy as np
    from safetensors.numpy import save_file

    place = out.parent / models.EMPTY
    samples, reference = folder / "empty.safetensors", folder / "empty_reference.safetensors"
    one = np.zeros((4, 1), np.float32) + np.arange(4, dtype=np.float32)[:, None]
    save_file({"input.0": one}, samples)
    save_file({"output.0": one + 1}, reference)
    if not (place / "model.pt2").is_file():
        _export(models.EMPTY, folder, samples, reference, place / "model.pt2")
        write_bytes(place / "calibration.safetensors", samples.read_bytes())
    (folder / models.EMPTY).mkdir()
    data = Data.written({"input.0": one}, folder / models.EMPTY)
    material = conversions.Material(place / "model.pt2", place / "calibration.safetensors")
    costs = {}
    for made in conversions.all_of(material, place, say, only=["float"]):
        if made.absent:
            continue
        try:
            said = Theirs(made, data, 0).turn(device, threads, 100, 1000)
        except CheckFailed:
            continue
        costs[made.peer] = {
            "p50_ms": float(np.median(said["iterations"]["wall_ns"])) / 1e6,
            "peak_rss_bytes": said["peak_rss_bytes"],
        }
    return costs


def _profiles(
    rows: Sequence[table.Row], entrants: Sequence[Entrant], device: Device, threads: int
) -> dict[str, Any]:
    """Operators of the fastest of ours, and of the fastest peer that tells them."""
    by_name = {one.name: one for one in entrants}
    found: dict[str, Any] = {}
    for ours in (True, False):
        for row in (row for row in rows if row["ours"] is ours and not row["below"]):
            try:
                operators = by_name[row["name"]].operators(device, threads)
            except CheckFailed:
                continue
            if operators:
                found[row["name"]] = operators
                break
    return found


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except json.JSONDecodeError as error:
        errors.show(InfraError(f"a file of the build cannot be read: {error}"))
        raise SystemExit(InfraError.exit_status) from None
