"""Which parts of a model a scheme quantizes: the options `skip` and `only`, by name or by type.

    skip = ["classifier", "features.1[0-4].*"]     all but these
    only = ["Linear"]                              only these

A pattern is matched, as a shell would, against the names of the modules that an operator stands in
(`features.3.conv.0`, and `features.3.conv` and `features.3` around it) and against their types
(`Conv2d`, `InvertedResidual`). Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from toolchain import schema
from toolchain.errors import UserError, nearest

MARKS = re.compile(r"[*?\[]")


class Selection(schema.Frozen):
    """The options that schemes share."""

    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def takes(self, node: Any) -> bool:
        """Whether an fx node is to be quantized; nodes that compute nothing are not asked about."""
        return node.op != "call_function" or self.left_out(node) is None

    def left_out(self, node: Any) -> str | None:
        """Why the selection leaves an operator in float: `skip = 'head'`; None if it does not."""
        around = surroundings(node)
        for pattern in self.skip:
            if _matches(pattern, around):
                return f"skip = '{pattern}'"
        if self.only and not any(_matches(pattern, around) for pattern in self.only):
            return "not in 'only'"
        return None

    def check(self, nodes: Iterable[Any]) -> None:
        """Refuse a pattern that matches nothing in the model: it is a slip of the pen."""
        known = [surroundings(node) for node in nodes if node.op == "call_function"]
        words = sorted({word for around in known for word in around if word})
        for key in ("skip", "only"):
            for pattern in getattr(self, key):
                if not any(_matches(pattern, around) for around in known):
                    raise UserError(
                        f"'{pattern}' matches no module of the model, by name or by type",
                        where=key,
                        hint=nearest(pattern, words),
                    )


def surroundings(node: Any) -> tuple[str, ...]:
    """Names and types of the recipe's modules around an fx node, the outermost first."""
    words: list[str] = []
    for name, kind in node.meta.get("nn_module_stack", {}).values():
        text = kind if isinstance(kind, str) else kind.__qualname__
        words += [str(name), text.rpartition(".")[2]]
    return tuple(words)


def module_of(node: Any) -> str:
    """The submodule of the recipe's model that a node belongs to, such as `features.3.conv.0`."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def _matches(pattern: str, words: Sequence[str]) -> bool:
    if not MARKS.search(pattern):
        return pattern in words
    return any(fnmatchcase(word, pattern) for word in words)
