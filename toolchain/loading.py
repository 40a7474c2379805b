"""Code and weights that a recipe names, loaded with one message for each thing that can be wrong.

    with importable(folder):                       # `from layers import x` beside a file works
        build = load("model.py:build", folder)     # or "package.module:function"
        with blamed("model.py:build", folder):     # what the recipe's code raises is its author's
            model = build()                        #   error, shown with the line that raised it
        load_weights(model, folder / "weights.safetensors", sha256)

A recipe's modules leave `sys.modules` with the context, so that the `layers.py` of one recipe is
never taken for that of another. Nothing here imports torch before weights are loaded.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from toolchain.errors import UserError, nearest
from toolchain.schema import shown

if TYPE_CHECKING:
    import torch

FEW = 4  # keys of a state dict that an error lists


def load(reference: str, folder: Path) -> Callable[..., Any]:
    """The function that `file.py:function` (in `folder`) or `package.module:function` names."""
    name, _, function = reference.partition(":")
    is_file = name.endswith(".py")
    where = shown(folder / name) if is_file else name
    with importable(folder):
        module = _from_file(folder / name) if is_file else _from_package(name, folder)
    found = getattr(module, function, None)
    if found is None:
        functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(
            f"there is no function '{function}'", where=where, hint=nearest(function, functions)
        )
    if not callable(found):
        raise UserError(f"'{function}' is {_kind(found)}, not a function", where=where)
    return found  # type: ignore[no-any-return]


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules beside a recipe's files be imported by their plain names, and only in here."""
    home = folder.resolve()
    beside = {path.stem for path in home.glob("*.py")} | {
        path.parent.name for path in home.glob("*/__init__.py")
    }
    strangers = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in beside and not _is_below(module, home)
    }
    for name in strangers:
        del sys.modules[name]
    before = set(sys.modules)
    writes = sys.dont_write_bytecode
    sys.path.insert(0, str(home))
    sys.dont_write_bytecode = True  # a recipe's folder is not ours to write to
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(str(home))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in beside:
                del sys.modules[name]
        sys.modules.update(strangers)


@contextmanager
def blamed(reference: str, folder: Path) -> Iterator[None]:
    """Turn what the code behind `reference` raises into a UserError that names its line."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's code: anything may come
        frame = _blamed_frame(error, folder.resolve())
        raise UserError(
            f"{type(error).__name__}: {error or '(no message)'}",
            where=_line_of(frame, reference),
            hint=f"raised while '{reference}' ran" + (f": {frame.line}" if frame else ""),
        ) from error


def check_digest(path: Path, sha256: str | None, where: str) -> None:
    """Refuse a file that is not the one that its recipe means."""
    if sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise UserError(
            f"the sha256 of {shown(path)} is {found}, the recipe says {sha256}",
            where=where,
            hint="another version of the file, or a broken download; fetch it again, "
            "or write the digest above into the recipe if you trust it",
        )


def load_weights(model: torch.nn.Module, path: Path, sha256: str | None, where: str) -> None:
    """Load a `.safetensors` or `.pt` state dict into `model`: every key, and no other."""
    if not path.is_file():
        raise UserError(f"no such file '{shown(path)}'", where=where)
    check_digest(path, sha256, where)
    state, own = _state_dict(path, where), model.state_dict()
    misshaped = [
        f"{key} is {_shape(state[key])}, the model's is {_shape(own[key])}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    wrong = [
        f"{title}: {_few(keys)}"
        for title, keys in (
            ("missing", own.keys() - state.keys()),
            ("unexpected", state.keys() - own.keys()),
            ("of another shape", misshaped),
        )
        if keys
    ]
    if wrong:
        raise UserError(
            f"{shown(path)} does not fit the model", where=where, hint="\n  ".join(wrong)
        )
    model.load_state_dict(state, strict=True)


def _state_dict(path: Path, where: str) -> dict[str, torch.Tensor]:
    import torch

    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (what a broken file makes these readers raise is open)
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{shown(path)} cannot be loaded: {first}",
            where=where,
            hint="a state dict is wanted, as torch.save(model.state_dict(), …) writes it; "
            "pickled code is never run",
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        inside = f" with the keys {_few(map(str, state))}" if isinstance(state, dict) else ""
        raise UserError(
            f"{shown(path)} holds {_kind(state)}{inside}, not a state dict of tensors",
            where=where,
            hint="save model.state_dict() alone",
        )
    return state


def _from_file(path: Path) -> ModuleType:
    """A module of its own from a file, always from its source as it is now.

    Python's cached bytecode is told from an edited source by whole seconds and size only. The name
    says nothing of where the folder stands: names of classes are kept in exported programs.
    """
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.py")]
        raise UserError("no such file", where=shown(path), hint=nearest(path.name, siblings))
    name = re.sub(r"\W", "_", f"{path.absolute().parent.name}__{path.stem}")
    module = ModuleType(name)
    module.__file__ = str(path.resolve())
    sys.modules[name] = module  # dataclasses and pickle look themselves up there
    with _importing(shown(path), path.parent):
        exec(compile(path.read_bytes(), module.__file__, "exec"), vars(module))
    return module


def _from_package(name: str, folder: Path) -> ModuleType:
    with _importing(name, folder):
        return importlib.import_module(name)


@contextmanager
def _importing(what: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except SyntaxError as error:
        raise UserError(
            f"is not Python: {error.msg}", where=f"{_place(error.filename, what)}:{error.lineno}"
        ) from None
    except (Exception, SystemExit) as error:  # the user's code: anything may come
        frame = _blamed_frame(error, folder.resolve())
        raise UserError(
            f"cannot be imported: {type(error).__name__}: {error}",
            where=_line_of(frame, what),
            hint=_hint_for_import(error),
        ) from error


def _hint_for_import(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"'{error.name}' is neither installed in {sys.prefix} nor beside the recipe; "
            "install it there, or set PYTHONPATH"
        )
    return ""


def _blamed_frame(error: BaseException, home: Path) -> traceback.FrameSummary | None:
    """The innermost frame of the recipe's own code; else the innermost that is not Slipway's."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = Path(__file__).parent
    for foreign in (
        [f for f in frames if Path(f.filename).is_relative_to(home)],
        [f for f in frames if not Path(f.filename).is_relative_to(ours) and f.filename[0] != "<"],
    ):
        if foreign:
            return foreign[-1]
    return None


def _line_of(frame: traceback.FrameSummary | None, otherwise: str) -> str:
    return f"{shown(Path(frame.filename))}:{frame.lineno}" if frame else otherwise


def _is_below(module: ModuleType, home: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(home)


def _place(file: str | None, otherwise: str) -> str:
    return shown(Path(file)) if file else otherwise


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def _shape(tensor: torch.Tensor) -> str:
    return str(list(tensor.shape))


def _few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f", and {len(ordered) - FEW} more" if len(ordered) > FEW else ""
    return ", ".join(ordered[:FEW]) + more
