"""Operators' times as the runner writes them with --profile, for runtimes without a form of theirs.

{"schema": 1, "operators": [{"name": …, "type": …, "calls": …, "ns": …}, …]}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolchain.errors import UserError
from toolchain.schema import shown

KEYS = ("name", "type", "calls", "ns")


def read(file: Path) -> list[dict[str, Any]]:
    """The operators, the slowest first; UserError if the file holds none."""
    try:
        rows = json.loads(file.read_bytes())["operators"]
        found = [{key: row[key] for key in KEYS} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"is no profile of the runner: {error}", where=shown(file)) from None
    return sorted(found, key=lambda row: (-row["ns"], row["name"]))
