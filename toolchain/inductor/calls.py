"""What a compiled program calls: its own kernels, oneDNN's, and those of ATen that it fell back to.

Read from the C++ that Inductor generated for one inference, and not from a graph before it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

SCHEMA = 1
# Calls of the C interface by which programs reach libtorch. Those without a device in their name
# allocate tensors and look at them.
CALL = re.compile(r"\baoti_torch_cpu_(\w+)\(")
# An operator without an entry there, by way of the dispatcher or of a table beside the program.
OTHER = re.compile(
    r'aoti_torch_call_dispatcher\("([\w:]+)", "(\w*)"|proxy_executor_call_function\('
)
COMPILED = re.compile(r"^\s*(cpp_\w+)\(", re.MULTILINE)
BODY = re.compile(r"^void \w+::run_impl\(.*?^}", re.MULTILINE | re.DOTALL)
INTEGER = ("_qconv", "_qlinear")  # of oneDNN, on integers
ONEDNN = (*INTEGER, "mkldnn_", "_mkl_linear")


@dataclass(frozen=True)
class Calls:
    """Calls of one inference by name. compiled: loops that Inductor generated."""

    compiled: Counter[str]
    onednn: Counter[str]
    aten: Counter[str]

    @property
    def integer(self) -> int:
        """Convolutions and linear layers that oneDNN computes on integers."""
        return sum(n for name, n in self.onednn.items() if name.startswith(INTEGER))


def found(wrapper: str) -> Calls:
    """The calls in the generated C++ of a program."""
    match = BODY.search(wrapper)
    assert match, "Inductor writes one inference as AOTInductorModel::run_impl"
    body = match[0]
    library = Counter(match[1] for match in CALL.finditer(body))
    onednn = Counter({name: n for name, n in library.items() if name.startswith(ONEDNN)})
    aten = Counter({f"aten::{name}": n for name, n in (library - onednn).items()})
    for other in OTHER.finditer(body):
        aten[f"{other[1]}.{other[2]}".rstrip(".") if other[1] else "an operator of its own"] += 1
    return Calls(Counter(m[1] for m in COMPILED.finditer(body)), onednn, aten)


def report(calls: Calls, wanted: int, *, weight_bits: int) -> dict[str, Any]:
    """The report of `lower`. wanted: operators with weights that are integers in the given program.

    weight_bits: of these weights, as they are computed with.

    Delegated are generated loops and oneDNN's kernels; undelegated are ATen's, and operators that
    were to compute on integers and do not.
    """
    undelegated = dict(calls.aten)
    if wanted > calls.integer:
        undelegated["on integers in the program, in float here"] = wanted - calls.integer
    delegated = calls.compiled.total() + calls.onednn.total()
    total = delegated + sum(undelegated.values())
    return {
        "schema": SCHEMA,
        "operators": {"delegated": delegated, "undelegated": dict(sorted(undelegated.items()))},
        "delegates": 1,
        "delegated_share": delegated / total if total else 0.0,
        "integer": {"wanted": wanted, "computed": calls.integer, "weight_bits": weight_bits},
        "kernels": {
            "compiled": calls.compiled.total(),
            "onednn": dict(sorted(calls.onednn.items())),
        },
    }
