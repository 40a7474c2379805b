"""Weights of seven bits, for CPUs on which sums of integer products saturate.

Without VNNI, an x86 CPU adds two products u8 s8 in 16 bits, and what is more than 32767 is lost:
255 (127 + 127) would be, 255 (64 + 64) is not.
https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import GraphModule

REMARK = "weights of 7 bits: the target's floor has no VNNI"
LEAST, MOST = -64, 64  # what half of an int8 weight may be


def halve(module: GraphModule, dequantizes: Iterable[Any]) -> None:
    """Let the dequantize nodes of int8 weights compute w S as round(w / 2) 2S.

    Steps of an unrolled layer share their weights, and so the halves.
    """
    import torch

    halved: dict[str, str] = {}
    for dequantize in dict.fromkeys(dequantizes):
        integers, scale, *middle, _, _, dtype = dequantize.args
        name = str(integers.target)
        if name not in halved:
            value = attrgetter(name)(module)
            halved[name] = f"_{dequantize.name}_halved"
            # Halves are rounded to even, so that their errors cancel out.
            module.register_buffer(halved[name], (value.float() / 2).round().to(torch.int8))
        with dequantize.graph.inserting_before(dequantize):
            half = dequantize.graph.get_attr(halved[name])
            if isinstance(scale, float):  # one for the tensor
                doubled: Any = 2 * scale
            else:
                scales = f"_{dequantize.name}_scales"
                module.register_buffer(scales, attrgetter(str(scale.target))(module) * 2)
                doubled = dequantize.graph.get_attr(scales)
        dequantize.args = (half, doubled, *middle, LEAST, MOST, dtype)
