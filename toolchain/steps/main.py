"""The main that all steps share.

A step is a function whose parameters are its command line:

    def run(*, program: Path, samples: int, out: Path) -> None: ...

    if __name__ == "__main__":
        step(run)

    python -m toolchain.steps.NAME --program=a.pte --samples=3 --out=b.json

`Path`, `str`, `int` and `list[Path]` (the option is repeated) are understood; a parameter with a
default may be left out.
"""

from __future__ import annotations

import argparse
import inspect
import os
import signal
import sys
import traceback
import typing
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from toolchain import errors, quiet
from toolchain.parent import end_with

NONE = Path()  # an input that a step can do without, and has not
INTERRUPTED = 128 + signal.SIGINT
PARENT = "SLIPWAY_PARENT"  # process number of the build that started this step


def step(run: Callable[..., None]) -> typing.NoReturn:
    """Parse the command line for `run`, call it, and exit."""
    of_a_build = PARENT in os.environ
    if of_a_build:
        end_with(int(os.environ[PARENT]))
    parser = argparse.ArgumentParser(prog=Path(sys.argv[0]).stem, description=run.__doc__)
    hints = typing.get_type_hints(run)
    for name, parameter in inspect.signature(run).parameters.items():
        many = hints[name] == list[Path]
        required = parameter.default is inspect.Parameter.empty
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=Path if many else hints[name],
            action="append" if many else "store",
            required=required and not many,
            default=([] if many else None) if required else parameter.default,
        )
    try:
        with errors.shown(), quiet.at_work() if of_a_build else nullcontext():
            run(**vars(parser.parse_args()))
    except OSError as error:  # a full disk, a folder that is not writable
        errors.show(errors.InfraError(f"this machine says: {error}"))
        raise SystemExit(errors.InfraError.exit_status) from None
    except Exception:  # noqa: BLE001 (a defect of ours; it must not count as a failed check)
        traceback.print_exc()
        errors.show(
            errors.InfraError("the lines above are a defect of Slipway: please report them")
        )
        raise SystemExit(errors.InfraError.exit_status) from None
    except KeyboardInterrupt:  # Ctrl-C reaches every process of the build; SCons tells of it
        raise SystemExit(INTERRUPTED) from None
    raise SystemExit(0)


def say(text: str) -> None:
    """One line of progress."""
    print(f"  {text}", flush=True)
