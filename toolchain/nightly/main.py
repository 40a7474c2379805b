"""`scripts/nightly`: build, measure on everything at once, tell. See `options.HELP`."""

from __future__ import annotations

import hashlib
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType

from toolchain import cache, catalog, errors
from toolchain.bootstrap import ROOT
from toolchain.errors import InfraError, UserError
from toolchain.history import History, gate
from toolchain.nightly import options, outcome, runs
from toolchain.nightly.night import Night
from toolchain.nightly.options import Options
from toolchain.nightly.plan import Plan, Work, plan
from toolchain.nightly.steps import Steps
from toolchain.steps.main import say


def main(words: Sequence[str]) -> int:
    """The exit status."""
    if {"-h", "--help"} & set(words):
        print(options.HELP)
        return 0
    asked = options.read(words)
    known = catalog.read(asked.recipes, ROOT / "targets")
    planned = plan(known, asked)
    with History(asked.history) as history:  # what is wrong with it is told before the build
        planned, failed = _built(asked, planned)
        if not planned.work or failed >= 128:
            return failed
        waiting = f"waiting for another build in {asked.build} to end"
        with cache.locked(asked.build / ".lock", lambda: say(waiting)):
            return outcome.worst(_measured(asked, planned, history), failed)


def _built(asked: Options, planned: Plan) -> tuple[Plan, int]:
    """Bring all bundles up to date: what can be measured, and the worst status of scons.

    Each recipe is built by itself, so that one which fails keeps back no other. What scons says is
    passed on.
    """
    done, status, left_out = list[Work](), 0, list(planned.left_out)
    for name in dict.fromkeys(program.job.entry.name for program in planned.programs):
        work = [one for one in planned.work if one.programs[0].job.entry.name == name]
        ended = _scons(asked, name, work)
        if ended >= 128:
            return replace(planned, work=()), ended
        if ended:
            left_out.append(f"recipe {name}: its build failed with status {ended}, see above")
            status = outcome.worst(status, ended)
        else:
            done += work
    pools = tuple(pool for pool in planned.pools if pool in [work.pool for work in done])
    return Plan(pools, tuple(done), tuple(left_out)), status


def _scons(asked: Options, recipe: str, work: Sequence[Work]) -> int:
    """The status of `scons bundles` for one recipe; 128 and the signal that ended it."""
    targets = dict.fromkeys(program.job.target_name for one in work for program in one.programs)
    devices = dict.fromkeys(one.pool.spec for one in work)
    given = {
        **{name: ",".join(getattr(asked, name)) for name in options.NAMES},
        **{name: str(getattr(asked, name)) for name in options.PATHS},
        "recipe": recipe,
        "target": ",".join(targets),
        "device": ",".join(devices) if asked.device or asked.devices.exists() else "",
    }
    words = [f"{name}={value}" for name, value in given.items() if value]
    scons = subprocess.Popen([str(ROOT / "scripts/scons"), "bundles", *words], cwd=ROOT)
    # It keeps what it has built only if it is given the time to end.
    with _Signals(lambda grace: scons.send_signal(signal.SIGINT if grace else signal.SIGKILL)) as s:
        status = scons.wait()
    return 128 + s.seen if s.seen else status


def _measured(asked: Options, planned: Plan, history: History) -> int:
    from toolchain.devices import health

    steps = Steps()
    with _Signals(steps.stop) as signals:
        bundles = _digest(planned)
        run = runs.chosen(asked, history.runs(), bundles)
        facts = {
            "options": asked.same(),
            "bundles": bundles,
            "host": platform.node(),
            "revision": _revision(),
        }
        history.begin(run, facts)
        folder = runs.folder(asked.build, run)
        night = Night(planned, history, run, folder, steps, health.probe)
        say(f"run {run}: {night.told()}")
        try:
            night.work(asked.retries)
        finally:
            if steps.stopping.is_set():
                say(f"stopped; to go on: {asked.resumed(run)}")
        if signals.seen:
            history.end(run, "stopped")
            say(f"{len(night.journal.left())} of {len(planned.work)} items are left")
            return 128 + signals.seen
        night.journal.close()
        found = outcome.gather(history, run, planned.programs, planned.left_out, gate.judge)
        history.end(run, "complete")
        print(outcome.tell(found, history, run, folder), flush=True)
        say(f"report: {folder / 'report.html'}")
        for error in night.journal.refused.values():
            print(f"slipway: {error}", file=sys.stderr, flush=True)
        return outcome.status(found, night.journal.refused)


def _digest(planned: Plan) -> str:
    """Of all bundles: a run is of one product."""
    whole = hashlib.sha256()
    for program in sorted(planned.programs, key=lambda one: one.key):
        try:
            with program.at.bundle.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            where = str(program.at.bundle)
            raise UserError("was not built", where=where, hint="run it again") from None
        whole.update(f"{program.key} {content}\n".encode())
    return whole.hexdigest()


def _revision() -> str:
    """Of the sources, as git tells it; empty outside of a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


class _Signals:
    """Ctrl-C and SIGTERM end the run in good order; a second one at once. seen: the first."""

    def __init__(self, stop: Callable[[float], None]) -> None:
        self.seen = 0
        self._stop = stop

    def __enter__(self) -> _Signals:
        self._before = {s: signal.signal(s, self._came) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        again, self.seen = self.seen, number
        self._stop(0.0 if again else 20.0)


if __name__ == "__main__":
    try:
        with errors.shown():
            raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # before anything was begun
        raise SystemExit(130) from None
    except OSError as error:  # a full disk, a folder that is not writable
        errors.show(InfraError(f"this machine says: {error}"))
        raise SystemExit(InfraError.exit_status) from None
