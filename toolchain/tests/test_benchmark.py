"""The benchmark against other runtimes: its words, its rounds, its table; no peer is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from toolchain import rounds
from toolchain.benchmarks import accuracy, contender, entrants, options, peers, table
from toolchain.benchmarks.conversions import Material, last_line
from toolchain.devices import LOCAL, connect, guards, resolve
from toolchain.devices.base import Completed, Device
from toolchain.errors import CheckFailed, UserError
from toolchain.metrics import agreement
from toolchain.schema import Checks

ROOT = Path(__file__).parents[2]
RECIPES = ("mobilenet_v2", "minilm", "digits")
FIGURES = {"sqnr_db": 20.0, "min_cosine": 0.99, "accuracy": 0.9, "drop": 0.02, "equal": False}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("recipe=mobilnet_v2", "unknown recipe 'mobilnet_v2'"),
        ("rounds=0", "'0' is no whole number from 1 on"),
        ("samples=-4", "'-4' is no whole number"),
        ("threads=4096", "CPUs"),
        ("samples=2", "2 samples do not fill 8 rounds"),
        ("profile=yes", "'yes' is neither 0 nor 1"),
        ("round=3", "unknown option 'round=3'"),
        ("out=", "has no value"),
    ],
)
def test_a_wrong_word_is_one_message(word, message):
    with pytest.raises(UserError, match=message):
        options.read([word], RECIPES)


def test_words_are_decoded(monkeypatch, tmp_path):
    monkeypatch.setenv("SLIPWAY_FROM", str(tmp_path))
    asked = options.read(["recipe=digits, minilm", "rounds=3", "build=b", "profile=1"], RECIPES)
    assert asked.recipe == ("digits", "minilm")
    assert (asked.rounds, asked.samples, asked.profile) == (3, 1024, True)
    assert asked.out == tmp_path / "b" / "benchmark"


def test_the_command_ends_with_2_and_one_line():
    argv = [sys.executable, "-m", "toolchain.benchmarks.main", "recipe=nothing"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("slipway: recipe=: unknown recipe 'nothing'")
    assert "Traceback" not in done.stderr


def test_peers_are_known_without_their_packages():
    for name in peers.names():
        peer = peers.load(name)
        assert "float" in peer.FORMS
        assert peer.SUFFIX.startswith(".")
    code = "import sys, toolchain.benchmarks.main; print({'torch', 'openvino'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.strip() == "set()", said.stderr


def test_each_peer_is_pinned_with_a_reason():
    lines = (ROOT / "requirements-benchmarks.lock").read_text().splitlines()
    direct = lines[: lines.index("# What those need:")]
    reasons = {line.split("==")[0]: "#" in line for line in direct if "==" in line}
    wanted = {package for name in peers.names() for package in peers.load(name).PACKAGES}
    assert wanted <= reasons.keys()
    assert all(reasons.values())
    pins = [line.split()[0] for line in lines if line and not line.startswith("#")]
    assert all("==" in pin for pin in pins)


class Session:
    def __init__(self):
        self.done = 0

    def infer(self):
        self.done += 1


def test_each_inference_is_timed_by_itself():
    session = Session()
    times = contender.timed(session, 5)
    assert session.done == len(times) == 5
    assert all(ns > 0 for ns in times)


def test_a_contender_that_fails_says_why():
    said = b"Traceback (most recent call last):\n  x\nModuleNotFoundError: No module named 'y'\n"
    with pytest.raises(CheckFailed, match="peer: ModuleNotFoundError: No module named 'y'"):
        entrants.report(Completed(1, b"", said), "peer")
    with pytest.raises(CheckFailed, match="SIGSEGV"):
        entrants.report(Completed(139, b"", b""), "peer")
    with pytest.raises(CheckFailed, match="gave no report"):
        entrants.report(Completed(0, b"noise\n", b""), "peer")
    assert entrants.report(Completed(0, b'noise\n{"load_ns": 1}\n', b""), "peer") == {"load_ns": 1}
    assert last_line("\n\n") == ""


def test_guards_tell_what_the_product_reads():
    from toolchain.benchmarks.surroundings import Guards

    seen = Guards().taken() | {"threads": 1, "timed_ns": 10**12}
    with connect(resolve(LOCAL)) as device:
        here = guards.take(device)
    seen["yardstick_ns"]["after"] = [2 * min(seen["yardstick_ns"]["before"])]
    assert any("yardstick" in why for why in guards.moved(here, here, [seen]))


class Fake:
    """An entrant whose turns are given."""

    ours, bytes = False, 1

    def __init__(self, name, ns, order, moved=0, fails=False):
        self.name, self.ns, self.order, self.moved, self.fails = name, ns, order, moved, fails

    def turn(self, _device, _threads, _warmup, iterations):
        self.order.append(self.name)
        if self.fails:
            raise CheckFailed("it broke")
        odd = self.moved > 0
        self.moved -= 1
        yards = {"before": [100], "after": [200 if odd else 100]}
        return {
            "threads": 1,
            "load_ns": 1,
            "peak_rss_bytes": 2_000_000,
            "iterations": {"wall_ns": [self.ns] * iterations},
            "guards": {"involuntary_switches": 0, "run_delay_ns": 0, "yardstick_ns": yards},
        }


@pytest.fixture
def still(monkeypatch):
    """A machine on which nothing moves but what the runs tell."""
    facts = (
        dict.fromkeys(("steal_ticks", "busy_ticks", "total_ticks"), 0)
        | {"cpus": 1}
        | dict.fromkeys(("governor", "frequency_khz", "throttled", "limits", "quota_stops"))
    )
    monkeypatch.setattr(guards, "take", lambda _device: facts | {"load_1m": 0.5})


def raced(made):
    device = cast(Device, None)
    turns = {one.name: partial(one.turn, device, 1, 1, 3) for one in made}
    return rounds.taken(turns, device, wanted=3, say=lambda _text: None)


@pytest.mark.usefixtures("still")
def test_each_round_begins_with_the_next_and_disturbed_ones_are_repeated():
    order: list[str] = []
    record = raced([Fake("a", 10, order, moved=1), Fake("b", 20, order)])
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert len(record["rounds"]) == 4
    assert [len(run["wall_ns"]) for run in record["rounds"][0]["runs"].values()] == [3, 3]


@pytest.mark.usefixtures("still")
def test_who_breaks_is_out_and_the_others_go_on():
    record = raced([Fake("a", 10, []), Fake("b", 20, [], fails=True)])
    assert record["failed"] == {"b": "it broke"}
    assert all(set(one["runs"]) == {"a"} for one in record["rounds"])


def result(record, **below):
    about = {
        name: {"ours": name == "us", "bytes": 4_000_000, "accuracy": FIGURES, "below": why}
        for name, why in below.items()
    }
    return {
        "recipe": "digits",
        "limited": False,
        "rows": table.rows(record, about),
        "race": record,
        "taken": {"cpu": "A CPU", "threads": 1},
        "absent": {"litert float": "no wheel"},
        "overheads": {"openvino": {"p50_ms": 0.0123, "peak_rss_bytes": 90e6}},
        "profiles": {"us": [{"name": "n", "type": "Conv", "calls": 1, "ns": 1500}]},
    }


@pytest.mark.usefixtures("still")
def test_the_table_ranks_by_time_and_compares_with_the_best_exact_peer():
    fakes = [Fake("quick", 5, []), Fake("us", 10, []), Fake("slow", 20, [])]
    found = result(raced(fakes), quick="it drops 0.4", us="", slow="")
    assert [row["name"] for row in found["rows"]] == ["quick", "us", "slow"]
    assert table.best_peer(found["rows"]) == "slow"
    text = table.markdown(found)
    line = next(line for line in text.splitlines() if "**us**" in line)
    assert "0.50 (0.50 to 0.50)" in line
    assert "quick (too inexact)" in text
    assert "Absent: litert float: no wheel." in text
    assert "0.0123 ms" in text
    assert "sets no limit of accuracy" in text
    assert "sets no limit" not in table.markdown(found | {"limited": True})
    assert json.dumps(found)
    assert "100.0%" in table.profiles(found)


@pytest.mark.usefixtures("still")
def test_a_table_of_disturbed_rounds_says_so():
    text = table.markdown(result(raced([Fake("us", 10, [], moved=99)]), us=""))
    assert "Not to be trusted" in text
    assert "the yardstick took" in text


@pytest.mark.parametrize(
    ("checks", "why"),
    [
        (Checks(), ""),
        (Checks(max_drop=0.05, min_sqnr=10, min_cosine=0.9, min_metric=0.8), ""),
        (Checks(max_drop=0.01), "drops"),
        (Checks(min_metric=0.95), "metric"),
        (Checks(min_sqnr=30), "dB"),
        (Checks(min_cosine=0.999), "cosine"),
    ],
)
def test_accuracy_is_held_against_the_recipes_own_limits(checks, why):
    found = accuracy.below(FIGURES, checks)
    assert why in found
    assert bool(found) == bool(why)


def test_a_recipe_without_limits_is_known():
    assert not accuracy.limited(Checks(max_latency_ms=1.0))
    assert accuracy.limited(Checks(max_drop=0.0))


def test_equal_outputs_hold_any_sqnr():
    assert not accuracy.below(FIGURES | {"equal": True, "sqnr_db": None}, Checks(min_sqnr=99))


def test_outputs_that_are_no_numbers_are_refused():
    reference = {"output.0": np.ones((2, 1, 3), np.float32)}
    bad = {"output.0": np.full((2, 1, 3), np.nan, np.float32)}
    with pytest.raises(CheckFailed, match="NaN"):
        accuracy.figures(bad, reference, {}, agreement)
    other = {"output.0": np.ones((2, 3), np.float32)}
    with pytest.raises(CheckFailed, match="the model"):
        accuracy.figures(other, reference, {}, agreement)


@pytest.mark.parametrize(
    ("operator", "kind"), [("conv2d", peers.CONVOLUTIONS), ("linear", peers.LINEARS)]
)
def test_networks_are_told_apart_without_torch(tmp_path, operator, kind):
    import zipfile

    program = tmp_path / "model.pt2"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("archive/models/model.json", f'"torch.ops.aten.{operator}.default"')
    assert Material(program, Path()).kind == kind


def test_the_last_cpus_are_kept():
    code = (
        "import os; from toolchain.benchmarks import surroundings as s;"
        "all_ = sorted(os.sched_getaffinity(0)); kept = s.keep_to_last_cpus(1);"
        "assert kept == all_[-1:] == sorted(os.sched_getaffinity(0)), kept;"
        "assert s.peak_rss_bytes() > 1_000_000"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ), cwd=ROOT)
