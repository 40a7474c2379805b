"""Whether a unit can be trusted with work now.

    health = health.probe(unit, timeout=30)
    if not health.healthy: print(", ".join(health.reasons))

Nothing is left there, and no lease is needed: what is at work there goes on.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain import devices, schema
from toolchain.devices import base, guards, preflight
from toolchain.errors import InfraError, SlipwayError

SECONDS = 60.0  # for one unit
AT_ONCE = 16
# Less than the smallest bundles with their samples and outputs take.
LEAST_BYTES = 64 << 20
# What is above is throttled, or near to it: Arm boards start at 80 to 85 °C, x86 at 95 to 100.
HOT_MC = {"aarch64": 80_000, "x86_64": 95_000}
# Above, the kernel lets nobody but root count a program's instructions.
_PARANOID = 2
_ANSWER_SECONDS = 30.0
_SAMPLE_BYTES = 64 << 10


@dataclass(frozen=True)
class Health:
    """reasons: why it is not healthy. facts: what it told; empty if it could not be asked."""

    name: str
    healthy: bool
    reasons: tuple[str, ...]
    facts: dict[str, str]


def probe(unit: schema.Device, timeout: float = SECONDS) -> Health:
    """Log in to a unit and look at it; not healthy if that takes more than `timeout` seconds."""
    found: list[Health] = []
    defects: list[BaseException] = []

    def ask() -> None:
        try:
            found.append(_probed(unit))
        except SlipwayError as error:
            found.append(Health(unit.name, False, (_one_line(error),), {}))
        except BaseException as error:  # noqa: BLE001 (raised again, by who waits)
            defects.append(error)

    # A thread cannot be ended. Its connection notices on its own when the unit is gone.
    asking = threading.Thread(target=ask, daemon=True, name=f"probe of {unit.name}")
    asking.start()
    asking.join(timeout)
    if defects:
        raise defects[0]
    if found:
        return found[0]
    return Health(unit.name, False, (f"no answer within {timeout:g} s",), {})


def probe_all(units: Sequence[schema.Device], timeout: float = SECONDS) -> list[Health]:
    """The health of all units, asked side by side; in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda unit: probe(unit, timeout), units))


def _probed(unit: schema.Device) -> Health:
    start = time.monotonic()
    with devices.connect(unit) as device:
        facts = device.facts()
        taken = guards.take(device)
        free = device.run(["df", "-Pk", "."], timeout=_ANSWER_SECONDS).stdout.decode().split()
        facts["free"] = str(int(free[-3]) * 1024) if free[-3:-2] and free[-3].isdigit() else ""
        reasons = [*_of_facts(facts, device.emulated), *_of_guards(facts, taken)]
        try:
            _write_and_read(device)
        except InfraError as error:
            reasons.append(_one_line(error))
    facts["seconds"] = f"{time.monotonic() - start:.1f}"
    return Health(unit.name, not reasons, tuple(reasons), facts)


def _of_facts(facts: dict[str, str], emulated: bool) -> Iterator[str]:
    for tool in facts.get("lacks", "").split():
        yield f"there is no {tool}: install {preflight.TOOLS.get(tool, 'it')}"
    clock = facts.get("clock", "")
    if clock.isdigit():
        ahead = int(clock) - time.time()
        facts["clock_ahead"] = f"{ahead:.0f}"
        if abs(ahead) > preflight.CLOCK_SECONDS:
            yield f"its clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
    for fact, what in (("free", "space"), ("memory_available", "memory")):
        there = facts.get(fact, "")
        if there.isdigit() and int(there) < LEAST_BYTES:
            yield f"only {int(there) / 1e6:.0f} MB of {what} free, not {LEAST_BYTES / 1e6:.0f}"
    paranoid = facts.get("perf_event_paranoid", "unknown")
    if emulated and not (paranoid.lstrip("-").isdigit() and int(paranoid) <= _PARANOID):
        yield f"instructions cannot be counted: perf_event_paranoid is {paranoid}"


def _of_guards(facts: dict[str, str], taken: dict[str, Any]) -> Iterator[str]:
    facts["load"] = f"{taken['load_1m']:.2f}"
    if (warmth := taken["temperature_mc"]) is not None:
        facts["temperature"] = f"{warmth / 1000:.0f}"
        if warmth > HOT_MC.get(facts["machine"], max(HOT_MC.values())):
            yield f"it is hot: {warmth / 1000:.0f} °C"
    if taken["limits"]:
        facts["limits"] = hex(taken["limits"])
        yield f"its firmware limits it now (get_throttled: {hex(taken['limits'])})"


def _write_and_read(device: base.Device) -> None:
    """Some bytes there and back; each way is verified."""
    with tempfile.TemporaryDirectory() as temporary:
        sample, back = Path(temporary, "sample"), Path(temporary, "back")
        sample.write_bytes(os.urandom(_SAMPLE_BYTES))
        device.put({"probe": sample})
        device.get("probe", back)
        if back.read_bytes() != sample.read_bytes():
            raise InfraError("what was written there does not come back", where=device.name)


def _one_line(error: SlipwayError) -> str:
    return f"{error.where}: {error.message}" if error.where else error.message
