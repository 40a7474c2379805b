"""Names and folders of runs, and which one a call goes on with."""

from __future__ import annotations

import datetime
import platform
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from toolchain.errors import UserError, nearest
from toolchain.nightly.options import Options

COMPLETE = "complete"


class Run(Protocol):
    """A run of the history."""

    @property
    def id(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def facts(self) -> Mapping[str, str]: ...


def folder(build: Path, run: str) -> Path:
    return build / "nightly" / run


def chosen(asked: Options, known: Sequence[Run], bundles: str) -> str:
    """A new name, or that of the run to go on with; UserError if there is none such.

    known: the oldest first. bundles: digest of what is measured, the same throughout a run.
    """
    if asked.run is None and not asked.resume:
        now = datetime.datetime.now(datetime.UTC)
        return f"{now:%Y-%m-%dT%H-%M-%SZ}-{secrets.token_hex(2)}"
    if asked.run is not None:
        where, found = f"run={asked.run}", [one for one in known if one.id == asked.run]
        if not found:
            names = [one.id for one in known]
            raise UserError("there is no such run", where=where, hint=nearest(asked.run, names))
        if found[-1].facts.get("options") != asked.same():
            words = found[-1].facts.get("options")
            raise UserError("had other options", where=where, hint=f"they were: {words}")
    else:
        where = "resume=1"
        found = [
            one
            for one in known
            if one.state != COMPLETE
            and one.facts.get("options") == asked.same()
            and one.facts.get("host") == platform.node()  # another's may be at work on it
        ]
        if not found:
            hint = "leave resume=1 out: a new run begins"
            raise UserError("no run with these options was stopped", where=where, hint=hint)
    if found[-1].facts.get("bundles") != bundles:
        raise UserError(
            f"the run {found[-1].id} measured other bundles than those that are built now",
            where=where,
            hint="begin a new one: the figures of two products do not mix",
        )
    return found[-1].id
