"""Quantization-aware training: int8 weights and activations that the model was trained with.

The trained float model is trained a little further while it computes on rounded numbers, so that
its weights find their place among the integers.

Fake quantization, x -> (clamp(round(x / scale) + zero_point) - zero_point) scale, has the gradient
of the identity inside its range and 0 outside (Jacob et al., arXiv:1712.05877, section 3). The flow
is PyTorch's PT2E (https://docs.pytorch.org/ao/stable/pt2e_quantization/pt2e_quant_qat.html).

Settings follow Krishnamoorthi (arXiv:1806.08342, section 3.2) and torchvision's reference
(references/classification/train_quantization.py):
- it starts from the trained float weights, with ranges of activations already observed;
- a tenth of the original epochs, at 1 % of the original learning rate, falling along a cosine;
- ranges of weights are those of the weights as they are, ranges of activations moving averages;
- convolutions are quantized with their batch-norms folded into them, by the running statistics;
- in the end the statistics of batch-norms are frozen, and then, for the values that these give,
  the ranges.

    [variants.int8_qat]
    scheme      = "int8_qat"
    granularity = "per_channel"
    epochs      = 6
    rate        = 0.001

What was learnt (weights, statistics and ranges) is carried over into the program that was exported
for inference, and integers are put into that: it has the operators of `int8_static`, one for one.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from toolchain import pt2e, training
from toolchain.errors import UserError
from toolchain.material import Material, Quantized, Training
from toolchain.recurrent import recurrent
from toolchain.selection import Selection, module_of

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

    from toolchain.backends import Backend

NEEDS = "training"
USES = frozenset({"training"})

EPOCHS, RATE = 0.1, 0.01  # of those of the original training
FIRST_BATCHES = 10  # that ranges of activations are observed on before training
LEAST_FACTOR = 1e-6  # of a batch-norm's channel that is switched off by 0
TRAINING = 5  # position of the flag of a batch-norm

Share = Annotated[float, Field(ge=0, le=1)]


class Options(Selection):
    """granularity of the weights: one scale for each output channel, or one for the whole tensor.
    epochs: of further training; a tenth of [training].epochs unless given.
    rate: the learning rate at the start; 1 % of [training].rate unless given.
    freeze_batch_norm: the share of the training after which statistics of batch-norms stay.
    freeze_observers: the same of the ranges of weights and activations.
    skip, only: see `toolchain.selection`; a ReLU goes with the convolution before it.
    """

    granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    epochs: PositiveInt | None = None
    rate: PositiveFloat | None = None
    freeze_batch_norm: Share = 0.8
    freeze_observers: Share = 0.9


def quantize(
    model: ExportedProgram, options: Options, backend: Backend, material: Material
) -> Quantized:
    """`model` with int8 weights and activations, trained further in this form."""
    given = material.training
    if given is None:
        raise UserError("int8_qat was given nothing to train with")
    if found := recurrent(given.model):
        raise UserError(
            f"int8_qat does not train recurrent layers: {', '.join(found)}",
            hint="rounding at each time step would train for hours; int8_dynamic suits them",
        )
    epochs = options.epochs or max(1, round(EPOCHS * given.settings.epochs))
    rate = options.rate or RATE * given.settings.rate
    module = prepared(backend.prepare(given.model), options, backend)
    observe(module, given)
    history = training.train(module, given, epochs, rate, freezing(module, options))
    notes = {
        "samples": len(given.labels),
        "batch": training.batch_size(given),
        "epochs": epochs,
        "rate": rate,
        "momentum": training.MOMENTUM,
        "freeze_batch_norm": options.freeze_batch_norm,
        "freeze_observers": options.freeze_observers,
        "history": history,
    }
    return Quantized(carried_over(module, model, options, backend), notes)


def prepared(program: ExportedProgram, options: Options, backend: Backend) -> GraphModule:
    """The module to train, with fake quantization of its weights and activations."""
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    module: GraphModule = copy.deepcopy(program.module(check_guards=False))
    options.check(module.graph.nodes)
    constants = {_target(norm.args[3]): norm.args[6:8] for norm in batch_norms(module)}
    quantizer = backend.quantizer(
        activations="static",
        granularity=options.granularity,
        takes=lambda node: options.takes(fused_into(node)),
        training=True,
    )
    module = prepare_qat_pt2e(module, quantizer)
    for norm in batch_norms(module):
        _set_constants(norm, *constants[_target(norm.args[3])])
        if convolution_of(norm) and norm.args[1]:
            _without_zeros(module.get_parameter(_target(norm.args[1])))
    module.recompile()
    exact = {observer: _exact(observer) for _, observer in _observers(module)}
    for name, observer in _observers(module):
        module.set_submodule(name, exact[observer])
    constant = _constants(module)
    for node in _observations(module):
        if node.args[0] in constant:  # weights are known at each step: nothing to average
            _observer(module, node).activation_post_process.averaging_constant = 1.0
    return module


def observe(module: GraphModule, given: Training) -> None:
    """Fill the ranges: the means over a few batches of the model as at inference, not rounded."""
    import torch

    modes = {node: flag for node in module.graph.nodes if (flag := _training_flag(node))}
    observers = {observer for _, observer in _observers(module)}
    averaging = {o: o.activation_post_process.averaging_constant for o in observers}
    torch.manual_seed(given.settings.seed)
    _switch(module, modes, False)
    for observer in observers:
        observer.disable_fake_quant()
    with torch.no_grad():
        for k, (inputs, _) in enumerate(islice(training.batches(given), FIRST_BATCHES), 1):
            for observer in observers:
                observer.activation_post_process.averaging_constant = 1 / k
            module(*inputs)
    for observer in observers:
        observer.activation_post_process.averaging_constant = averaging[observer]
        observer.enable_fake_quant()
    _switch(module, modes, True)


def freezing(module: GraphModule, options: Options) -> Callable[[float], None]:
    """What ends the updates of statistics and of ranges, told the share of the training done."""

    def freeze_batch_norm() -> None:
        _switch(module, dict.fromkeys(batch_norms(module), TRAINING), False)

    def freeze_observers() -> None:
        for _, observer in _observers(module):
            observer.disable_observer()

    due = [
        (options.freeze_batch_norm, freeze_batch_norm),
        (options.freeze_observers, freeze_observers),
    ]

    def freeze(done: float) -> None:
        for action in [action for action in due if done >= action[0]]:
            due.remove(action)
            action[1]()

    return freeze


def carried_over(
    trained: GraphModule, model: ExportedProgram, options: Options, backend: Backend
) -> ExportedProgram:
    """`model` with the weights and the ranges of `trained`, as integers."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    module = model.module(check_guards=False)
    learnt = trained.state_dict()
    used = {node.target for node in module.graph.nodes if node.op == "get_attr" and node.users}
    if unknown := sorted(name for name in module.state_dict().keys() & used if name not in learnt):
        raise UserError(
            f"the model in training has no {', '.join(unknown)}",
            where="int8_qat",
            hint="its forward has to use the same parameters in training",
        )
    # Assigned, not copied: the module's tensors are those of `model`.
    own = {name: learnt[name] for name in module.state_dict() if name in learnt}
    module.load_state_dict(own, strict=False, assign=True)
    quantizer = backend.quantizer(
        activations="static",
        granularity=options.granularity,
        takes=lambda node: options.takes(fused_into(node)),
    )
    with torch.no_grad():
        module = prepare_pt2e(module, quantizer)  # folds batch-norms
        ranges = _placed(trained)
        for place, observed in _placed(module).items():
            if place not in ranges:
                raise UserError(
                    f"the model in training has no range for {place}",
                    where="int8_qat",
                    hint="does its forward do something else in training? Then leave that out: "
                    "skip = [...]",
                )
            module.set_submodule(str(observed.target), _observer(trained, ranges[place]))
        return pt2e.exported(convert_pt2e(module), model)


def batch_norms(module: GraphModule) -> list[Node]:
    """Nodes with (input, weight, bias, mean, variance, training, momentum, epsilon, cudnn).

    Only those that keep statistics.
    """
    return [
        node
        for node in module.graph.nodes
        if str(node.target) == "aten.batch_norm.default" and all(node.args[3:5])
    ]


def fused_into(node: Node) -> Node:
    """The convolution that a ReLU is computed with, where quantizers in training do not ask for it
    by itself; other nodes as they are."""
    if not str(node.target).startswith("aten.relu"):
        return node
    before: Any = node.args[0]
    before = convolution_of(before) or before
    return before if "conv" in str(before.target) else node


def convolution_of(node: Node) -> Node | None:
    """The convolution that a batch-norm is folded into; None for other nodes.

    What torchao puts between them in training, a quotient and a bias, is passed over.
    """
    if str(node.target) != "aten.batch_norm.default":
        return None
    before: Any = node.args[0]
    while str(before.target) in ("aten.div.Tensor", "aten.add.Tensor") and len(before.users) == 1:
        before = before.args[0]
    return before if "conv" in str(before.target) else None


def _target(attribute: Any) -> str:
    """Name of the parameter or buffer that a node gets."""
    return str(attribute.target)


def _set_constants(norm: Node, momentum: Any, epsilon: Any) -> None:
    """Give a batch-norm its own constants back: torchao puts torch's default ones in their place,
    here and where it folds the batch-norm into the weights."""
    norm.args = (*norm.args[:6], momentum, epsilon, *norm.args[8:])
    for user in list(norm.args[4].users):  # type: ignore[union-attr]
        if str(user.target) == "aten.add.Tensor":
            user.args = (user.args[0], epsilon)


def _without_zeros(factors: torch.Tensor) -> None:
    """In training, what a convolution gives is divided by the factors of its batch-norm."""
    import torch

    with torch.no_grad():
        factors[factors == 0] = LEAST_FACTOR


def _exact(observer: Any) -> Any:
    """A fake quantizer whose scale is that of the integers in the end.

    torch's fused kernel, which the quantizers take, computes it otherwise: 0.4 % smaller where a
    symmetric range ends at its negative extreme, and without its least value.
    """
    from torchao.quantization.pt2e import FakeQuantize

    return FakeQuantize(observer=lambda **_: observer.activation_post_process)


def _observers(module: GraphModule) -> list[tuple[str, Any]]:
    """Fake quantizers by name; one that several values share has several names."""
    from torchao.quantization.pt2e import FakeQuantizeBase

    named = module.named_modules(remove_duplicate=False)
    return [(name, found) for name, found in named if isinstance(found, FakeQuantizeBase)]


def _observer(module: GraphModule, node: Node) -> Any:
    return module.get_submodule(str(node.target))


def _observations(module: GraphModule) -> list[Node]:
    """Calls of observers and fake quantizers."""
    return [node for node in module.graph.nodes if node.op == "call_module"]


def _constants(module: GraphModule) -> set[Node]:
    """Nodes that depend on parameters and buffers only."""
    found: set[Node] = set()
    for node in module.graph.nodes:
        before = node.all_input_nodes
        if node.op == "get_attr" or (before and found.issuperset(before)):
            found.add(node)
    return found


def _placed(module: GraphModule) -> dict[str, Node]:
    """Calls of observers by what they observe, in words that are the same in both modes."""
    constant = _constants(module)
    found: dict[str, Node] = {}
    seen: Counter[str] = Counter()
    for node in _observations(module):
        source: Any = node.args[0]
        if source in constant:
            while source.op != "get_attr":  # a weight times the factors of its batch-norm
                source = source.args[0]
            place = f"'{source.target}'"
        elif source.op == "placeholder":
            place = f"the input '{source.target}'"
        else:
            source = convolution_of(source) or source
            place = f"{source.target} in '{module_of(source)}'"
        seen[place] += 1
        found[place if seen[place] == 1 else f"{place}, number {seen[place]}"] = node
    return found


def _training_flag(node: Node) -> int | None:
    """Position of the argument by which a node behaves as in training; None if it does not."""
    schema = getattr(node.target, "_schema", None)
    for position, argument in enumerate(schema.arguments if schema else ()):
        if argument.name in ("train", "training") and node.args[position : position + 1] == (True,):
            return position
    return None


def _switch(module: GraphModule, flags: Mapping[Node, int], value: bool) -> None:
    """Set the flags at these positions, and make it the module's code."""
    for node, position in flags.items():
        node.args = (*node.args[:position], value, *node.args[position + 1 :])
    module.recompile()
