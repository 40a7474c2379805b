"""Take a verdict from a measurement: the checks of `device_tests`, run on its figures.

infra-error    the measurement broke off; nothing is said of the product
fail           a check failed, or the program did not run on the device
inconclusive   no check failed, but one could not be decided
pass           every limit of the recipe holds
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest

from toolchain import metrics, racing, stats
from toolchain.atomic import read_json, write_json
from toolchain.errors import InfraError
from toolchain.samples import load
from toolchain.steps.main import NONE, step

TESTS = Path(__file__).parents[2] / "device_tests"
DESCRIPTION = ("recipe", "variant", "scheme", "backend", "target")


def run(
    *,
    samples: Path,
    outputs: Path,
    data: Path,
    reference: Path,
    host: Path,
    checks: Path,
    metric: str,
    folder: Path,
    recipe_sha256: str,
    out: Path,
    race: Path = NONE,
) -> None:
    """Judge the measurement in `samples` and `outputs` against the limits in `checks`.

    race: times of this program among others, on real hardware.
    """
    measured = read_json(samples)
    verdict: dict[str, Any] = {name: measured[name] for name in DESCRIPTION}
    verdict |= {"device": measured["device"]["name"], "metric": metric, "unchecked": []}
    verdict |= dict.fromkeys(stats.FIGURES) | stats.sizes(measured["bytes"])
    verdict["runtime"] = measured["runtime"]
    raced = read_json(race) if race != NONE else None
    if raced and measured["status"] == "measured":
        measured |= _in_race(raced, racing.key(measured["variant"], measured["backend"]))
    if measured["status"] == "measured":
        verdict |= figures_of(measured, outputs, data, reference, host, metric, folder, raced)
        verdict |= judged(verdict, checks)
    else:
        verdict |= {"verdict": _BROKEN[measured["status"]], "reasons": [measured["reason"]]}
    verdict["load"] = measured["load"]
    verdict["provenance"] = measured["provenance"] | {"recipe_sha256": recipe_sha256}
    write_json(out, verdict)


def _in_race(race: racing.Record, program: str) -> dict[str, str]:
    """What the race changes in the status of a program that was measured before."""
    if program in race["failed"]:
        return {"status": "failed", "reason": race["failed"][program]}
    return {"status": race["status"], "reason": race["reason"]}


_BROKEN = {"failed": "fail", "infra-error": "infra-error"}


def figures_of(
    measured: dict[str, Any],
    outputs: Path,
    data: Path,
    reference: Path,
    host: Path,
    metric: str,
    folder: Path,
    race: racing.Record | None = None,
) -> dict[str, Any]:
    """`stats.figures` and `stats.sizes` of the files of a build; race: what the race step wrote."""
    program = racing.key(measured["variant"], measured["backend"])
    return stats.sizes(measured["bytes"]) | stats.figures(
        measured,
        load(outputs),
        reference=load(reference),
        host=load(host),
        label=load(data).get("label"),
        metric=metrics.find(metric, folder),
        wall_ns=racing.wall_ns(race, program) if race else None,
        moved=racing.moved(race) if race else (),
    )


def judged(figures: dict[str, Any], checks: Path) -> dict[str, Any]:
    """The verdict of `device_tests` on `figures`, with what failed and what had no limit."""
    outcome = _Outcome()
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "figures.json"
        write_json(file, figures)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = pytest.main(
                [
                    str(TESTS),
                    f"--rootdir={TESTS}",
                    f"--figures={file}",
                    f"--checks={checks.absolute()}",
                    "-qq",
                    "--disable-plugin-autoload",  # of whatever else is installed
                    "-p",
                    "no:cacheprovider",
                ],
                plugins=[outcome],
            )
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or outcome.errors:
        raise InfraError(f"the checks themselves broke:\n{said.getvalue()}", where=str(TESTS))
    if outcome.failed:
        verdict = "fail"
    elif outcome.undecided:
        verdict = "inconclusive"
    else:
        verdict = "pass"
    return {
        "verdict": verdict,
        "reasons": outcome.failed + outcome.undecided,
        "unchecked": outcome.unchecked,
    }


class _Outcome:
    """A pytest plugin that keeps what each check said."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.undecided: list[str] = []
        self.unchecked: list[str] = []
        self.errors: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            if report.failed:
                self.errors.append(report.longreprtext)
            return
        if report.failed:
            self.failed.append(_message(report))
        elif report.skipped and hasattr(report, "wasxfail"):
            self.undecided.append(report.wasxfail.removeprefix("reason: "))
        elif report.skipped and isinstance(report.longrepr, tuple):
            self.unchecked.append(str(report.longrepr[2]).removeprefix("Skipped: "))


def _message(report: pytest.TestReport) -> str:
    """The first line of what an assertion said."""
    crash = getattr(report.longrepr, "reprcrash", None)
    message: str = crash.message if crash else report.longreprtext
    return message.removeprefix("AssertionError: ").splitlines()[0]


if __name__ == "__main__":
    step(run)
