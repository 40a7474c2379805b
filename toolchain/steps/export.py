"""Build the recipe's model, load its weights, and export it as a float program.

Two modes: `inference`, with the batch of the recipe; `training`, with dropout and batch statistics
as in training, and any batch size.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import loading, programs
from toolchain.atomic import write_bytes
from toolchain.errors import UserError, nearest
from toolchain.schema import Model, Tensor, decode_json, shown
from toolchain.steps.main import step

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

LINES = 6  # of what torch.export says when it fails
BATCH = "batch"  # name of the dynamic dimension
LEAST_BATCH = 2  # torch.export takes a size of 1 for a constant


def run(*, model: Path, folder: Path, out: Path, mode: str = "inference") -> None:
    """Write the program of the model that the JSON file `model` describes."""
    programs.prepare_torch()
    exports = {"inference": _for_inference, "training": _for_training}
    if mode not in exports:
        raise UserError(f"unknown mode '{mode}'", where="--mode", hint=nearest(mode, exports))
    wanted = decode_json(Model, model)
    if wanted.program is None:
        with loading.importable(folder):
            program = exports[mode](_built(wanted, folder), wanted, folder)
    elif mode == "inference":
        program = _exported(wanted, wanted.program, folder)
    else:
        raise UserError(
            "an exported program cannot be trained",
            where=f"{shown(folder / 'recipe.toml')}: [model].program",
            hint="give the model as a factory: [model] factory",
        )
    write_bytes(out, programs.to_bytes(program))


def _built(wanted: Model, folder: Path) -> torch.nn.Module:
    """The recipe's model with its weights."""
    import torch

    factory = str(wanted.factory)
    build = loading.load(factory, folder)
    torch.manual_seed(0)  # a factory without weights gives the same model each time
    with loading.blamed(factory, folder):
        module = build()
    if not isinstance(module, torch.nn.Module):
        raise UserError(
            f"gave {type(module).__name__}, and a torch.nn.Module is wanted", where=factory
        )
    if wanted.weights is not None:
        where = f"{shown(folder / 'recipe.toml')}: [model].weights"
        loading.load_weights(module, folder / wanted.weights, wanted.sha256, where)
    return module


def _for_inference(module: torch.nn.Module, wanted: Model, folder: Path) -> ExportedProgram:
    module.eval()
    inputs = _example(wanted.inputs)
    _check_inputs_fit(module, inputs, wanted, folder)
    return _export(module, inputs, str(wanted.factory))


def _for_training(module: torch.nn.Module, wanted: Model, folder: Path) -> ExportedProgram:
    """The model in training mode; the first dimension of its inputs is that of a batch."""
    import torch

    sizes = {declared.shape[:1] for declared in wanted.inputs}
    if len(sizes) > 1 or () in sizes:
        raise UserError(
            "training needs a batch dimension, the first and the same of all inputs; these are "
            + _described(wanted.inputs),
            where=f"{shown(folder / 'recipe.toml')}: [model].inputs",
        )
    size = max(LEAST_BATCH, wanted.inputs[0].shape[0])
    batched = tuple(i.model_copy(update={"shape": (size, *i.shape[1:])}) for i in wanted.inputs)
    inputs = _example(batched)
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor in inputs:
        shapes[tensor] = {0: torch.export.Dim(BATCH, min=LEAST_BATCH)}
    try:
        module.eval()  # run in training mode, batch-norms would move their statistics
        _check_inputs_fit(module, inputs, wanted.model_copy(update={"inputs": batched}), folder)
        module.train()
        return _export(module, inputs, str(wanted.factory), shapes)
    except UserError as error:
        raise UserError(
            f"as training needs it, with any number of samples in a batch: {error.message}",
            where=error.where,
            hint=f"{error.hint}\n  does the model take the size of a batch for a constant? Write "
            "x.flatten(1) or x.view(x.shape[0], -1),\n  and not x.view(1, -1)",
        ) from error


def _export(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    factory: str,
    shapes: Any = None,
) -> ExportedProgram:
    import torch

    try:
        with torch.no_grad():
            return torch.export.export(module, inputs, dynamic_shapes=shapes)
    except Exception as error:  # the user's model decides what export raises
        reason = [line for line in str(error).splitlines() if line.strip()][:LINES]
        raise UserError(
            f"torch.export cannot export the model: {type(error).__name__}\n    "
            + "\n    ".join(reason or ["(it gave no reason)"]),
            where=factory,
            hint="usual causes: a branch on a tensor's value (torch.where, torch.cond), a call of "
            "numpy or .item() in forward;\n  https://docs.pytorch.org/docs/stable/export.html",
        ) from error


def _check_inputs_fit(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], wanted: Model, folder: Path
) -> None:
    """Run the model once: its own error for wrong inputs is clearer than that of an export."""
    import torch

    factory = str(wanted.factory)
    try:
        with torch.no_grad(), loading.blamed(factory, folder):
            outputs = module(*inputs)
    except UserError as error:
        raise UserError(
            f"the model does not run on the inputs of the recipe, {_described(wanted.inputs)}: "
            f"{error.message}",
            where=error.where,
            hint=f"mend [model].inputs in {shown(folder / 'recipe.toml')}, or the model",
        ) from error
    programs.leaves(outputs)


def _exported(wanted: Model, name: str, folder: Path) -> ExportedProgram:
    """A program that was exported before, if it takes the inputs that the recipe declares."""
    where = f"{shown(folder / 'recipe.toml')}: [model]"
    loading.check_digest(folder / name, wanted.sha256, f"{where}.sha256")
    program = programs.from_file(folder / name)
    own = [n.meta["val"] for n in _user_inputs(program)]
    found = [(tuple(value.shape), str(value.dtype)) for value in own]
    declared = [(i.shape, f"torch.{i.dtype}") for i in wanted.inputs]
    if found != declared:
        listed = ", ".join(f"{list(shape)} {kind[6:]}" for shape, kind in found)
        raise UserError(
            f"'{name}' takes {listed or 'nothing'}, the recipe says {_described(wanted.inputs)}",
            where=f"{where}.inputs",
        )
    if operators := sorted(_in_training(program)):
        raise UserError(
            f"'{name}' was exported in training mode: {', '.join(operators)}",
            where=f"{where}.program",
            hint="its answers would be random: export model.eval()",
        )
    return program


def _in_training(program: ExportedProgram) -> set[str]:
    """Operators that behave as in training; their schema has a flag `train` or `training`."""
    found = set()
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for argument, value in zip(schema.arguments if schema else (), node.args, strict=False):
            if argument.name in ("train", "training") and value is True:
                found.add(str(node.target))
    return found


def _user_inputs(program: ExportedProgram) -> list[Any]:
    names = set(program.graph_signature.user_inputs)
    return [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]


def _example(inputs: tuple[Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Inputs to trace with: noise, and zeros where numbers may be indices."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(wanted.shape, generator=generator).to(getattr(torch, wanted.dtype))
        if wanted.dtype.startswith("float")
        else torch.zeros(wanted.shape, dtype=getattr(torch, wanted.dtype))
        for wanted in inputs
    )


def _described(inputs: tuple[Tensor, ...]) -> str:
    return ", ".join(f"{list(wanted.shape)} {wanted.dtype}" for wanted in inputs)


if __name__ == "__main__":
    step(run)
