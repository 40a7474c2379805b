"""What a person may write behind `scripts/benchmark`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from toolchain import words
from toolchain.errors import UserError, nearest
from toolchain.schema import Frozen

HELP = """
Slipway's programs against other runtimes: same models, same host, interleaved rounds.

  ./scripts/benchmark                              MobileNetV2 and MiniLM
  ./scripts/benchmark recipe=minilm threads=2

  recipe=NAME[,NAME]     of recipes/ (default: mobilenet_v2,minilm)
  variant=NAME[,NAME]    besides those that are built anyway, those built by name
  target=NAME            that Slipway's are built for (default: x86_64_v4, or x86_64 on older CPUs)
  rounds=8               turns that each contender takes
  samples=1024           inferences of each contender, over all rounds
  threads=1              of each contender, on as many CPUs, the last ones
  profile=1              also print where the fastest ones spend their time
  build=PATH             where Slipway's programs are built (default: build)
  out=PATH               where the result goes (default: <build>/benchmark)
"""
DEFAULT = "mobilenet_v2,minilm"
COUNTS = {"rounds": 8, "samples": 1024, "threads": 1}


class Options(Frozen):
    """The options of one call, decoded."""

    recipe: tuple[str, ...]
    variant: tuple[str, ...]
    target: str | None
    rounds: int
    samples: int
    threads: int
    profile: bool
    build: Path
    out: Path


def read(said: Sequence[str], recipes: Iterable[str]) -> Options:
    """Decode `name=value` words; UserError for the first that is wrong."""
    given = words.pairs(said, Options.model_fields, "./scripts/benchmark")
    asked = words.names(given.get("recipe", DEFAULT))
    known = sorted(recipes)
    for name in asked:
        if name not in known:
            raise UserError(f"unknown recipe '{name}'", where="recipe=", hint=nearest(name, known))
    counts = {name: _count(name, given.get(name, str(least))) for name, least in COUNTS.items()}
    cpus = len(os.sched_getaffinity(0))
    if counts["threads"] > cpus:
        raise UserError(f"there are {cpus} CPUs", where=f"threads={counts['threads']}")
    if counts["samples"] < counts["rounds"]:
        raise UserError(
            f"{counts['samples']} samples do not fill {counts['rounds']} rounds", where="samples="
        )
    if given.get("profile", "0") not in ("0", "1"):
        raise UserError(f"'{given['profile']}' is neither 0 nor 1", where="profile=")
    build = _path(given.get("build", "build"), given="build" in given)
    return Options(
        recipe=asked,
        variant=words.names(given["variant"]) if "variant" in given else (),
        target=given.get("target"),
        profile=given.get("profile") == "1",
        build=build,
        out=_path(given["out"], given=True) if "out" in given else build / "benchmark",
        **counts,
    )


def _count(name: str, text: str) -> int:
    if not text.isdecimal() or not (count := int(text)):
        raise UserError(
            f"'{text}' is no whole number from 1 on",
            where=f"{name}=",
            hint=f"{name}={COUNTS[name]}",
        )
    return count


def _path(text: str, *, given: bool) -> Path:
    return words.path(text, given=given).absolute()
