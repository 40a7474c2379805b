"""The build graph: which step makes which file from which others.

    spec ─┬─ export ─ quantize ─ lower ─┬─ host ─ analyze ─────┐
          ├─ data ─── reference ────────│──────────────────────┤
          └─ runtime ─ runner ──────────┴─ package ─ measure ── judge ─ summary

A step's sources are the files it reads, its own source and all that this imports, the part of the
recipe that concerns it, and the versions of its tools: what SCons knows is all there is to know,
and `--debug=explain` is true.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from toolchain import backends, devices, schemes, tools
from toolchain.catalog import Job
from toolchain.engine import ROOT, Engine
from toolchain.errors import UserError
from toolchain.imports import module_files
from toolchain.layout import Layout
from toolchain.options import ALIASES, Options
from toolchain.runtime_libraries import LIBRARIES


class Graph:
    """Adds jobs to the build; what several jobs share is made once."""

    def __init__(self, options: Options) -> None:
        self.build = options.build
        self.remeasure = options.remeasure
        self.engine = Engine(options.build, options.cache)
        self._verdicts: list[Path] = []

    def add(self, job: Job) -> None:
        """Everything from the recipe to the verdict of one job."""
        searched = "search" in schemes.load(job.variant.scheme).USES
        who = (job.entry.name, job.variant_name, job.backend, job.target_name)
        at = Layout(self.build, *who, searched)
        self._model_and_data(job, at)
        self._program(job, at)
        self._runtime(job, at)
        self._bundle(job, at)
        self._verdict(job, at)

    def finish(self, asked: Sequence[str]) -> None:
        """The summary over all jobs, and the goals; UserError for one that has nothing to make."""
        summary = self.build / "summary.json"
        self.engine.step(
            "summary", "table", {"out": summary}, {"verdict": self._verdicts}, shared=False
        )
        self.engine.goal("check", summary, default=True)
        table = self.build / "table.md"
        self.engine.step("table", "of all programs", {"out": table}, {"verdict": self._verdicts})
        self.engine.goal("table", table)
        for goal in asked:
            if goal in ALIASES and goal not in self.engine.goals:
                raise UserError(
                    f"there is no '{goal}' of what is chosen",
                    hint="the scheme 'float' quantizes nothing; name another variant",
                )
        self.engine.leave_with_status_of(summary)

    def _model_and_data(self, job: Job, at: Layout) -> None:
        model, data = job.entry.recipe.model, job.entry.recipe.data
        folder, who = _near(job.entry.folder), job.entry.name
        self.engine.recipe_folders.add(job.entry.folder)
        model_json = self.engine.text(at.recipe / "spec/model.json", model.canonical())
        data_json = self.engine.text(at.recipe / "spec/data.json", data.canonical())
        self.engine.step(
            "export",
            who,
            {"out": at.recipe / "model.pt2"},
            {"model": model_json},
            {"folder": str(folder)},
            needs=[self._python_tools(), *self._model_files(job)],
            heavy=True,
        )
        for kind in ("calibration", "evaluation"):
            if function := getattr(data, kind):
                named = [*self._data_files(job), *self._packages(job)]
                self.engine.step(
                    "data",
                    f"{who} {kind}",
                    {"out": at.recipe / f"{kind}.safetensors"},
                    {"data": data_json, "model": model_json},
                    {"folder": str(folder), "kind": kind},
                    needs=[self._python_tools(), *_code(folder, function), *named],
                )
        self.engine.step(
            "reference",
            who,
            {"out": at.recipe / "reference.safetensors"},
            {"model": at.recipe / "model.pt2", "data": at.recipe / "evaluation.safetensors"},
            needs=[self._python_tools()],
            heavy=True,
        )

    def _program(self, job: Job, at: Layout) -> None:
        backend, scheme = backends.load(job.backend), schemes.load(job.variant.scheme)
        backend_needs = [self._python_tools(), Path(str(backend.__file__))]
        who = f"{job.entry.name} {job.variant_name} {job.backend}"
        variant = job.variant.model_dump(mode="json", include={"scheme", "options"})
        quantize = {
            "model": at.recipe / "model.pt2",
            "variant": self.engine.text(
                at.variant / "spec/variant.json", json.dumps(variant, sort_keys=True)
            ),
        }
        settings = {"backend": job.backend}
        code = [*backend_needs, Path(str(scheme.__file__)), *_files_of("toolchain/observers")]
        uses = scheme.USES
        if "search" in uses:  # what it finds may be any scheme
            recipe = job.entry.recipe
            given = {"calibration": recipe.data.calibration, "training": recipe.training}
            uses = frozenset(name for name, value in given.items() if value)
            code += _files_of("toolchain/schemes")
        if "calibration" in uses:
            quantize["calibration"] = at.recipe / "calibration.safetensors"
        if "training" in uses:
            inputs, named = self._training(job, at)
            quantize |= inputs
            settings["folder"] = str(_near(job.entry.folder))
            code += named
        if "search" in scheme.USES:
            quantize["variant"] = self._search(job, at, quantize, code)
        self.engine.step(
            "quantize",
            who,
            {"out": at.program / "quantized.pt2", "notes": at.program / "notes.json"},
            quantize,
            settings,
            needs=code,
            heavy=True,
        )
        program = at.program / f"program{backend.SUFFIX}"
        self.engine.step(
            "lower",
            who,
            {"out": program, "report": at.program / "lower.json"},
            {"quantized": at.program / "quantized.pt2"},
            {"backend": job.backend},
            needs=backend_needs,
            heavy=True,
        )
        self.engine.goal("programs", program)
        self.engine.step(
            "host",
            who,
            {"out": at.program / "host.safetensors"},
            {"program": program, "data": at.recipe / "evaluation.safetensors"},
            {"backend": job.backend},
            needs=backend_needs,
            heavy=True,
        )
        self._analysis(job, at, quantize["variant"], code)

    def _search(self, job: Job, at: Layout, quantize: dict[str, Path], code: list[Path]) -> Path:
        """The choice of `scheme = "auto"`: a variant that the quantize step takes for its own."""
        folder, metric = _near(job.entry.folder), job.entry.recipe.data.metric
        device = at.device(job.device.name)
        self.engine.step(
            "search",
            f"{job.entry.name} {job.variant_name} {job.backend} {job.device.name}",
            {
                "out": at.program / "choice.json",
                "report": at.program / "search.json",
                "picture": at.program / "search.svg",
            },
            {
                **quantize,
                "data": at.recipe / "evaluation.safetensors",
                "reference": at.recipe / "reference.safetensors",
                "target": at.runtime / "target.json",
                "runner": at.runtime / "runner",
                "device": self.engine.text(device / "device.json", job.device.canonical()),
                "measure": self.engine.text(
                    at.variant / "spec/measure.json", job.measure.canonical()
                ),
                "tools": [self._python_tools(), self._compiler(job)],
            },
            {
                "backend": job.backend,
                "metric": metric,
                "folder": str(folder),
                "recipe": job.entry.name,
                "variant-name": job.variant_name,
                "target-name": job.target_name,
            },
            needs=[
                *code,
                *self._metric(job),
                self._drawing(),
                *devices.depends_on(job.device),
                *(at.runtime / "lib" / name for name in LIBRARIES),
            ],
            shared=job.device.driver == "qemu",  # a count of instructions is the same anywhere
            heavy=True,
        )
        return at.program / "choice.json"

    def _analysis(self, job: Job, at: Layout, variant: Path, needs: list[Path]) -> None:
        """Where the error comes from, layer by layer."""
        folder, metric = _near(job.entry.folder), job.entry.recipe.data.metric
        self.engine.step(
            "analyze",
            f"{job.entry.name} {job.variant_name} {job.backend}",
            {"out": at.program / "quantize.json"},
            {
                "variant": variant,
                "model": at.recipe / "model.pt2",
                "quantized": at.program / "quantized.pt2",
                "notes": at.program / "notes.json",
                "data": at.recipe / "evaluation.safetensors",
                "reference": at.recipe / "reference.safetensors",
                "host": at.program / "host.safetensors",
            },
            {"backend": job.backend, "metric": metric, "folder": str(folder)},
            needs=[*needs, *self._metric(job)],
            heavy=True,
        )
        if schemes.load(job.variant.scheme).NEEDS not in schemes.FLOATS or at.searched:
            self.engine.step(
                "sensitivity",
                f"{job.entry.name} {job.variant_name} {job.backend}",
                {"out": at.program / "sensitivity.json", "picture": at.program / "sensitivity.svg"},
                {
                    "model": at.recipe / "model.pt2",
                    "quantized": at.program / "quantized.pt2",
                    "data": at.recipe / "evaluation.safetensors",
                },
                {
                    "who": f"{job.entry.name} {job.variant_name} {job.backend}",
                    "backend": job.backend,
                    "metric": metric,
                    "folder": str(folder),
                    "samples": str(job.entry.recipe.sensitivity.samples),
                },
                needs=[*needs, *self._metric(job), self._drawing()],
                heavy=True,
                alone="sensitivity",  # it works on all cores by itself
            )
            self.engine.goal("sensitivity", at.program / "sensitivity.json")

    def _training(self, job: Job, at: Layout) -> tuple[dict[str, Path], list[Path]]:
        """Inputs of a step that trains the model further, and the code that the recipe names."""
        recipe, folder = job.entry.recipe, _near(job.entry.folder)
        training = recipe.training
        assert training is not None
        settings = self.engine.text(at.recipe / "spec/training.json", training.canonical())
        model_json = at.recipe / "spec/model.json"
        self.engine.step(
            "export",
            f"{job.entry.name} for training",
            {"out": at.recipe / "training.pt2"},
            {"model": model_json},
            {"folder": str(folder), "mode": "training"},
            needs=[self._python_tools(), *self._model_files(job)],
            heavy=True,
        )
        named = [*self._data_files(job), *self._packages(job)]
        self.engine.step(
            "data",
            f"{job.entry.name} training",
            {"out": at.recipe / "training.safetensors"},
            {"data": settings, "model": model_json},
            {"folder": str(folder), "kind": "training"},
            needs=[self._python_tools(), *_code(folder, training.samples), *named],
        )
        code = [path for name in (training.loss, training.augment) for path in _code(folder, name)]
        files = {
            "training": at.recipe / "training.pt2",
            "samples": at.recipe / "training.safetensors",
            "settings": settings,
        }
        return files, [*code, *self._data_files(job)]

    def _runtime(self, job: Job, at: Layout) -> None:
        target = self.engine.text(at.runtime / "target.json", job.target.canonical())
        self.engine.step(
            "runtime",
            job.target_name,
            {"out": at.runtime / "executorch.whl"},
            {"target": target},
            {"version": metadata.version("executorch")},
        )
        self.engine.step(
            "runner",
            job.target_name,
            {"out": at.runtime / "runner"},
            {
                "target": target,
                "wheel": at.runtime / "executorch.whl",
                "source": sorted(_near(ROOT / "toolchain/runner").glob("*.[ch]*")),
            },
            needs=[self._compiler(job)],
            also=[at.runtime / "lib" / name for name in LIBRARIES],
        )

    def _bundle(self, job: Job, at: Layout) -> None:
        suffix = backends.load(job.backend).SUFFIX
        self.engine.step(
            "package",
            f"{job.entry.name} {job.variant_name} {job.backend} {job.target_name}",
            {"out": at.bundle},
            {
                "target": at.runtime / "target.json",
                "program": at.program / f"program{suffix}",
                "quantized": at.program / "quantize.json",
                "lowered": at.program / "lower.json",
                "samples": at.recipe / "evaluation.safetensors",
                "expected": at.program / "host.safetensors",
                "runner": at.runtime / "runner",
                "tools": [self._python_tools(), self._compiler(job)],
            },
            {
                "recipe": job.entry.name,
                "variant": job.variant_name,
                "backend": job.backend,
                "target-name": job.target_name,
            },
            needs=[at.runtime / "lib" / name for name in LIBRARIES],
        )
        self.engine.goal("bundles", at.bundle)

    def _verdict(self, job: Job, at: Layout) -> None:
        at_device, who = at.device(job.device.name), f"{job.entry.name} {job.variant_name}"
        who += f" {job.backend} {job.device.name}"
        emulated = job.device.driver == "qemu"
        self.engine.step(
            "measure",
            who,
            {"out": at_device / "samples.json", "outputs": at_device / "outputs.safetensors"},
            {
                "bundle": at.bundle,
                "data": at.recipe / "evaluation.safetensors",
                "device": self.engine.text(at_device / "device.json", job.device.canonical()),
                "settings": self.engine.text(
                    at.variant / "spec/measure.json", job.measure.canonical()
                ),
            },
            needs=devices.depends_on(job.device),
            stale=self.remeasure or _broke(at_device / "samples.json"),
            shared=False,
            heavy=emulated,
            alone=None if emulated else f"busy-{at_device.name}",  # a board is its own
        )
        folder, metric = _near(job.entry.folder), job.entry.recipe.data.metric
        self.engine.step(
            "judge",
            who,
            {"out": at_device / "verdict.json"},
            {
                "samples": at_device / "samples.json",
                "outputs": at_device / "outputs.safetensors",
                "data": at.recipe / "evaluation.safetensors",
                "reference": at.recipe / "reference.safetensors",
                "host": at.program / "host.safetensors",
                "checks": self.engine.text(at.variant / "spec/checks.json", job.checks.canonical()),
            },
            {"metric": metric, "folder": str(folder), "recipe-sha256": _digest(job)},
            needs=[
                self.engine.text(at.folder_note, str(folder)),
                *sorted((ROOT / "device_tests").glob("*.py")),
                *self._metric(job),
            ],
        )
        self._verdicts.append(at_device / "verdict.json")

    def _model_files(self, job: Job) -> list[Path]:
        """All that the recipe's model is made of, versions of packages included."""
        model, folder = job.entry.recipe.model, _near(job.entry.folder)
        files = [folder / name for name in (*model.files, model.weights, model.program) if name]
        return [*_code(folder, model.factory), *files, *self._packages(job)]

    def _packages(self, job: Job) -> list[Path]:
        """Versions of the packages that the recipe says it comes from."""
        names = job.entry.recipe.model.packages
        note = self.build / job.entry.name / "spec/packages.json"
        return [self.engine.text(note, tools.packages(names))] if names else []

    def _data_files(self, job: Job) -> list[Path]:
        """Files that the recipe's functions of data and metric read."""
        return [_near(job.entry.folder) / name for name in job.entry.recipe.data.files]

    def _metric(self, job: Job) -> list[Path]:
        """The code of the recipe's own metric, and what it reads."""
        code = _code(_near(job.entry.folder), job.entry.recipe.data.metric)
        return [*code, *self._data_files(job)] if code else []

    def _drawing(self) -> Path:
        """Another version draws another picture."""
        return self.engine.text(self.build / "tools/drawing.json", tools.packages(["matplotlib"]))

    def _python_tools(self) -> Path:
        return self.engine.text(self.build / "tools/python.json", tools.python())

    def _compiler(self, job: Job) -> Path:
        return self.engine.text(
            self.build / f"tools/{job.target_name}.json", tools.compiler(job.target.triple)
        )


def _digest(job: Job) -> str:
    """sha256 of the recipe, as decoded, without its other variants."""
    own = job.entry.recipe.model_copy(update={"variants": {job.variant_name: job.variant}})
    return hashlib.sha256(own.canonical().encode()).hexdigest()


def _code(folder: Path, reference: str | None) -> list[Path]:
    """The file that defines `file.py:function` or `package.module:function`."""
    module, colon, _ = (reference or "").partition(":")
    if not colon:
        return []
    if module.endswith(".py"):
        return [folder / module]
    if not (files := module_files(module, folder)):
        raise UserError(
            f"there is no module '{module}'",
            where=f"{folder / 'recipe.toml'}: '{reference}'",
            hint="it stands neither beside the recipe nor on PYTHONPATH, nor is it installed",
        )
    return files


def _broke(samples: Path) -> bool:
    """Whether the last measurement ended in an infra-error: such a result is never kept."""
    try:
        return bool(json.loads(samples.read_bytes())["status"] == "infra-error")
    except (OSError, ValueError, KeyError):
        return False


def _files_of(folder: str) -> list[Path]:
    """Modules that are loaded by name, where no import names them."""
    return sorted((ROOT / folder).glob("*.py"))


def _near(path: Path) -> Path:
    """A path inside this repository without its place, so that another checkout builds the same."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
