"""Fixtures that tests share: a copy of the product in a temporary folder, built by real SCons."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from toolchain.tests.projects import write_recipe

ROOT = Path(__file__).parents[2]
PARTS = ("SConstruct", "toolchain", "targets", "device_tests", "pyproject.toml")


@dataclass
class Said:
    """What a call of SCons printed and its exit status."""

    status: int
    out: str
    err: str

    @property
    def steps(self) -> list[str]:
        """The steps that ran, as SCons announced them: `lower tiny int8 xnnpack`."""
        verbs = {file.stem for file in (ROOT / "toolchain/steps").glob("*.py")}
        lines = [line.split() for line in self.out.splitlines()]
        return [" ".join(words) for words in lines if words and words[0] in verbs]

    @property
    def reasons(self) -> set[str]:
        """What `--debug=explain` gave as reasons, over all steps."""
        several = re.findall(r"^ {11}(`.*)$", self.out, re.MULTILINE)
        single = re.findall(r"^scons: rebuilding .* because (`.*)$", self.out, re.MULTILINE)
        return {*several, *single}

    @property
    def verbs(self) -> set[str]:
        return {step.split()[0] for step in self.steps}


@dataclass
class Project:
    """A copy of the product that tests may change."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()  # given with each call

    def scons(self, *arguments: str, timeout: float = 600) -> Said:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "SCons", "-Q", *self.arguments, *arguments]

    def file(self, name: str) -> Path:
        return self.folder / name


def copied(folder: Path) -> Project:
    """A new copy of the product with one small recipe, `tiny`."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    write_recipe(folder / "recipes/tiny")
    return Project(folder)


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Project:
    """A project whose recipe `tiny` is built, measured on a board, and judged.

    It has a cache, so that what a test changed and put back need not be built again.
    """
    project = copied(tmp_path_factory.mktemp("product") / "slipway")
    project.arguments = (f"cache={tmp_path_factory.mktemp('cache')}",)
    said = project.scons("target=arm64")
    assert said.status == 0, said.out + said.err
    return project
