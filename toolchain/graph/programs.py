"""From a recipe to its programs: the model, its data, and what each variant makes of them."""

from __future__ import annotations

import json
from pathlib import Path

from toolchain import backends, schemes, tools
from toolchain.engine import Engine
from toolchain.graph import search, sources
from toolchain.jobs import Job
from toolchain.layout import Layout


def model_and_data(engine: Engine, job: Job, at: Layout) -> None:
    model, data = job.entry.recipe.model, job.entry.recipe.data
    folder, who = sources.folder(job), job.entry.name
    engine.recipe_folders.add(job.entry.folder)
    model_json = engine.text(at.recipe / "spec/model.json", model.canonical())
    data_json = engine.text(at.recipe / "spec/data.json", data.canonical())
    engine.step(
        "export",
        who,
        {"out": at.recipe / "model.pt2"},
        {"model": model_json},
        {"folder": str(folder)},
        needs=[sources.python_tools(engine), *sources.model_files(engine, job)],
        heavy=True,
    )
    for kind in ("calibration", "evaluation"):
        if function := getattr(data, kind):
            named = [*sources.data_files(job), *sources.packages(engine, job)]
            engine.step(
                "data",
                f"{who} {kind}",
                {"out": at.recipe / f"{kind}.safetensors"},
                {"data": data_json, "model": model_json},
                {"folder": str(folder), "kind": kind},
                needs=[sources.python_tools(engine), *sources.code(folder, function), *named],
            )
    engine.step(
        "reference",
        who,
        {"out": at.recipe / "reference.safetensors"},
        {"model": at.recipe / "model.pt2", "data": at.recipe / "evaluation.safetensors"},
        needs=[sources.python_tools(engine)],
        heavy=True,
    )


def program(engine: Engine, job: Job, at: Layout) -> None:
    """Quantized, lowered, run on this host, and analyzed."""
    backend = backends.load(job.backend)
    who = f"{job.entry.name} {job.variant_name} {job.backend}"
    variant, quantizing = _quantized(engine, job, at, who)
    lowering = {"quantized": at.quantized / "quantized.pt2"}
    running = {
        "program": at.program / f"program{backend.SUFFIX}",
        "data": at.recipe / "evaluation.safetensors",
    }
    needs = _backend(engine, job)
    if backend.PER_TARGET:
        who += f" {job.target_name}"
        target = {"target": engine.text(at.target_spec, job.target.canonical())}
        lowering |= target
        running |= target
    engine.step(
        "lower",
        who,
        {"out": running["program"], "report": at.program / "lower.json"},
        lowering,
        {"backend": job.backend},
        needs=needs,
        heavy=True,
    )
    engine.goal("programs", running["program"])
    engine.step(
        "host",
        who,
        {"out": at.program / "host.safetensors"},
        running,
        {"backend": job.backend},
        needs=needs,
        heavy=True,
    )
    _analysis(engine, job, at, variant, quantizing)


def _quantized(engine: Engine, job: Job, at: Layout, who: str) -> tuple[Path, list[Path]]:
    """The step that quantizes; the variant as it is taken by it, and the code that it runs."""
    scheme = schemes.load(job.variant.scheme)
    variant = job.variant.model_dump(mode="json", include={"scheme", "options"})
    inputs = {
        "model": at.recipe / "model.pt2",
        "variant": engine.text(
            at.variant / "spec/variant.json", json.dumps(variant, sort_keys=True)
        ),
    }
    settings = {"backend": job.backend}
    code = [*_backend(engine, job), Path(str(scheme.__file__))]
    code += sources.modules_of("toolchain/observers")
    uses = scheme.USES
    if "search" in uses:  # what it finds may be any scheme
        recipe = job.entry.recipe
        given = {"calibration": recipe.data.calibration, "training": recipe.training}
        uses = frozenset(name for name, value in given.items() if value)
        code += sources.modules_of("toolchain/schemes")
    if "calibration" in uses:
        inputs["calibration"] = at.recipe / "calibration.safetensors"
    if "training" in uses:
        more, named = _training(engine, job, at)
        inputs |= more
        settings["folder"] = str(sources.folder(job))
        code += named
    if "search" in scheme.USES:
        inputs["variant"] = search.choice(engine, job, at, inputs, code)
    engine.step(
        "quantize",
        who,
        {"out": at.quantized / "quantized.pt2", "notes": at.quantized / "notes.json"},
        inputs,
        settings,
        needs=code,
        heavy=True,
    )
    return inputs["variant"], code


def _backend(engine: Engine, job: Job) -> list[Path]:
    """The code of the job's backend, and the versions of what it works with."""
    backend = backends.load(job.backend)
    package = backend.RUNTIME.package
    version = engine.text(engine.build / f"tools/{package}.json", tools.packages([package]))
    found = [sources.python_tools(engine), version, Path(str(backend.__file__))]
    if backend.TOOLS:
        note = engine.build / f"tools/{job.backend}.json"
        found.append(engine.text(note, tools.programs(backend.TOOLS)))
    return found


def _analysis(engine: Engine, job: Job, at: Layout, variant: Path, needs: list[Path]) -> None:
    """Where the error comes from, layer by layer."""
    who = f"{job.entry.name} {job.variant_name} {job.backend}"
    common = {
        "backend": job.backend,
        "metric": job.entry.recipe.data.metric,
        "folder": str(sources.folder(job)),
    }
    engine.step(
        "analyze",
        who,
        {"out": at.program / "quantize.json"},
        {
            "variant": variant,
            "model": at.recipe / "model.pt2",
            "quantized": at.quantized / "quantized.pt2",
            "notes": at.quantized / "notes.json",
            "data": at.recipe / "evaluation.safetensors",
            "reference": at.recipe / "reference.safetensors",
            "host": at.program / "host.safetensors",
        },
        common,
        needs=[*needs, *sources.metric(job)],
        heavy=True,
    )
    if schemes.load(job.variant.scheme).NEEDS not in schemes.FLOATS or at.searched:
        engine.step(
            "sensitivity",
            who,
            {"out": at.quantized / "sensitivity.json", "picture": at.quantized / "sensitivity.svg"},
            {
                "model": at.recipe / "model.pt2",
                "quantized": at.quantized / "quantized.pt2",
                "data": at.recipe / "evaluation.safetensors",
            },
            {**common, "who": who, "samples": str(job.entry.recipe.sensitivity.samples)},
            needs=[*needs, *sources.metric(job), sources.drawing(engine)],
            heavy=True,
            alone="sensitivity",  # it works on all cores by itself
        )
        engine.goal("sensitivity", at.quantized / "sensitivity.json")


def _training(engine: Engine, job: Job, at: Layout) -> tuple[dict[str, Path], list[Path]]:
    """Inputs of a step that trains the model further, and the code that the recipe names."""
    folder, training = sources.folder(job), job.entry.recipe.training
    assert training is not None
    settings = engine.text(at.recipe / "spec/training.json", training.canonical())
    model_json = at.recipe / "spec/model.json"
    engine.step(
        "export",
        f"{job.entry.name} for training",
        {"out": at.recipe / "training.pt2"},
        {"model": model_json},
        {"folder": str(folder), "mode": "training"},
        needs=[sources.python_tools(engine), *sources.model_files(engine, job)],
        heavy=True,
    )
    named = [*sources.data_files(job), *sources.packages(engine, job)]
    engine.step(
        "data",
        f"{job.entry.name} training",
        {"out": at.recipe / "training.safetensors"},
        {"data": settings, "model": model_json},
        {"folder": str(folder), "kind": "training"},
        needs=[sources.python_tools(engine), *sources.code(folder, training.samples), *named],
    )
    code = [
        path for name in (training.loss, training.augment) for path in sources.code(folder, name)
    ]
    files = {
        "training": at.recipe / "training.pt2",
        "samples": at.recipe / "training.safetensors",
        "settings": settings,
    }
    return files, [*code, *sources.data_files(job)]
