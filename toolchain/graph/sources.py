"""The files, beside a step's inputs, that its result depends on: code, versions of tools."""

from __future__ import annotations

from pathlib import Path

from toolchain import tools
from toolchain.engine import ROOT, Engine
from toolchain.errors import UserError
from toolchain.imports import module_files
from toolchain.jobs import Job
from toolchain.layout import device_folder


def near(path: Path) -> Path:
    """A path inside this repository without its place, so that another checkout builds the same."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def folder(job: Job) -> Path:
    return near(job.entry.folder)


def code(where: Path, reference: str | None) -> list[Path]:
    """The file that defines `file.py:function` or `package.module:function`."""
    module, colon, _ = (reference or "").partition(":")
    if not colon:
        return []
    if module.endswith(".py"):
        return [where / module]
    if not (files := module_files(module, where)):
        raise UserError(
            f"there is no module '{module}'",
            where=f"{where / 'recipe.toml'}: '{reference}'",
            hint="it stands neither beside the recipe nor on PYTHONPATH, nor is it installed",
        )
    return files


def modules_of(package: str) -> list[Path]:
    """Modules that are loaded by name, where no import names them."""
    return sorted((ROOT / package).glob("*.py"))


def model_files(engine: Engine, job: Job) -> list[Path]:
    """All that the recipe's model is made of, versions of packages included."""
    model, here = job.entry.recipe.model, folder(job)
    files = [here / name for name in (*model.files, model.weights, model.program) if name]
    return [*code(here, model.factory), *files, *packages(engine, job)]


def packages(engine: Engine, job: Job) -> list[Path]:
    """Versions of the packages that the recipe says it comes from."""
    names = job.entry.recipe.model.packages
    note = engine.build / job.entry.name / "spec/packages.json"
    return [engine.text(note, tools.packages(names))] if names else []


def data_files(job: Job) -> list[Path]:
    """Files that the recipe's functions of data and metric read."""
    return [folder(job) / name for name in job.entry.recipe.data.files]


def metric(job: Job) -> list[Path]:
    """The code of the recipe's own metric, and what it reads."""
    own = code(folder(job), job.entry.recipe.data.metric)
    return [*own, *data_files(job)] if own else []


def drawing(engine: Engine) -> Path:
    """Another version draws another picture."""
    return engine.text(engine.build / "tools/drawing.json", tools.packages(["matplotlib"]))


def python_tools(engine: Engine) -> Path:
    return engine.text(engine.build / "tools/python.json", tools.python())


def compiler(engine: Engine, job: Job) -> Path:
    note = engine.build / f"tools/{job.target_name}.json"
    return engine.text(note, tools.compiler(job.target.triple))


def device(engine: Engine, job: Job) -> Path:
    """The unit that the job is measured on, as a file."""
    note = engine.build / f"devices/{device_folder(job.device.name)}.json"
    return engine.text(note, job.device.canonical())


def measure(engine: Engine, job: Job, folder: Path) -> Path:
    """How the job is measured, as a file below the folder of its target."""
    return engine.text(folder / "spec/measure.json", job.measure.canonical())


def alone(job: Job) -> str | None:
    """Of what works on one real device, one goes on at a time; a board is its own."""
    return None if job.device.emulated else f"busy-{device_folder(job.device.name)}"
