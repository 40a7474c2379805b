"""What a file imports is found without running it, and the layers of the package hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.imports import imported_files, module_files

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "toolchain"
MODULES = [file for file in PACKAGE.rglob("*.py") if "tests" not in file.relative_to(PACKAGE).parts]


def test_all_forms_of_import_are_followed(tmp_path):
    for name in ("a.py", "b.py", "c.py", "pkg/__init__.py", "pkg/d.py", "pkg/e.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    source = tmp_path / "main.py"
    source.write_text(
        "import a, json\nfrom b import (\n    x,\n    y,\n)\n"
        "def late():\n    from . import c\n    from pkg import d\n    import pkg.e as e\n"
    )
    found = [str(f.relative_to(tmp_path)) for f in imported_files(source, [tmp_path])]
    assert found == ["a.py", "b.py", "c.py", "pkg/__init__.py", "pkg/d.py", "pkg/e.py"]


def test_a_file_that_does_not_parse_imports_nothing(tmp_path):
    (tmp_path / "bad.py").write_text("def (")
    assert imported_files(tmp_path / "bad.py", [tmp_path]) == []


def test_importable_modules_are_found_without_importing(tmp_path):
    assert module_files("json.decoder", tmp_path)[-1].name == "decoder.py"
    before = set(sys.modules)
    assert [f.name for f in module_files("wsgiref.util", tmp_path)] == ["__init__.py", "util.py"]
    assert "wsgiref.util" not in set(sys.modules) - before
    assert module_files("no_such_package_here", tmp_path) == []


def test_a_package_beside_the_recipe_is_found_first(tmp_path):
    (tmp_path / "nets").mkdir()
    for name in ("__init__.py", "models.py", "layers.py"):
        (tmp_path / "nets" / name).write_text("")
    models = tmp_path / "nets/models.py"
    assert module_files("nets.models", tmp_path)[-1] == models
    (tmp_path / "nets/deep").mkdir()
    (tmp_path / "nets/deep/__init__.py").write_text("")
    deep = tmp_path / "nets/deep/a.py"
    deep.write_text("from nets.layers import x\nfrom .. import models\nfrom ..layers import y\n")
    found = {file.name for file in imported_files(deep, [])}
    assert {"layers.py", "models.py"} <= found


def closure(file: Path) -> set[Path]:
    found: set[Path] = set()
    todo = [file]
    while todo:
        here = todo.pop()
        if here not in found:
            found.add(here)
            todo += imported_files(here, [ROOT])
    return found


def test_only_the_engine_knows_scons():
    knowing = [f.name for f in MODULES if "import SCons" in f.read_text()]
    assert knowing == ["engine.py"]


def test_imports_point_down():
    graph = closure(PACKAGE / "graph/__init__.py")
    assert not {f.name for f in graph} & {"judge.py", "measure.py", "export.py"}
    steps = {f for f in graph if f.parent.name == "steps"}
    assert {f.name for f in steps} == {"__init__.py", "main.py"}, "the graph imports no step"
    for floor in ("catalog.py", "schema.py", "stats.py", "devices/ssh.py", "devices/qemu.py"):
        assert not {f for f in closure(PACKAGE / floor) if f.parent.name == "graph"}
    for floor in ("schema.py", "devices/__init__.py", "devices/qemu.py"):
        names = {str(f.relative_to(PACKAGE)) for f in closure(PACKAGE / floor)}
        assert not {n for n in names if n.startswith(("steps", "schemes", "backends", "catalog"))}


@pytest.mark.parametrize(
    "module", ["toolchain.graph", "toolchain.catalog", "toolchain.devices", "toolchain.stats"]
)
def test_a_build_that_does_nothing_does_not_pay_for_torch(module):
    heavy = "{'torch', 'executorch', 'torchao', 'paramiko'} & set(sys.modules)"
    code = f"import sys, {module}; from toolchain import schemes, backends;" + (
        "[schemes.load(n) for n in schemes.names()]; [backends.load(n) for n in backends.names()];"
        f"print({heavy} or 'none')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert said.stdout.strip() == "none", said.stdout + said.stderr
