"""One fault after the other on one bench, with what has to hold after each."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.tests.campaign import acts, faults
from toolchain.tests.campaign.acts import Product
from toolchain.tests.campaign.benches import Bench
from toolchain.tests.campaign.faults import Fault, Scene


@dataclass
class Report:
    """counts: by kind of fault and how it ended for the client. state: old or new bundle after."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    state: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def drawn(kind: str, count: int, chance: random.Random) -> list[Fault]:
    """Faults for a kind of bench, each kind at least once, in random order."""
    mix = faults.MIX[kind]
    chosen = list(mix) + chance.choices(list(mix), weights=list(mix.values()), k=count)
    chosen = chosen[: max(count, len(mix))]
    chance.shuffle(chosen)
    return chosen


def campaign(
    bench: Bench,
    product: Product,
    wanted: list[Fault],
    chance: random.Random,
    folder: Path,
    say: Callable[[str], object] = print,
) -> Report:
    """AssertionError, with the number of the fault, at the first thing that does not hold."""
    report, began = Report(), time.monotonic()
    before = acts.push(bench.unit(), product).digest
    for number, fault in enumerate(wanted):
        new = product.other(folder / "new.tar", chance)
        scene = Scene(bench, chance, product, new, folder)
        try:
            before = _one(scene, fault, before, report)
        except BaseException:
            say(f"fault {number} of {bench.kind}: {fault.__name__}")
            raise
        if number % 20 == 19:
            say(f"{bench.kind}: {number + 1} of {len(wanted)} faults")
    report.seconds = time.monotonic() - began
    return report


def _one(scene: Scene, fault: Fault, before: str, report: Report) -> str:
    """The tree that is current in the end."""
    bench, new = scene.bench, scene.new.tree
    ended = fault(scene)
    with acts.freed(bench) as device:
        after, damaged = acts.look(device)
        good: set[str | None] = {before, new}
        if fault is faults.two_clients:
            good.add(scene.other.tree)
        if bench.forgets and fault in (faults.off_while_pushing, faults.off_while_measuring):
            good.add(None)  # it starts with an empty disk
        assert after in good, f"{after} is neither the old bundle, {before}, nor the new one"
        assert not damaged, f"{ended}, and then these are damaged: {damaged}"
        if ended == "done" and fault in faults.PUSHING and after is not None:
            assert after == new, "what was said to be done is not"
        again = acts.placed(device, scene.new)
        assert again.digest == new
        assert acts.look(device) == (new, [])
    if fault in (faults.cut_measurement, faults.off_while_measuring):
        assert acts.measured(bench.unit(), scene.new, scene.folder / "measured") == "measured"
    report.counts[fault.__name__, ended] += 1
    report.state[_state(after, before)] += 1
    return new


def _state(after: str | None, before: str | None) -> str:
    if after is None:
        return "empty disk"
    return "old bundle" if after == before else "new bundle"
