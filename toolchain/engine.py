"""SCons as the build graph uses it: the only file that knows SCons.

What SCons needs to be right is settled here: steps are processes without a shell between, see a
whitelisted environment, and depend on their own source and all that it imports; text that steps
read is a file; one build at a time works in a build folder; the exit status is Slipway's.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import SCons.Script as scons
from SCons.Scanner import ScannerBase
from SCons.Subst import Literal

from toolchain import cache, step_environment
from toolchain.atomic import write_bytes
from toolchain.errors import CheckFailed, InfraError, UserError, show
from toolchain.imports import imported_files
from toolchain.steps.main import INTERRUPTED
from toolchain.timings import Timings

ROOT = Path(__file__).parent.parent  # also the folder that SCons runs in
GIB_PER_HEAVY_STEP = 3
LARGE = 32 << 20  # bytes
SLOW_SECONDS = 2.0  # a step that took longer says so when it is done
STEPS = "toolchain.steps."
_timings = Timings()


class Engine:
    """SCons' graph of one build folder; each file is made by one step."""

    def __init__(self, build: Path, cached: Path | None) -> None:
        self.build = build
        self._began = time.monotonic()
        self._made: set[Path] = set()
        self._heavy = 0
        self._held = _hold(build)
        self.goals: set[str] = set()
        self.recipe_folders: set[Path] = set()  # where a recipe's own files import from
        self._import_roots = {ROOT, *_python_path()}  # where all imports are followed
        self._env = _environment(build, cached)
        self._env.Append(
            SCANNERS=ScannerBase(self._scan, name="imports", skeys=[".py"], recursive=True)
        )

    def step(
        self,
        verb: str,
        who: str,
        outputs: Mapping[str, Path],
        inputs: Mapping[str, Path | Sequence[Path]],
        settings: Mapping[str, str] | None = None,
        *,
        needs: Iterable[Path] = (),
        also: Iterable[Path] = (),
        heavy: bool = False,
        stale: bool = False,
        shared: bool = True,
        alone: str | None = None,
    ) -> None:
        """`python -m toolchain.steps.<verb>`, unless another call made its outputs already.

        outputs, inputs, settings: options of its command line. needs, also: files that it reads,
        and writes, without an option that names them. heavy: it takes much memory. stale: run it
        though nothing changed. shared: its outputs may go to, and come from, the cache.
        alone: of the steps with the same word, one runs at a time.
        """
        first = next(iter(outputs.values()))
        if first in self._made:
            return
        self._made.add(first)
        files = [path for given in inputs.values() for path in _many(given)]
        options = [
            f"--{name}={path}"
            for name, given in [*inputs.items(), *outputs.items()]
            for path in _many(given)
        ] + [f"--{name}={value}" for name, value in (settings or {}).items()]
        # Literal: SCons quotes what it takes for shell words, and here is no shell.
        command = ["$(", "$PYTHON", "$)", "-m", f"{STEPS}{verb}", *map(Literal, options)]
        node = self._env.Command(
            [str(path) for path in (*outputs.values(), *also)],
            [str(path) for path in (ROOT / f"toolchain/steps/{verb}.py", *files, *needs)],
            scons.Action([command], f"{verb:9} {who}"),
        )
        if stale:
            self._env.AlwaysBuild(node)
        if not shared:
            self._env.NoCache(node)
        if heavy:  # SCons runs one step at a time of those with the same side effect
            self._heavy += 1
            self._side_effect(f"heavy-{self._heavy % _heavy_slots()}", node)
        if alone:
            self._side_effect(alone, node)

    def text(self, path: Path, text: str) -> Path:
        """A file that holds `text`, written again when the text changes."""
        if path not in self._made:
            self._made.add(path)
            # SCons takes equal numbers and booleans for the same Value: only ever strings.
            self._env.Command(str(path), self._env.Value(text), scons.Action(_write_text, None))
        return path

    def goal(self, name: str, path: Path, *, default: bool = False) -> None:
        """Let `scons <name>` make `path`, among others; `default`: and plain `scons` too."""
        self.goals.add(name)
        alias = self._env.Alias(name, str(path))
        if default:
            self._env.Default(alias)

    def leave_with_status_of(self, summary: Path) -> None:
        """Exit as the worst step did; SCons itself knows only 2. Tell where the time went."""
        atexit.register(_leave, summary, self._began)

    def _scan(self, node: Any, _env: Any, _path: Any) -> list[Any]:
        """SCons' view of `imported_files`."""
        path = Path(node.get_abspath())
        own = {folder for folder in self.recipe_folders if path.is_relative_to(folder)}
        found = imported_files(path, sorted(self._import_roots | own))
        return [scons.File(str(file)) for file in found]

    def _side_effect(self, name: str, node: Any) -> None:
        self._env.SideEffect(str(self.build / f".{name}"), node)


def _environment(build: Path, cached: Path | None) -> Any:
    """An SCons environment that knows no tools but ours and passes on only what is named above."""
    scons.SetOption("hash_format", "sha256")
    scons.SetOption("num_jobs", os.cpu_count() or 1)
    env = scons.Environment(
        tools=[],
        PYTHON=sys.executable,
        SPAWN=_spawn,
        ESCAPE=lambda argument: argument,
        ENV=step_environment.of_this_process(),
    )
    env.Decider(_changed)
    env.SConsignFile(str((build / ".sconsign").absolute()))
    if cached is not None:
        env.CacheDir(str(cached))
    return env


def _changed(dependency: Any, target: Any, before: Any, node: Any = None) -> bool:
    """Whether a file holds other bytes; a large one with the time it had is not read again.

    SCons knows times in whole seconds only: what is read in no time is compared by content. (Its
    own `content-timestamp` also forgets the target when it explains, and calls all changed.)
    """
    if dependency.exists() and dependency.get_size() >= LARGE:
        return bool(dependency.changed_timestamp_then_content(target, before, node or target))
    return bool(dependency.changed_content(target, before, node))


def _spawn(_sh: str, _escape: Any, _command: str, args: list[str], env: dict[str, str]) -> int:
    """Run a step without a shell between; say how long a slow one took."""
    began = time.monotonic()
    status = subprocess.run(args, env=env, cwd=ROOT, check=False).returncode
    seconds = time.monotonic() - began
    _timings.add(next(a for a in args if a.startswith(STEPS)).removeprefix(STEPS), seconds)
    outputs = [arg.removeprefix("--out=") for arg in args if arg.startswith("--out=")]
    if status == 0 and seconds > SLOW_SECONDS:
        print(f"          {', '.join(outputs)}  {seconds:.1f} s", flush=True)
    if status < 0:
        name = signal.Signals(-status).name
        why = " (out of memory?)" if -status == signal.SIGKILL else ""
        show(InfraError(f"the step was killed by {name}{why}", where=", ".join(outputs)))
        return InfraError.exit_status
    return status


def _write_text(target: list[Any], source: list[Any], env: Any) -> None:  # noqa: ARG001 (by name)
    write_bytes(Path(target[0].get_abspath()), source[0].get_text_contents().encode())


def _hold(build: Path) -> ExitStack:
    """Keep other builds out of the folder for as long as this process lives."""
    held = ExitStack()
    held.enter_context(
        cache.locked(
            build / ".lock",
            lambda: print(f"waiting for another build in {build} to end", flush=True),
            remedy="name another one: build=/path/to/a/folder",
        )
    )
    return held


def _leave(summary: Path, began: float) -> None:
    if line := _timings.line(time.monotonic() - began):
        print(f"  {line}")
    failures = scons.GetBuildFailures()
    if not failures or scons.GetOption("no_exec"):
        return
    failed = {Path(str(failure.node)).absolute() for failure in failures}
    if summary.absolute() not in failed:
        summary.unlink(missing_ok=True)  # it tells of an earlier build
    seen = {failure.status for failure in failures}
    if any("interrupted" in str(failure.errstr) for failure in failures):
        seen.add(INTERRUPTED)
    ranking = (INTERRUPTED, *(e.exit_status for e in (UserError, CheckFailed, InfraError)))
    status = next((known for known in ranking if known in seen), UserError.exit_status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _python_path() -> list[Path]:
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [Path(folder).absolute() for folder in named if folder]


def _heavy_slots() -> int:
    """How many memory-heavy steps this machine can hold at once."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, total // (GIB_PER_HEAVY_STEP << 30))


def _many(given: Path | Sequence[Path]) -> Sequence[Path]:
    return [given] if isinstance(given, Path) else given
