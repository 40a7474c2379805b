"""The history: written once, asked often."""

from __future__ import annotations

from toolchain.history.reading import Reading
from toolchain.history.writing import Writing


class History(Reading, Writing):
    """What was measured, when, where and with what. A context manager, for use by any thread.

    Opened by its address (see `addresses`); tables are made and migrated by themselves.
    create: make an SQLite file that is not there. Raises UserError if it cannot be opened.
    """
