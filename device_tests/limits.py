"""How a check compares a figure with its limit."""

import pytest


def needed(limit, figure, what: str):
    """Skip without a limit (it is listed as unchecked); undecided when the figure is missing."""
    if limit is None:
        pytest.skip(f"{what}: no limit in the recipe")
    if figure is None:
        pytest.xfail(f"{what}: the recipe sets a limit, but the device gave no figure")


def at_most(figure, limit, what: str, unit: str = ""):
    needed(limit, figure, what)
    assert figure <= limit, f"{what} is {figure:,}{unit}, over the limit of {limit:,}{unit}"


def at_least(figure, limit, what: str, unit: str = ""):
    needed(limit, figure, what)
    assert figure >= limit, f"{what} is {figure:,}{unit}, under the limit of {limit:,}{unit}"
