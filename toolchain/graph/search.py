"""The search of `scheme = "auto"`: a step before the one that quantizes."""

from __future__ import annotations

from pathlib import Path

from toolchain import backends, devices
from toolchain.engine import Engine
from toolchain.graph import sources
from toolchain.jobs import Job
from toolchain.layout import Layout


def choice(
    engine: Engine, job: Job, at: Layout, quantize: dict[str, Path], code: list[Path]
) -> Path:
    """The choice of `scheme = "auto"`: a variant that the quantize step takes for its own."""
    runtime = at.runtime(backends.load(job.backend).RUNTIME.name)
    engine.step(
        "search",
        f"{job.entry.name} {job.variant_name} {job.backend} {job.device.name}",
        {
            "out": at.quantized / "choice.json",
            "report": at.quantized / "search.json",
            "picture": at.quantized / "search.svg",
        },
        {
            **quantize,
            "data": at.recipe / "evaluation.safetensors",
            "reference": at.recipe / "reference.safetensors",
            "target": engine.text(at.target_spec, job.target.canonical()),
            "runner": runtime / "runner",
            "runtime": runtime / "runtime.json",
            "device": sources.device(engine, job),
            "measure": sources.measure(engine, job, at.on_target),
            "tools": [sources.python_tools(engine), sources.compiler(engine, job)],
        },
        {
            "backend": job.backend,
            "metric": job.entry.recipe.data.metric,
            "folder": str(sources.folder(job)),
            "recipe": job.entry.name,
            "variant-name": job.variant_name,
            "target-name": job.target_name,
        },
        needs=[
            *code,
            *sources.metric(job),
            sources.drawing(engine),
            *devices.depends_on(job.device),
        ],
        shared=job.device.emulated,  # a count of instructions is the same anywhere
        heavy=True,
        alone=sources.alone(job),
    )
    return at.quantized / "choice.json"
