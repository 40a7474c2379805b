"""Where a history is: a URL, or the path of an SQLite file. Passwords are never shown.

history.sqlite                                SQLite: one host, any number of processes
sqlite:////srv/slipway/history.sqlite         the same, as a URL
postgresql://farm@db.example/slipway          PostgreSQL: a farm of several hosts
"""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from toolchain.errors import UserError

DEFAULT = "history.sqlite"
FORMS = "give the path of an SQLite file, or postgresql://USER@HOST/DATABASE"
_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_SECRET = re.compile(r"pass|secret|token", re.I)


def parse(text: str) -> URL:
    """The URL of a history, with its driver; UserError if it is none."""
    if not text.strip():
        raise UserError("is empty", where="history", hint=FORMS)
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError
        raise UserError("is not a URL of a database", where=hidden(text), hint=FORMS) from None
    if url.drivername not in _DRIVERS:
        raise UserError(
            f"a history cannot be kept by '{url.drivername}'", where=hidden(text), hint=FORMS
        )
    url = url.set(drivername=_DRIVERS[url.drivername])
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise UserError("a history needs a file", where=shown(url), hint=FORMS)
    return url


def shown(url: URL) -> str:
    """The URL for people, logs and error messages."""
    secrets = [name for name in url.query if _SECRET.search(name)]
    return url.difference_update_query(secrets).render_as_string(hide_password=True)


def hidden(text: str) -> str:
    """Any text, with what may be a password in a URL replaced by `***`."""
    text = re.sub(r"(\w://[^\s/:@]*):[^\s/]*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:pass|secret|token)[^=&\s]*)=[^&\s]*", r"\1=***", text)


def file_of(url: URL) -> Path | None:
    """The file of an SQLite history, if it is a plain one."""
    if url.drivername != "sqlite" or (url.database or "").startswith("file:"):
        return None
    return Path(str(url.database))
