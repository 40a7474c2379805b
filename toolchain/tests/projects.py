"""Small projects for tests: recipes written to a temporary folder."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from toolchain.schema import Target

TRIPLE = f"{platform.machine()}-linux-gnu"

RECIPE = """
summary = "one linear layer"
targets = ["arm64"]
[model]
factory = "model.py:build"
inputs = [{ shape = [1, 4] }]
[data]
calibration = "data.py:calibration"
evaluation = "data.py:evaluation"
metric = "agreement"
[variants.float]
scheme = "float"
[variants.int8]
scheme = "int8_static"
[variants.int8.checks]
parity = "exact"
"""

MODEL = """
import torch


def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
"""

DATA = """
import torch


def samples(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 4, generator=generator) for _ in range(8)]


def calibration():
    return samples(1)


def evaluation():
    return [(sample, None) for sample in samples(2)]
"""


def write_recipe(folder: Path, recipe: str = RECIPE, model: str = MODEL, data: str = DATA) -> Path:
    """Write the three files of a recipe and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(recipe)
    (folder / "model.py").write_text(model)
    (folder / "data.py").write_text(data)
    return folder


def target_json(file: Path, triple: str = TRIPLE) -> Path:
    """A target like this machine."""
    value = {
        "summary": "this machine",
        "arch": platform.machine(),
        "triple": triple,
        "wheel_platform": "any",
        "backends": ["xnnpack"],
        "device": {"default": "here"},
    }
    file.write_text(Target.model_validate_json(json.dumps(value)).canonical())
    return file
