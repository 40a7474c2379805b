"""Training a model further: with the samples, the loss and the augmentation of its recipe.

    given = material(model, samples, settings, folder)      # from the files of the build
    history = train(module, given, epochs, rate)            # changes the module's parameters

Stochastic gradient descent with momentum; the learning rate falls along half a cosine (Loshchilov
and Hutter, arXiv:1608.03983, without restarts). The same seed, one thread and the same torch give
the same parameters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import loading, programs, schema
from toolchain.errors import UserError
from toolchain.material import Training
from toolchain.schema import decode_json
from toolchain.steps.main import say

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

MOMENTUM = 0.9
LAST_RATE = 0.01  # share of the rate that is left at the end
LEAST_BATCH = 2  # batch statistics of one sample mean nothing, and batch-norm refuses them


def material(model: Path, samples: Path, settings: Path, folder: Path) -> Training:
    """`model`: exported in training mode; `samples`: its training data; `settings`: `Training`."""
    wanted = decode_json(schema.Training, settings)
    inputs, labels = _stacked(samples, wanted.samples)
    return Training(
        programs.from_file(model),
        wanted,
        inputs,
        labels,
        cross_entropy if wanted.loss == "cross_entropy" else _own_loss(wanted.loss, folder),
        _own_augmentation(wanted.augment, folder) if wanted.augment else None,
    )


def train(
    module: GraphModule,
    given: Training,
    epochs: int,
    rate: float,
    before_step: Callable[[float], None],
) -> list[dict[str, float]]:
    """Train the parameters of `module`; the mean loss and the last learning rate of each epoch.

    rate: the learning rate of the first step. before_step: called with the share of all steps that
    is done.
    """
    import torch

    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise UserError("the model has no parameters to train")
    torch.manual_seed(given.settings.seed)  # shuffling, dropout and augmentation
    optimizer = torch.optim.SGD(parameters, rate, momentum=MOMENTUM)
    steps = epochs * steps_per_epoch(given)
    history: list[dict[str, float]] = []
    step = 0
    for epoch in range(1, epochs + 1):
        start, total = time.monotonic(), 0.0
        for inputs, labels in batches(given):
            before_step(step / steps)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step / steps, rate)
            optimizer.zero_grad()
            loss = given.loss(_outputs(module, inputs, rate), labels)
            _check(loss, given.settings.loss, rate)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
            step += 1
        mean = total / steps_per_epoch(given)
        history.append({"loss": mean, "rate": optimizer.param_groups[0]["lr"]})
        say(f"epoch {epoch} of {epochs}: loss {mean:.4f}, {time.monotonic() - start:.1f} s")
    return history


def rate_at(done: float, first: float) -> float:
    """The learning rate when a share `done` of all steps is done: half a cosine."""
    return first * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2)


def batch_size(given: Training) -> int:
    return min(given.settings.batch, len(given.labels))


def steps_per_epoch(given: Training) -> int:
    """What is left of a batch at the end of an epoch is left out: others will be, in the next."""
    return len(given.labels) // batch_size(given)


def batches(given: Training) -> Iterator[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    """One epoch: all samples in an order of chance, augmented."""
    import torch

    size = batch_size(given)
    order = torch.randperm(len(given.labels))
    for step in range(steps_per_epoch(given)):
        chosen = order[step * size : (step + 1) * size]
        inputs = tuple(tensor[chosen] for tensor in given.inputs)
        yield given.augment(*inputs) if given.augment else inputs, given.labels[chosen]


def cross_entropy(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Of the first output, [N, classes], and labels [N] (or [N, classes, ...] and [N, ...])."""
    import torch

    scores = programs.leaves(outputs)[0]
    try:
        return torch.nn.functional.cross_entropy(scores, labels)
    except (RuntimeError, IndexError, ValueError) as error:
        raise UserError(
            f"cross_entropy does not take scores {list(scores.shape)} with labels "
            f"{list(labels.shape)} {str(labels.dtype)[6:]}: {error}",
            where="[training].loss",
            hint="it takes scores [N, classes] and labels [N], whole numbers from 0 to classes - 1;"
            "\n  or write your own: loss = file.py:function",
        ) from None


def _stacked(samples: Path, reference: str) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Inputs and labels of all samples, the sample and the batch dimension as one."""
    import safetensors.torch
    import torch

    from toolchain.samples import reading

    with reading(samples):
        tensors = safetensors.torch.load_file(samples)
    names = sorted((n for n in tensors if n.startswith("input.")), key=lambda n: int(n[6:]))
    labels, size = tensors["label"], tensors[names[0]].shape[1]
    if size > 1:  # a sample is a batch, and its label holds one for each of it
        if labels.dim() < 2 or labels.shape[1] != size:
            raise UserError(
                f"a label is {list(labels.shape[1:])}, and a sample is a batch of {size}",
                where=reference,
                hint=f"give labels of the shape [{size}, ...]",
            )
        labels = labels.flatten(0, 1)
    if len(labels) < LEAST_BATCH:
        raise UserError(f"gave {len(labels)} sample, and training needs more", where=reference)
    inputs = tuple(tensors[name].flatten(0, 1) for name in names)
    # Copies of their own: safetensors gives views of the file.
    return tuple(torch.clone(tensor) for tensor in inputs), labels.clone()


def _own_loss(reference: str, folder: Path) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    function = loading.load(reference, folder)

    def loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        import torch

        with loading.importable(folder), loading.blamed(reference, folder):
            value = function(outputs, labels)
        if not isinstance(value, torch.Tensor) or value.dim() > 0:
            kind = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise UserError(
                f"gave {kind}, and a tensor of no dimensions is wanted", where=reference
            )
        return value

    return loss


def _own_augmentation(reference: str, folder: Path) -> Callable[..., tuple[torch.Tensor, ...]]:
    function = loading.load(reference, folder)

    def augment(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with loading.importable(folder), loading.blamed(reference, folder):
            given = function(*inputs)
        made = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        wanted, found = ([_described(value) for value in values] for values in (inputs, made))
        if wanted != found:
            raise UserError(
                f"made {', '.join(found)} of {', '.join(wanted)}",
                where=reference,
                hint="the model takes what it was given: the same shapes and types",
            )
        return made

    return augment


def _described(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return type(value).__name__
    return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _outputs(module: GraphModule, inputs: tuple[torch.Tensor, ...], rate: float) -> Any:
    try:
        return module(*inputs)
    except AssertionError as error:  # torchao's observers refuse what is not a number
        raise _runs_away(str(error), rate) from error
    except RuntimeError as error:
        raise UserError(
            f"the model cannot be trained as it is: {str(error).strip().splitlines()[0]}",
            hint="leave the layer out: skip = [...], or take a scheme that does not train",
        ) from error


def _check(loss: torch.Tensor, where: str, rate: float) -> None:
    if not loss.requires_grad:
        raise UserError(
            "no parameter of the model has a part in the loss",
            where=where,
            hint="the loss has to be made of the outputs, without .detach(), .item() or argmax",
        )
    if not math.isfinite(loss.item()):
        raise _runs_away(f"the loss is {loss.item()}", rate)


def _runs_away(sign: str, rate: float) -> UserError:
    return UserError(
        f"training runs away: {sign}",
        where="rate",
        hint=f"take a smaller one than {rate:g}, such as rate = {rate / 10:g}",
    )
