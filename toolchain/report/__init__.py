"""The report: one HTML file that needs nothing but itself, of a night of the farm or of a build.

    report.write(history, run, Path("build/report.html"))
    report.write_build(Path("build/summary.json"), Path("build/report.html"))

Its parts, in the way of the data:

    from_history, from_build   what is known, and of the runs before  → Material
    attention, devices         what to look at first; what broke where
    figures, provenance        a row as a person reads it; what changed since the last pass
    charts, trends, pictured   what is drawn;  inline: as SVG in the page's own colors
    page, templates/           the page
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolchain.history import History


def write(history: History, run: str, out: Path, left_out: Sequence[str] = ()) -> None:
    """A page of `run` with the runs before it; UserError if the history has no such run.

    left_out: what was not built, and why.
    """
    from toolchain.atomic import write_bytes
    from toolchain.report import from_history, page

    write_bytes(out, page.render(from_history.gather(history, run, left_out)).encode())


def write_build(summary: Path, out: Path) -> None:
    """A page of one build, from its summary.json and what stands beside it; UserError if odd."""
    from toolchain.atomic import write_bytes
    from toolchain.report import from_build, page

    write_bytes(out, page.render(from_build.gather(summary)).encode())
