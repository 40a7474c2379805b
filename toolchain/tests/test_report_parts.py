"""Parts of the report: from the history to its material, what changed, pictures."""

from __future__ import annotations

import copy
import re

import pytest

from toolchain import report
from toolchain.errors import UserError
from toolchain.history import History, Judged
from toolchain.report import __main__ as command
from toolchain.report import (
    attention,
    charts,
    devices,
    from_history,
    page,
    pictured,
    provenance,
    trends,
)
from toolchain.report.charts import Point
from toolchain.report.inline import Drawings
from toolchain.report.material import Attempt, Gate, Material
from toolchain.report.trends import Spot
from toolchain.tests.report_rows import broken, nights, row, run_of
from toolchain.tests.test_report import OPERATORS, Page, program

KEY = "digits/int8/xnnpack/x86_64"


@pytest.fixture
def history(tmp_path):
    """Three nights of one program: good, lost, and worse; a second one is only in the first."""
    with History(str(tmp_path / "history.db")) as made:
        for number, kept in enumerate([row(), broken(), row()]):
            run = run_of(number)
            made.begin(run, {"revision": f"rev{number}", "options": "all", "host": "build-1"})
            kept |= {"host": None, "equal": False, "load": LOAD, "unit": "pi5"}
            kept |= {"operators": OPERATORS, "notes": ["the clock is hidden"]}
            kept["findings"] = ["chosen: xnnpack"]
            kept["provenance"]["tools"]["torch"] = f"2.{13 + number}.0"
            made.record(run, KEY, kept, {}, pool="x86_64", unit="pi5", attempt=2)
            if number == 0:
                made.record(run, "digits/b", kept, {}, pool="x86_64", unit="pi5", attempt=1)
            made.record_attempt(run, KEY, "x86_64", "pi4", 1, "infra-error", "it fell", 3.0)
            made.record_attempt(run, KEY, "x86_64", "pi5", 2, kept["verdict"], "", 3.0)
            made.quarantine(run, "pi4", "no answer")
            made.end(run, "complete")
        judged = Judged("regression", ("p50 is 1.2x",), ("a note",), run_of(0), run_of(2))
        made.record_gate(run_of(2), KEY, judged)
        yield made


def test_a_night_that_was_worse_is_no_pass_for_those_after_it(history):
    history.begin(run_of(3), {"options": "all"})
    lost = broken() | {"unit": "pi5"}
    history.record(run_of(3), KEY, lost, {}, pool="x86_64", unit="pi5", attempt=1)
    (one,) = from_history.gather(history, run_of(3)).programs
    assert [m.row["verdict"] for m in one.past] == ["pass", "infra-error", "regression"]
    last = one.last_pass()
    assert last is not None
    assert last.run == run_of(0)


LOAD = {
    "delegates": 1,
    "delegated_share": 1.0,
    "undelegated": {"aten::sum": 2},
    "remarks": [],
    "not_quantized": {},
}


def test_all_that_the_history_knows_of_a_run_is_gathered(history):
    found = from_history.gather(history, run_of(2), ["b: no"])
    (one,) = found.programs
    assert (one.key, one.pool, one.now.unit, one.now.attempt) == (KEY, "x86_64", "pi5", 2)
    assert [m.run for m in one.past] == [run_of(0), run_of(1)]
    assert [m.row["verdict"] for m in one.past] == ["pass", "infra-error"]
    assert one.gate == Gate("regression", ("p50 is 1.2x",), ("a note",), run_of(0), run_of(2))
    assert one.verdict == "regression"
    assert one.row["findings"] == ["not delegated to xnnpack: aten::sum x2", "chosen: xnnpack"]
    assert one.operators[0]["calls"] == 35
    assert found.missing == [], "the run before had not measured it either"
    assert from_history.gather(history, run_of(1)).missing == ["digits/b"]
    assert found.quarantined == {"pi4": "no answer"}
    assert found.notes == {"pi5": ["the clock is hidden"]}
    assert found.facts["revision"] == "rev2"
    assert (found.state, found.left_out) == ("complete", ["b: no"])
    assert [one.unit for one in found.attempts] == ["pi4", "pi5"]


def test_a_run_that_was_killed_has_not_ended(history):
    history.begin(run_of(3), {"revision": "r", "options": "all"})
    found = from_history.gather(history, run_of(3))
    assert found.missing == [KEY]
    assert "the run has not ended (its state: running)" in attention.sentence(found)
    assert "Nothing was measured in this run" in attention.sentence(found)


def test_what_is_found_only_beside_other_programs_is_told(history):
    float_one = row(variant="float", scheme="float", model_bytes=10) | {
        "host": None,
        "equal": True,
        "load": LOAD,
    }
    history.record(run_of(2), "f", float_one, {}, pool="x86_64", unit="pi5", attempt=1)
    found = from_history.gather(history, run_of(2)).programs[0].row["findings"]
    assert "not cheaper than float in size" in found


def test_rows_of_earlier_versions_keep_what_they_have(history):
    old = {name: row()[name] for name in ("recipe", "variant", "backend", "target", "device")}
    kept = old | {"verdict": "pass", "reasons": []}
    history.record(run_of(2), "old", kept, {}, pool="x86_64", unit="pi5", attempt=1)
    found = from_history.gather(history, run_of(2)).programs
    assert found[-1].row["findings"] == []
    assert found[0].row["findings"], "those of the others are told all the same"


def test_a_page_of_a_run(history, tmp_path):
    out = tmp_path / "page.html"
    report.write(history, run_of(2), out)
    first = out.read_bytes()
    told = Page(first.decode())
    said = told.said()
    for text in (
        "↘ regression Of 1 programs 1 got worse than before.",
        f"Baseline: run {run_of(0)}. First bad run: {run_of(2)}.",
        "tool: torch 2.13.0 2.15.0",
        "Measured at attempt 2, on pi5.",
        "pi4 x86_64 1 1",
        f"{KEY}, attempt 1: it fell",
        "revision rev2",
        "baseline",
        "first bad",
    ):
        assert text in said, text
    report.write(history, run_of(2), out)
    assert out.read_bytes() == first


@pytest.mark.usefixtures("history")
def test_the_command_takes_the_last_run(tmp_path, capsys):
    out = tmp_path / "page.html"
    command.main([f"--history={tmp_path / 'history.db'}", f"--out={out}"])
    assert run_of(2) in out.read_text()
    with pytest.raises(SystemExit) as end:
        command.main([f"--history={tmp_path / 'history.db'}", "--run=other", f"--out={out}"])
    assert end.value.code == 2
    assert f"has no run 'other'\n  its last ones: {run_of(0)}" in capsys.readouterr().err


def test_an_empty_history_is_told(tmp_path, capsys):
    History(str(tmp_path / "h.db")).close()
    with pytest.raises(SystemExit):
        command.main([f"--history={tmp_path / 'h.db'}"])
    assert "holds no run yet\n  ./scripts/nightly" in capsys.readouterr().err
    with History(str(tmp_path / "h.db")) as history, pytest.raises(UserError, match="none"):
        report.write(history, "x", tmp_path / "page.html")


def test_what_changed_is_told_in_few_words():
    before, now = row(), row()
    assert provenance.changes(before, now) == []
    now["provenance"]["taken_at"] = "2030-01-01T00:00:00+00:00"
    assert provenance.changes(before, now) == [], "time alone is no change"
    now["provenance"]["bundle_sha256"] = "f" * 64
    now["provenance"]["device"]["features"] = "fp asimd sve"
    now["provenance"]["device"] |= {"kernel": "6.2"}
    del now["provenance"]["tools"]["torch"]
    now["device"] = "pi6"
    found = [(c.what, c.shown_before, c.shown_now) for c in provenance.changes(before, now)]
    assert found == [
        ("bundle", "a" * 12 + "…", "f" * 12 + "…"),
        ("device: CPU features", "lost: crc32", "new: sve"),
        ("device: kernel", "6.1.0-56", "6.2"),
        ("measured on", "pi5", "pi6"),
        ("tool: torch", "2.13.0+cpu", "-"),
    ]


def test_the_last_pass_lies_before_the_first_bad_run():
    past = nights(row(), 10)
    worse = Gate("regression", ["p50"], baseline_run=run_of(3), first_bad_run=run_of(8))
    assert program(row(), past=past, gate=worse).last_pass() is past[7]
    assert program(row(), past=past, gate=Gate("pass")).last_pass() is past[9]
    assert program(row(), past=past[:6]).last_pass() is past[4], "the sixth was lost"
    assert program(row(), past=[past[5]]).last_pass() is None


@pytest.mark.parametrize(
    ("own", "gate", "verdict"),
    [
        ("pass", None, "pass"),
        ("pass", "no baseline", "pass"),
        ("pass", "accepted", "pass"),
        ("pass", "regression", "regression"),
        ("pass", "inconclusive", "inconclusive"),
        ("fail", "regression", "fail"),
        ("infra-error", "pass", "infra-error"),
    ],
)
def test_checks_and_history_make_one_verdict(own, gate, verdict):
    made = program(row(verdict=own), gate=gate and Gate(gate))
    assert made.verdict == verdict


def test_units_that_need_a_look_come_first():
    tries = [Attempt("k", "p", unit, 1, "pass") for unit in ("a", "b", "c")]
    tries += [Attempt("k", "p", "c", 2, "infra-error", "x"), Attempt("k", "p", "b", 2, "broken")]
    tries += [Attempt("k", "p", "b", 3, "infra-error")]
    found = devices.units(Material("t", "", "", (), attempts=tries, quarantined={"z": "dead"}))
    assert [(u.name, u.tried, len(u.broken)) for u in found] == [
        ("z", 0, 0),
        ("b", 3, 2),
        ("c", 2, 1),
        ("a", 1, 0),
    ]


def words(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_numbers_that_lie_together_share_a_label():
    points = [Point(1, 1.0, 0.9, True, True), Point(2, 1.01, 0.9, True, False)]
    points += [Point(3, 9.0, 0.5, False, False)]
    svg = charts.costs(Drawings(), "c", points, cost="cost", metric="top1", front=True)
    assert {"1, 2", "3", "top1", "cost"} <= set(words(svg))
    assert "1: 0.9 at 1, chosen; 2: 0.9 at 1.01; 3: 0.5 at 9, does not pass." in svg


def test_the_front_holds_what_nothing_beats():
    at = [(2.0, 0.9), (1.0, 0.8), (3.0, 0.9), (4.0, 0.95), (1.0, 0.7)]
    points = [Point(k, cost, metric, True, False) for k, (cost, metric) in enumerate(at)]
    assert charts._front(points) == [(1.0, 0.8), (2.0, 0.9), (4.0, 0.95)]


def test_a_trend_does_not_bridge_what_is_missing():
    spots = [Spot(f"11-0{k}", None if k == 3 else 1.0 + k / 100) for k in range(1, 7)]
    svg = trends.trend(Drawings(), "t", spots, title="p50", unit="ms")
    parts = trends._unbroken([(k, s) for k, s in enumerate(spots) if s.value is not None])
    assert [[place for place, _ in part] for part in parts] == [[0, 1], [3, 4, 5]]
    assert "no figure in 1 of 6 runs" in svg
    assert {"11-01", "11-06", "p50 (ms)"} <= set(words(svg))


def test_baseline_and_first_bad_run_are_named_in_the_trend():
    one = program(
        row(),
        past=nights(row(), 10),
        gate=Gate("regression", (), (), baseline_run=run_of(2), first_bad_run=run_of(7)),
    )
    for svg in pictured.of_program(Drawings(), "p", one):
        assert {"baseline", "first bad"} <= set(words(svg))
        assert "baseline: 10-03; first bad: 10-08." in svg


def test_times_of_small_programs_are_in_microseconds():
    small = row()
    small["latency_ms"] = {"p50": 0.005, "p90": 0.006, "p99": 0.01, "count": 9}
    (svg, *_) = pictured.of_program(Drawings(), "p", program(small, past=nights(small, 3)))
    assert "latency, p50 to p90 (µs)" in words(svg)
    assert "5.00 µs" in page.cost(small)


def test_a_first_night_has_no_trend():
    assert pictured.of_program(Drawings(), "p", program(row())) == []


def test_pictures_of_a_page_share_their_style():
    drawings = Drawings()
    spots = [Spot("a", 1.0), Spot("b", 2.0)]
    first = trends.trend(drawings, "x", spots, title="t", unit="")
    rules = drawings.css
    second = trends.trend(drawings, "y", spots, title="t", unit="")
    assert drawings.css == rules
    assert "style=" not in first
    assert {*re.findall(r'class="(\w+)"', first)} == {*re.findall(r"\.(\w+)\{", rules)}
    assert re.sub(r'"#?x-|url\(#x-|" x-', "", first) != first
    assert not {*re.findall(r'id="([^"]+)"', first)} & {*re.findall(r'id="([^"]+)"', second)}


def test_settings_of_the_user_change_nothing():
    import matplotlib

    def drawn():
        return trends.trend(Drawings(), "x", [Spot("a", 1.0), Spot("b", 2.0)], title="t", unit="")

    before = drawn()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "xtick.major.pad": 20}):
        assert drawn() == before


def test_nights_are_not_changed_by_the_page():
    past = nights(row(), 3)
    kept = copy.deepcopy(past)
    page.render(Material("t", "", "", [program(row(), past=past)]))
    assert past == kept
