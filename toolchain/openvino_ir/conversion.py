"""From PT2E's form of a quantized program to OpenVINO's.

    PT2E                                     OpenVINO
    quantize, dequantize of an activation    FakeQuantize, from which its passes infer integers
    dequantize of a constant                 Constant i8 - Convert - Subtract - Multiply

FakeQuantize computes x -> round((x - low) / (high - low) (levels - 1)) / (levels - 1) (high - low)
+ low between low and high, which are the least and the greatest number that the integers stand for:
https://docs.openvino.ai/2025/documentation/openvino-ir-format/operation-sets/operation-specs/quantization/fake-quantize-1.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.errors import UserError
from toolchain.openvino_ir.library import openvino

if TYPE_CHECKING:
    from torch.export import ExportedProgram

QUANTIZED = "quantized_decomposed"
OPTION = ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"]  # of the program itself
GROUP = 32  # neighbors in a row of activations that share a scale; 0: they stay float
# Operators that give numbers on as they are.
MOVES = frozenset(
    {
        "Broadcast",
        "Concat",
        "MaxPool",
        "Reshape",
        "Slice",
        "Squeeze",
        "StridedSlice",
        "Transpose",
        "Unsqueeze",
    }
)
LINES = 12  # of what OpenVINO says when it fails


def converted(program: ExportedProgram, dynamic: bool = False) -> Any:
    """The program as an `openvino.Model`, its inputs and outputs in the program's order.

    dynamic: whether linear layers with integer weights round their inputs as they come. OpenVINO
    does unless a model says otherwise.
    """
    ov = openvino()
    from openvino.frontend.pytorch import ConversionExtension

    extensions = [
        ConversionExtension(f"{QUANTIZED}.{name}.default", function)
        for name, function in (
            ("quantize_per_tensor", _rounded),
            ("dequantize_per_tensor", _restored),
            ("dequantize_per_channel", _restored_by_channel),
        )
    ]
    inputs = set(program.graph_signature.user_inputs)
    shapes = [
        list(node.meta["val"].shape)
        for node in program.graph.find_nodes(op="placeholder")
        if node.name in inputs
    ]
    try:
        model = ov.convert_model(program, extension=extensions)
    except ov.frontend.OpConversionFailure as error:
        said = [line for line in str(error).splitlines() if line.strip()][:LINES]
        raise UserError(
            "OpenVINO cannot take an operator of the model:\n    " + "\n    ".join(said),
            where="lower",
            hint="write the model without it",
        ) from None
    model.reshape({number: ov.PartialShape(shape) for number, shape in enumerate(shapes)})
    _round_once(model)
    model.set_rt_info(str(GROUP if dynamic else 0), OPTION)
    return model


def _round_once(model: Any) -> None:
    """Take out what rounds numbers again that were rounded so before, and only moved since."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and _has_limits(node.input_value(0), node):
            node.output(0).replace(node.input_value(0))


def _has_limits(value: Any, like: Any) -> bool:
    """Whether a value was rounded between the same limits as `like` does."""
    node = value.get_node()
    if node.get_type_name() == "FakeQuantize":
        return all(
            float(a.get_node().data.item()) == float(b.get_node().data.item())
            for a, b in zip(node.input_values()[1:], like.input_values()[1:], strict=True)
        )
    sources = [v for v in node.input_values() if v.get_element_type() == value.get_element_type()]
    return (
        node.get_type_name() in MOVES
        and bool(sources)
        and all(_has_limits(source, like) for source in sources)
    )


def _rounded(context: Any) -> Any:
    """quantize_per_tensor(input, scale, zero_point, low, high, dtype), in float."""
    from openvino import opset13 as ops

    scale, zero, low, high = (context.get_values_from_const_input(k) for k in range(1, 5))
    least, greatest = (
        ops.constant([(bound - zero) * scale], dtype="float32") for bound in (low, high)
    )
    source = context.get_input(0)
    return ops.fake_quantize(source, least, greatest, least, greatest, high - low + 1).outputs()


def _restored(context: Any) -> Any:
    """dequantize_per_tensor(input, scale, zero_point, low, high, dtype)."""
    source = context.get_input(0)
    if source.get_node().get_type_name() != "Constant":
        return [source]
    scale, zero = (context.get_values_from_const_input(k) for k in (1, 2))
    return _real(source, scale, zero)


def _restored_by_channel(context: Any) -> Any:
    """dequantize_per_channel(input, scales, zero_points, axis, low, high, dtype) of a constant."""
    source = context.get_input(0)
    axis = context.get_values_from_const_input(3)
    shape = [1] * source.get_partial_shape().rank.get_length()
    shape[axis] = -1
    scale, zero = (context.get_input(k).get_node().data.reshape(shape) for k in (1, 2))
    return _real(source, scale, zero)


def _real(integers: Any, scale: Any, zero: Any) -> Any:
    """(integers - zero) * scale, in the form that is recognized as a quantized constant."""
    import numpy as np
    from openvino import opset13 as ops

    value = ops.convert(integers, "f32")
    if np.any(zero):
        value = ops.subtract(value, ops.constant(np.asarray(zero, np.float32)))
    return ops.multiply(value, ops.constant(np.asarray(scale, np.float32))).outputs()
