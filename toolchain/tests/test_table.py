"""The table of all programs, and its place in the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain import readme
from toolchain.errors import UserError
from toolchain.steps import table
from toolchain.tests.test_verdicts import row

README = Path(__file__).parents[2] / "README.md"


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_ratios_are_to_the_float_program_of_the_same_recipe_and_device():
    rows = [
        row(variant="float", scheme="float", model_bytes=4_000_000, instructions_per_inference=200),
        row(model_bytes=1_000_000, instructions_per_inference=300),
        row(recipe="other", model_bytes=1_000_000),
    ]
    header, _, *lines = cells(table.markdown(rows))
    found = [dict(zip(header[3:5], line[3:5], strict=True)) for line in lines]
    assert found == [
        {"program": "4.00 MB", "of float": "100.0%"},
        {"program": "1.00 MB", "of float": "25.0%"},
        {"program": "1.00 MB", "of float": "-"},
    ]
    assert [line[-2] for line in lines] == ["100.0%", "150.0%", "-"]
    assert lines[1][6:10] == ["0.9750", "+0.0050", "30.5 dB", "8"], "the host's, over all samples"


def test_a_program_that_was_not_measured_has_a_row():
    broken = row(host=None, instructions_per_inference=None, verdict="infra-error")
    lines = cells(table.markdown([row(variant="float", scheme="float"), broken]))[2:]
    assert lines[1][6:] == ["-"] * 6 + ["infra-error"]


def test_columns_that_tell_nothing_are_left_out():
    latency = {"p50": 2.0, "p90": 2.0, "p99": 2.0, "count": 8}
    board, server = row(), row(backend="openvino", latency_ms=latency)
    assert not {"p50", "backend"} & set(cells(table.markdown([board]))[0])
    header, _, _, line = cells(table.markdown([board, server]))
    assert line[header.index("backend")] == "openvino"
    assert line[header.index("p50")] == "2.000 ms"


def test_only_what_stands_between_the_markers_is_replaced():
    begin, end = (mark.format(name="t.md") for mark in (readme.BEGIN, readme.END))
    document = f"above\n{begin}\nold\n{end}\nbelow\n"
    assert readme.replaced(document, "t.md", "new\n") == f"above\n{begin}\n\nnew\n\n{end}\nbelow\n"
    with pytest.raises(UserError, match=r"holds no line .*u\.md"):
        readme.replaced(document, "u.md", "new")


def test_the_readme_has_the_place():
    assert readme.replaced(README.read_text(), "table.md", "x") != README.read_text()
