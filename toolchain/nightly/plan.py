"""What a nightly measures: the jobs of the plan as items of work, each for one pool.

An emulated pool takes program by program: instructions are the same on each of its boards. On real
hardware all programs of a recipe belong together, since they are raced on one unit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolchain import backends, jobs
from toolchain.catalog import Catalog
from toolchain.devices import pool as pooling
from toolchain.devices.pool import Pool
from toolchain.errors import UserError
from toolchain.jobs import Job
from toolchain.layout import Layout
from toolchain.nightly.options import Options
from toolchain.schema import Target


@dataclass(frozen=True)
class Program:
    """One that is measured. key: what the history calls it. at: where it was built."""

    key: str
    job: Job
    at: Layout

    @property
    def runtime(self) -> Path:
        return self.at.runtime(backends.load(self.job.backend).RUNTIME.name) / "runtime.json"


@dataclass(frozen=True)
class Work:
    """What is done on one unit in one go: the programs of a recipe on a target."""

    key: str
    pool: Pool
    programs: tuple[Program, ...]

    @property
    def raced(self) -> bool:
        return not self.pool.emulated


@dataclass(frozen=True)
class Plan:
    """left_out: what was not named and cannot be done, and why."""

    pools: tuple[Pool, ...]
    work: tuple[Work, ...]
    left_out: tuple[str, ...]

    @property
    def programs(self) -> list[Program]:
        return [program for work in self.work for program in work.programs]


def plan(catalog: Catalog, asked: Options) -> Plan:
    """UserError for unknown names, and for a selection that leaves nothing to do."""
    if asked.device:
        pools = pooling.select(asked.device, asked.devices)
        made = [_jobs(catalog, asked, asked.target, [pool.spec for pool in pools])]
    else:
        of_target = _own(catalog, asked)
        pools = list({pool.name: pool for own in of_target.values() for pool in own}.values())
        made, refused = [], []
        for target, own in of_target.items():
            try:
                made.append(_jobs(catalog, asked, [target], [pool.spec for pool in own]))
            except UserError as error:  # of one target; if it is of all, it is the answer
                refused.append(error)
        if not made:
            raise refused[0]
        made.append(jobs.Plan((), tuple(str(error) for error in refused)))
    by_spec = {pool.spec: pool for pool in pools}
    done = [(job, by_spec[job.device.name]) for one in made for job in one.jobs]
    left_out = tuple(dict.fromkeys(reason for one in made for reason in one.left_out))
    used = {pool.name for _, pool in done}
    return Plan(
        tuple(pool for pool in pools if pool.name in used), _work(done, asked.build), left_out
    )


def key(job: Job, pool: Pool) -> str:
    """The default device of a target needs no name; another pool's results are its own."""
    program = f"{job.entry.name}/{job.variant_name}/{job.backend}/{job.target_name}"
    return program + _suffix(job, pool)


def _suffix(job: Job, pool: Pool) -> str:
    if pool.name == job.target.device.default:
        return ""
    return "@" + pool.name.removeprefix(f"{job.target_name}@")


def _jobs(
    catalog: Catalog, asked: Options, targets: Sequence[str], names: Sequence[str]
) -> jobs.Plan:
    return jobs.plan(
        catalog,
        targets=targets,
        recipes=asked.recipe,
        variants=asked.variant,
        backend_names=asked.backend,
        device_names=names,
        devices_file=asked.devices,
    )


def _own(catalog: Catalog, asked: Options) -> Mapping[str, list[Pool]]:
    """Without device=: the units of the devices file, and for a target without one its default."""
    listed = pooling.pools(asked.devices) if asked.devices.exists() else []
    found = {}
    for name in asked.target or [n for n, target in catalog.targets.items() if not target.by_name]:
        target = catalog.targets.get(name)
        if target is None:  # which is the message of whoever knows the good names
            found[name] = pooling.select(["local"], asked.devices)
            continue
        own = [pool for pool in listed if pool.target == name or _takes_any(pool, target)]
        found[name] = own or pooling.select([_default(target)], asked.devices)
    return found


def _takes_any(pool: Pool, target: Target) -> bool:
    return pool.emulated and pool.target is None and target.arch == "aarch64"


def _default(target: Target) -> str:
    """A target's own device; of emulated boards, each of which works on one CPU, one for each."""
    device = target.device.default
    return f"{device}*{os.cpu_count() or 1}" if device.startswith("qemu:") else device


def _work(made: Iterable[tuple[Job, Pool]], build: Path) -> tuple[Work, ...]:
    grouped: dict[str, tuple[Pool, list[Program]]] = {}
    for job, pool in made:
        program = Program(key(job, pool), job, job.layout(build))
        recipe = f"{job.entry.name}/{job.target_name}{_suffix(job, pool)}"
        whole = program.key if pool.emulated else recipe
        grouped.setdefault(whole, (pool, []))[1].append(program)
    return tuple(Work(name, pool, tuple(own)) for name, (pool, own) in grouped.items())
