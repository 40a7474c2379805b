"""Quantize an exported program by a scheme, and report which operators it reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import backends, programs, schemes
from toolchain.atomic import write_bytes, write_json
from toolchain.errors import UserError
from toolchain.schema import Variant, decode_json, shown
from toolchain.steps.main import step

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

SCHEMA = 1
NONE = Path()  # no calibration data


def run(
    *,
    model: Path,
    variant: Path,
    backend: str,
    out: Path,
    report: Path,
    calibration: Path = NONE,
) -> None:
    """Write the program quantized as `variant` says, and what was and was not quantized."""
    programs.prepare_torch()
    wanted = decode_json(Variant, variant)
    scheme, lowering = schemes.load(wanted.scheme), backends.load(backend)
    if scheme.NEEDS_CALIBRATION and calibration == NONE:
        raise UserError(f"the scheme '{wanted.scheme}' needs calibration data", where="calibration")
    samples = programs.samples(calibration) if scheme.NEEDS_CALIBRATION else []
    options = scheme.Options.model_validate(wanted.options)
    quantized = scheme.quantize(programs.from_file(model), options, lowering, samples)
    able = lowering.quantizable() if scheme.NEEDS else frozenset()
    done, left = reached(quantized, able)
    if scheme.NEEDS and not done:
        raise UserError(
            f"the scheme '{wanted.scheme}' found nothing to quantize in {shown(model)}",
            hint=f"{backend} quantizes: {', '.join(sorted(able))}",
        )
    write_bytes(out, programs.to_bytes(quantized))
    write_json(
        report,
        {
            "schema": SCHEMA,
            "scheme": wanted.scheme,
            "options": options.model_dump(mode="json"),
            "calibration_samples": len(samples),
            "quantized": done,
            "not_quantized": left,
        },
    )


def reached(
    program: ExportedProgram, quantizable: frozenset[str]
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Operators on real numbers: those that compute in integers, and the others, with why.

    In PT2E's form of a quantized graph, an operator computes in integers if the numbers that it
    takes come out of dequantize nodes and the backend has a pattern for it, or it only moves them
    (flatten); or if they come out of an operator that it is fused with (relu after conv2d, which
    nothing else reads). quantizable: empty for a scheme that quantizes nothing.
    """
    done: list[dict[str, str]] = []
    left: list[dict[str, str]] = []
    integer: set[Node] = set()
    for node in program.graph.nodes:
        if node.op != "call_function" or _is_format(node) or not _is_float(node):
            continue
        operator = str(node.target)
        has_pattern = ".".join(operator.split(".")[:2]) in quantizable
        taken = [n for n in node.all_input_nodes if n.op == "call_function" and _is_float(n)]
        row = {"operator": operator, "module": _module(node)}
        if taken and all(
            (has_pattern or _keeps_format(source, node))
            if _is_format(source)
            else source in integer and len(source.users) == 1
            for source in taken
        ):
            integer.add(node)
            done.append(row)
            continue
        if not quantizable:
            why = "the scheme keeps float"
        elif not has_pattern:
            why = "the backend's quantizer has no pattern for it"
        else:
            why = "the quantizer left it out"
        left.append(row | {"why": why})
    return done, left


def _is_format(node: Node) -> bool:
    """Whether a node only changes how numbers are written: quantize, dequantize."""
    return "quantized_decomposed" in str(node.target)


def _keeps_format(dequantize: Node, node: Node) -> bool:
    """Whether a node gives its numbers on with the scale and zero point that they came with."""
    return any(_is_format(u) and u.args[1:3] == dequantize.args[1:3] for u in node.users)


def _is_float(node: Node) -> bool:
    value: Any = node.meta.get("val")
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return bool(getattr(getattr(first, "dtype", None), "is_floating_point", False))


def _module(node: Node) -> str:
    """The submodule of the recipe's model that a node belongs to, such as `features.3.conv.0`."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


if __name__ == "__main__":
    step(run)
