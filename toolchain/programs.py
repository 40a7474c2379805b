"""Torch as the steps use it: exported programs and samples as files, always the same bytes."""

from __future__ import annotations

import io
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.errors import UserError
from toolchain.schema import shown

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

# Of a node's meta, what differs from process to process (`from_node` holds memory addresses) or
# from checkout to checkout (`stack_trace` holds paths and line numbers, so that a comment in the
# recipe's model.py would rebuild all that follows).
VOLATILE = ("from_node", "stack_trace")


def prepare_torch() -> None:
    """Call before anything else with torch: as many threads as the build allows, a calm console.

    Sums depend on the number of threads in their last bits, so it is one unless OMP_NUM_THREADS
    says otherwise, and never the number of this machine's cores.
    """
    # torchao: two libraries of CUDA kernels do not load beside the CPU build of torch.
    logging.getLogger("torchao").addFilter(_without("Failed to load "))
    # torchao registers its enumerations in a way that torch has made superfluous.
    logging.getLogger("torch.utils._pytree").addFilter(_without("is an Enum subclass"))
    # torch copies its own tree specifications in a way that it has deprecated itself.
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.", FutureWarning)
    # ExecuTorch calls its Python runtime experimental whenever it is imported.
    warnings.filterwarnings("ignore", "This API is experimental and subject to change")
    # nn.LSTM and nn.GRU keep a second list of their weights, which are parameters all the same.
    warnings.filterwarnings("ignore", ".*_flat_weights.*were assigned during export", UserWarning)

    import torch

    torch.set_num_threads(threads())


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or 1)


def to_bytes(program: ExportedProgram) -> bytes:
    """A `.pt2` file's content, the same for the same program in every process and folder."""
    import torch

    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in VOLATILE:
                    node.meta.pop(key, None)
    file = io.BytesIO()  # a file's name would be embedded
    torch.export.save(program, file)
    return file.getvalue()


def from_file(path: Path) -> ExportedProgram:
    """The program in a `.pt2` file; UserError if there is none in it."""
    import torch

    # They register the operators of quantized programs.
    import torch.ao.quantization.fx._decomposed
    import torchao.quantization.quant_primitives  # noqa: F401

    logged: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        """torch logs the real error with its traceback, and raises one without content."""
        if record.exc_info and record.exc_info[1]:
            logged.append(record.exc_info[1])
        return False

    logger = logging.getLogger("torch.export")
    logger.addFilter(keep)
    try:
        return torch.export.load(path)
    except Exception as error:  # noqa: BLE001 (what a broken archive makes torch raise is open)
        said = str(logged[0] if logged else error).strip() or type(error).__name__
        first = said.splitlines()[0]
        raise UserError(
            f"is not an exported program: {first}",
            where=shown(path),
            hint="in a build folder: delete it and run scons again\n  of your own: "
            "torch.export.save(torch.export.export(model, inputs), path) writes one, "
            "and a newer torch may not read it",
        ) from None
    finally:
        logger.removeFilter(keep)


def samples(path: Path) -> list[tuple[torch.Tensor, ...]]:
    """What the data step wrote, as a tuple of the model's inputs for each sample."""
    import safetensors.torch

    from toolchain.samples import reading

    with reading(path):
        tensors = safetensors.torch.load_file(path)
    names = sorted((n for n in tensors if n.startswith("input.")), key=lambda n: int(n[6:]))
    # Copies: a view of all samples would be saved whole where one is kept with a program.
    columns = [[sample.clone() for sample in tensors[name]] for name in names]
    return list(zip(*columns, strict=True))


def stacked(outputs: list[tuple[torch.Tensor, ...]]) -> bytes:
    """Outputs of each sample as a safetensors file: `output.0`, … each of shape [N, ...]."""
    import safetensors.torch
    import torch

    shapes = {tuple(tuple(tensor.shape) for tensor in sample) for sample in outputs}
    if len(shapes) > 1:
        few = " and ".join(str([list(shape) for shape in s]) for s in sorted(shapes)[:2])
        raise UserError(
            f"the model's outputs differ in shape from sample to sample: {few}",
            hint="programs have fixed shapes; let the model pad its outputs",
        )
    return safetensors.torch.save(
        {
            f"output.{k}": torch.stack(list(same))
            for k, same in enumerate(zip(*outputs, strict=True))
        }
    )


def leaves(outputs: Any) -> tuple[torch.Tensor, ...]:
    """The tensors of a model's output, whatever holds them, in the order of the lowered program."""
    import torch
    from torch.utils import _pytree

    found = _pytree.tree_leaves(outputs)
    if not found or not all(isinstance(leaf, torch.Tensor) for leaf in found):
        kinds = ", ".join(type(leaf).__name__ for leaf in found) or "nothing"
        raise UserError(f"the model's output has to be tensors, and is {kinds}")
    return tuple(found)


def _without(text: str) -> Any:
    return lambda record: text not in record.getMessage()
