"""A run: what is kept of it, what a resumed one does again, and what it tells in the end."""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from toolchain import devices
from toolchain.devices import lease
from toolchain.devices.unix import UnixDevice
from toolchain.errors import UserError
from toolchain.history import History, Judged
from toolchain.nightly import main, options, outcome, runs
from toolchain.nightly.attempt import Attempts
from toolchain.nightly.scheduler import Item
from toolchain.nightly.steps import Steps
from toolchain.tests import farm
from toolchain.tests.projects import write_recipe

RUN = "2026-11-21T19-30-00Z-12ab"


@pytest.fixture
def history(tmp_path):
    with History(str(tmp_path / "history.sqlite")) as opened:
        opened.begin(RUN, {"revision": "r", "options": "o"})
        yield opened


def keys(planned):
    return {program.key for program in planned.programs}


def night(tmp_path, history, planned, **how):
    folder = runs.folder(tmp_path / "build", RUN)
    probe = how.pop("probe", farm.well)
    return farm.night(planned, history, RUN, folder, farm.Fakes(folder, **how), probe=probe)


def test_everything_is_recorded_once_with_its_samples(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 3}, items=2)
    one = night(tmp_path, history, planned)
    one.work(2)
    assert history.finished(RUN) == keys(planned)
    for row in history.rows(RUN):
        assert row.verdict == "pass"
        assert row.row["unit"] == row.unit == row.row["device"]
        assert row.row["attempts"][0]["unit"] == row.unit
        assert history.samples(RUN, row.key)["status"] == "measured"
    tried = Counter((a.key, a.attempt) for a in history.attempts(RUN))
    assert tried == Counter((key, 1) for key in keys(planned))
    assert one.journal.left() == []


def test_the_programs_of_a_recipe_stay_on_one_unit(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 4}, items=3, programs=3)
    night(tmp_path, history, planned).work(2)
    unit_of = {row.key: row.unit for row in history.rows(RUN)}
    for work in planned.work:
        assert len({unit_of[program.key] for program in work.programs}) == 1


def test_a_break_is_kept_beside_what_another_unit_gave(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 3}, items=1, programs=1)
    one = night(tmp_path, history, planned, broken=lambda *which: which[2] == 1)
    one.work(2)
    for row in history.rows(RUN):
        first, second = row.row["attempts"]
        assert (first["verdict"], second["verdict"]) == ("infra-error", "pass")
        assert "the connection was lost" in first["reason"]
        assert first["unit"] != second["unit"] == row.unit
        assert row.attempt == 2
    statuses = Counter(one.status for one in history.attempts(RUN))
    assert statuses == {"infra-error": 3, "pass": 3}


def test_a_failure_is_never_tried_into_a_pass(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 3}, items=1, programs=2)
    bad = planned.work[0].programs[0].key

    def verdict(key, number):
        if key == bad:
            return "fail" if number == 1 else "pass"
        return "inconclusive" if number == 1 else "pass"

    night(tmp_path, history, planned, verdict=verdict).work(2)
    rows = {row.key: row for row in history.rows(RUN)}
    beside = planned.work[0].programs[1].key
    assert (rows[bad].verdict, rows[bad].attempt) == ("fail", 1)
    assert rows[beside].verdict == "inconclusive", "of the race in which the other one failed"
    others = {row.verdict for key, row in rows.items() if key not in (bad, beside)}
    assert others == {"pass"}


def test_what_is_undecided_is_raced_once_more_and_both_are_kept(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 2}, items=1, programs=1)
    night(tmp_path, history, planned, verdict=lambda *_: "inconclusive").work(2)
    for row in history.rows(RUN):
        assert [one["verdict"] for one in row.row["attempts"]] == ["inconclusive"] * 2
        assert (row.verdict, row.attempt) == ("inconclusive", 2)


def test_an_undecided_result_stands_when_the_second_race_breaks(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 2}, items=1, programs=1)
    how = {"verdict": lambda *_: "inconclusive", "broken": lambda *which: which[2] > 1}
    one = night(tmp_path, history, planned, **how)
    one.work(1)
    assert {row.verdict for row in history.rows(RUN)} == {"inconclusive"}
    assert {row.attempt for row in history.rows(RUN)} == {1}
    assert one.journal.broken == {}
    _, page, _, folder = told(tmp_path, history, planned)
    discounted = set(re.findall(r"attempt (\d) on \S+ does not count: (\S+)", page))
    assert discounted == {("2", "infra-error"), ("3", "infra-error")}
    for row in json.loads((folder / "summary.json").read_bytes()):
        lasted = {one["attempt"]: one["seconds"] for one in row["attempts"]}
        assert row["seconds"] == lasted[1]


def test_a_pool_that_is_gone_ends_as_infra_error(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 2, "arm64@pi4": 2}, items=3, programs=1)
    one = night(
        tmp_path,
        history,
        planned,
        broken=lambda _key, unit, _number: "pi4" in unit,
        probe=lambda unit, _: SimpleNamespace(
            healthy="pi4" not in unit.name, reasons=["no answer on port 22"]
        ),
    )
    one.work(2)
    assert history.finished(RUN) == {p.key for w in planned.work[:6] for p in w.programs}
    assert len(one.journal.left()) == 6, "a resumed run tries them again"
    one.journal.close()
    assert history.finished(RUN) == keys(planned)
    lost = [row for row in history.rows(RUN) if row.verdict == "infra-error"]
    assert len(lost) == 6
    assert {reason for row in lost for reason in row.reasons} == {
        "no unit of its pool is left to work on"
    }
    reasons = {one.unit: one.reason for one in history.quarantined(RUN)}
    assert reasons == {f"arm64@pi4-{k}": "no answer on port 22" for k in (0, 1)}


def test_a_resumed_run_does_only_what_is_left(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 2}, items=5)
    ledger = tmp_path / "ledger"
    first = night(tmp_path, history, planned, ledger=ledger)
    first._left = first._left[:6]  # as if it had been killed then
    first.work(2)
    second = night(tmp_path, history, planned, ledger=ledger)
    assert len(second.journal.left()) == 4
    assert second.told() == "10 items, 6 of them measured already, on 2 units"
    second.work(2)
    begun = Counter(json.loads(line)[1] for line in ledger.read_text().splitlines())
    assert begun == Counter({work.key: 2 for work in planned.work})  # begin and over, once each
    assert history.finished(RUN) == keys(planned)


def test_a_kill_between_the_file_and_the_history_is_made_good(tmp_path, history):
    """The moment after an item is finished: its line is on the disk, its rows are not kept."""
    planned = farm.plan(tmp_path, {"arm64@pi5": 1}, items=2)
    one = night(tmp_path, history, planned)

    class Killed(BaseException):
        pass

    def killed(*_args, **_options):
        raise Killed

    one.journal._put = killed
    with pytest.raises(Killed):
        one.work(2)
    assert history.finished(RUN) == set()
    ledger = tmp_path / "ledger"
    second = night(tmp_path, history, planned, ledger=ledger)
    finished = history.finished(RUN)
    assert len(finished) in (2, 4), "both programs of an item"
    second.work(2)
    begun = {json.loads(line)[1] for line in ledger.read_text().splitlines()}
    assert begun == {w.key for w in planned.work if w.programs[0].key not in finished}
    assert history.finished(RUN) == keys(planned)


def test_a_kill_between_the_attempts_of_two_programs_is_made_good(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 1}, items=1)
    one = night(tmp_path, history, planned)
    keep, calls = history.record_attempt, itertools.count()

    def killed(*given):
        if next(calls) == 1:
            raise KeyboardInterrupt
        keep(*given)

    history.record_attempt = killed
    with pytest.raises(KeyboardInterrupt):
        one.work(2)
    del history.record_attempt
    assert len(history.attempts(RUN)) == 1
    night(tmp_path, history, planned)
    assert sorted(one.key for one in history.attempts(RUN)) == sorted(keys(planned))


def test_what_is_to_be_mended_on_a_unit_is_another_units_chance(tmp_path, monkeypatch):
    """A key that cannot be read ends the work on one unit, not that on the pool."""
    planned = farm.plan(tmp_path, {"arm64@pi5": 1}, items=1)
    (unit,) = planned.pools[0].units
    attempts = Attempts(Steps(), tmp_path / "run", {unit.name: unit})
    mend = UserError("cannot be read", where="keys/pi5", hint="chmod u+r keys/pi5")

    def connect(_unit):
        raise mend

    monkeypatch.setattr(devices, "connect", connect)
    (work,) = planned.work
    result = attempts(Item(work.key, work.pool.name, 1.0, work), unit.name, 1)
    assert (result.state, result.found) == ("broken", None)
    assert result.reason == str(mend)


def test_this_host_is_not_held_between_its_steps(tmp_path, monkeypatch):
    """A race there waits until no step is at work: also for one that would wait for the lease."""
    monkeypatch.setenv("SLIPWAY_LEASE", str(tmp_path / "lease"))
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    attempts = Attempts(Steps(), tmp_path / "run", {"local": devices.resolve("local")})
    with attempts._held("local") as token, devices.connect(devices.resolve("local")) as device:
        assert token is None
        assert isinstance(device, UnixDevice)
        assert lease.status(device) is None


def test_a_torn_line_is_no_attempt(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 1}, items=2, programs=1)
    night(tmp_path, history, planned).work(2)
    file = runs.folder(tmp_path / "build", RUN) / "attempts.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"item": "tiny-0/arm64@arm64@pi5", "fin')
    again = night(tmp_path, history, planned)
    assert file.read_bytes() == whole
    assert again.journal.begun(planned.work[0]) == 1


def test_attempts_after_a_resumption_have_new_numbers(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 2}, items=1, programs=1)
    one = night(tmp_path, history, planned, broken=lambda *_: True)
    one.work(1)
    assert len(one.journal.left()) == 2
    two = night(tmp_path, history, planned)
    two.work(1)
    for row in history.rows(RUN):
        assert [one["attempt"] for one in row.row["attempts"]] == [1, 2, 3]
        assert row.attempt == 3


def test_the_longest_of_the_last_night_comes_first(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 1}, items=4, programs=1)
    order = [work.key for work in planned.work]
    lasts = dict(zip(order, (0.1, 0.5, 0.3, 0.7), strict=True))
    night(tmp_path, history, planned, seconds=lasts.__getitem__).work(0)
    history.begin("2026-11-22T19-30-00Z-12ab", {"revision": "r"})
    folder, ledger = tmp_path / "next", tmp_path / "ledger"
    fakes = farm.Fakes(folder, ledger=ledger)
    farm.night(planned, history, "2026-11-22T19-30-00Z-12ab", folder, fakes).work(0)
    begun = [json.loads(line)[1] for line in ledger.read_text().splitlines() if "begin" in line]
    assert begun == [order[k] for k in (3, 1, 2, 0)]


def run(name, state, options="", bundles="b", host=""):
    facts = {"options": options or asked().same(), "bundles": bundles}
    facts["host"] = host or platform.node()
    return SimpleNamespace(id=name, state=state, facts=facts)


def asked(*words):
    return options.read(["target=arm64", *words])


NAMES = [f"2026-11-2{k}T19-30-00Z-12ab" for k in range(4)]


def test_which_run_is_gone_on_with():
    known = [
        run(NAMES[0], "stopped"),
        run(NAMES[1], "running"),
        run(NAMES[2], "complete"),
        run(NAMES[3], "running", options="target=x86_64"),
        run("of another host, which may be at work on it", "running", host="elsewhere"),
    ]
    assert runs.chosen(asked("resume=1"), known, "b") == NAMES[1]
    assert runs.chosen(asked(f"run={NAMES[0]}", "retries=5"), known, "b") == NAMES[0]
    new = runs.chosen(asked(), known, "b")
    assert re.fullmatch(options.RUN, new)
    assert new not in NAMES


@pytest.mark.parametrize(
    ("word", "known", "message"),
    [
        ("resume=1", run(NAMES[0], "complete"), "no run with these options was stopped"),
        ("resume=1", run(NAMES[0], "stopped", "target=x"), "no run with these options was stopped"),
        ("resume=1", run(NAMES[0], "stopped", bundles="old"), "measured other bundles"),
        (f"run={NAMES[1]}", run(NAMES[0], "stopped"), "there is no such run"),
        (f"run={NAMES[0]}", run(NAMES[0], "stopped", "target=x"), "they were: target=x"),
        (f"run={NAMES[0]}", run(NAMES[0], "stopped", bundles="old"), "measured other bundles"),
    ],
)
def test_a_run_that_cannot_be_gone_on_with_is_refused(word, known, message):
    with pytest.raises(UserError, match=message):
        runs.chosen(asked(word), [known], "b")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("taget=arm64", "did you mean 'target'"),
        ("target=", "has no value"),
        ("retries=many", "'many' is no number from 0 to 20"),
        ("resume=yes", "'yes' is neither 0 nor 1"),
        ("run=last", "'last' is no name of a run"),
        ("history=mysql://h/x", "a history cannot be kept by 'mysql'"),
    ],
)
def test_an_option_that_means_nothing_is_refused(word, message):
    with pytest.raises(UserError) as said:
        options.read([word])
    assert message in str(said.value)


def test_a_history_that_cannot_be_used_is_told_before_anything_is_built(tmp_path, monkeypatch):
    (tmp_path / "history").write_text("it is no database at all")
    monkeypatch.setattr(main, "_built", lambda *_: pytest.fail("it was built"))
    with pytest.raises(UserError, match="no SQLite database"):
        main.main(["target=arm64", "recipe=digits", f"history={tmp_path}/history"])


def test_paths_count_from_where_the_user_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIPWAY_FROM", str(tmp_path))
    words = ("recipes=r", "devices=d", "build=b")
    for form in ("history=h", "history=sqlite:///h"):
        got = asked(*words, form)
        assert [got.recipes, got.devices, got.build] == [tmp_path / name for name in "rdb"]
        assert got.history == f"sqlite:///{tmp_path}/h"
    assert asked().history == f"sqlite:///{Path.cwd()}/history.sqlite"


def test_the_command_that_goes_on_names_the_history_without_its_password():
    said = asked("device=qemu:cortex-a72*2", "history=postgresql://me:word@db/x").resumed(NAMES[0])
    assert "history=postgresql+psycopg://me:***@db/x" in said
    assert "'device=qemu:cortex-a72*2'" in said, "which a shell would expand"
    assert said.endswith(f"run={NAMES[0]}")


def session(order, kill_after=None):
    """One session of the farm, killed after so many seconds; whether it came to its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "toolchain.tests.farm", json.dumps(order)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.wait(timeout=kill_after or 600) == 0
    except subprocess.TimeoutExpired:
        assert kill_after, "it does not end"
        process.kill()
        process.wait()
        return False
    return True


def kept(folder):
    """What the history holds of the run: what was measured, by key."""
    with History(str(folder / "history.sqlite")) as opened:
        return {
            row.key: (row.unit, row.attempt, opened.samples(RUN, row.key))
            for row in opened.rows(RUN)
        }


def killed_and_resumed(order, kills, seed):
    """Sessions until the run is complete; the lines of the ledger, and what was kept in the end."""
    folder, chance = Path(order["folder"]), random.Random(seed)
    ledger = folder / "ledger"
    before: dict = {}
    for number in itertools.count():
        old = len(ledger.read_text().splitlines()) if ledger.exists() else 0
        ended = session(order, chance.uniform(2, 6) if number < kills else None)
        after = kept(folder)
        assert {key: after.get(key) for key in before} == before, "what was kept stays as it was"
        lines = [json.loads(line) for line in ledger.read_text().splitlines()[old:]]
        over = Counter(item for what, item, *_ in lines if what == "over")
        assert set(over.values()) <= {1}, "nothing is measured twice in a session"
        before, done = after, {item for what, item, *_ in lines if what == "begin"}
        yield ended, done, after
        if ended:
            return


@pytest.mark.slow
def test_kills_lose_nothing_and_repeat_nothing(tmp_path):
    """SIGKILL at random moments: what was finished stays, and is not begun again."""
    pools = {"arm64@pi4": 20, "arm64@pi5": 40}
    order = {"folder": str(tmp_path), "pools": pools, "items": 8, "boards": 0}
    order |= {"seconds": [0.2, 3], "chance": 0.05}
    planned = farm.plan(tmp_path, pools, items=8)
    keys_of = {work.key: {one.key for one in work.programs} for work in planned.work}
    finished: set = set()
    sessions = 0
    for _ended, begun, after in killed_and_resumed(order, kills=4, seed=1):
        again = {item for item in begun if keys_of[item] <= finished}
        assert again == set(), "an item that was finished is not begun again"
        finished, sessions = set(after), sessions + 1
    assert sessions > 3, "it was killed more than a few times"
    assert finished == keys(planned)
    for work in planned.work:
        places = {after[one.key][:2] for one in work.programs}
        assert len(places) == 1, "the programs of an item come from one race"
        for one in work.programs:
            unit, attempt, samples = after[one.key]
            told = hashlib.sha256(f"{one.key} {unit} {attempt}".encode()).hexdigest()
            assert samples["figure"] == told


def judged(verdict="no baseline", *reasons):
    return lambda *_: Judged(verdict, reasons)


def told(tmp_path, history, planned, judge=None, refused=None):
    """Outcome, the page, the exit status and the folder of a run."""
    found = outcome.gather(history, RUN, planned.programs, ["x: why"], judge or judged())
    history.end(RUN, "complete")
    folder = runs.folder(tmp_path / "build", RUN)
    page = outcome.tell(found, history, RUN, folder)
    return found, page, outcome.status(found, refused or {}), folder


@pytest.mark.parametrize(
    ("verdict", "gate", "status"),
    [
        ("pass", "pass", 0),
        ("pass", "no baseline", 0),
        ("pass", "inconclusive", 0),
        ("pass", "regression", 1),
        ("fail", "pass", 1),
        ("inconclusive", "pass", 1),
        ("infra-error", "pass", 3),
    ],
)
def test_the_exit_status_is_that_of_the_worst_verdict(tmp_path, history, verdict, gate, status):
    planned = farm.plan(tmp_path, {"arm64@pi5": 1}, items=2, programs=1)
    first = planned.work[0]
    bad = first.programs[0].key
    one = night(
        tmp_path,
        history,
        planned,
        verdict=lambda key, _: verdict if key == bad else "pass",
        broken=lambda key, *_: verdict == "infra-error" and key == first.key,
    )
    one.work(1)
    one.journal.close()
    why = ("no times that can be trusted",)
    judge = lambda _h, _r, key, *_: Judged(*((gate, why) if key == bad else ("pass", ())))  # noqa: E731
    found, page, code, _ = told(tmp_path, history, planned, judge)
    assert code == status
    assert (gate if verdict == "pass" and gate == "regression" else verdict) in page
    undecided = "against earlier runs: inconclusive: no times that can be trusted"
    assert (undecided in page) == (gate == "inconclusive"), "it passes, but not in silence"
    assert outcome.status(found, {"x": UserError("mend it")}) == 2


def test_the_page_tells_attempts_quarantine_and_what_was_left_out(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 2}, items=1, programs=1)
    bad = planned.pools[0].units[0].name
    one = night(
        tmp_path,
        history,
        planned,
        broken=lambda _key, unit, _number: unit == bad,
        probe=lambda unit, _: SimpleNamespace(healthy=unit.name != bad, reasons=["no answer"]),
    )
    one.work(2)
    _, page, status, _ = told(tmp_path, history, planned)
    assert f"attempt 1 on {bad} does not count: infra-error" in page
    assert f"Quarantined: {bad}: no answer" in page
    assert "Left out: x: why" in page
    assert status == 0


def test_a_regression_names_the_runs(tmp_path, history):
    planned = farm.plan(tmp_path, {"arm64@pi5": 1}, items=1, programs=1)
    night(tmp_path, history, planned).work(2)
    judge = judged("regression", "instructions 1.20x of run a; first bad run b")
    _, page, _, folder = told(tmp_path, history, planned, judge)
    assert "regression: instructions 1.20x of run a; first bad run b" in page
    (row,) = json.loads((folder / "summary.json").read_bytes())
    assert row["verdict"] == "regression"
    assert row["gate"]["baseline_run"] is None, "of the fake; the key is there"


def test_junit_is_what_its_schema_says(tmp_path, history):
    """The schema of Ant's JUnit task, as CI servers take it: order, and attributes, of elements."""
    planned = farm.plan(tmp_path, {"arm64@pi5": 2}, items=4, programs=1)
    keys_of = [program.key for program in planned.programs]
    verdicts = dict(zip(keys_of, ("fail", "inconclusive", "pass", "pass"), strict=False))
    lost = planned.work[3].key
    one = night(
        tmp_path,
        history,
        planned,
        verdict=lambda key, _: verdicts.get(key, "pass"),
        broken=lambda key, *_: key == lost,
    )
    one.work(0)
    one.journal.close()
    bad = keys_of[4]

    def judge(_history, _run, key, *_):
        return Judged("regression" if key == bad else "pass", ("slower by \x1b[1m1.2x <&>",))

    _, _, _, folder = told(tmp_path, history, planned, judge)
    root = ElementTree.parse(folder / "junit.xml").getroot()
    assert root.tag == "testsuites"
    (suite,) = root
    assert [child.tag for child in suite] == [
        "properties",
        *["testcase"] * 8,
        "system-out",
        "system-err",
    ]
    wanted = [
        "id",
        "name",
        "package",
        "timestamp",
        "hostname",
        "tests",
        "failures",
        "errors",
        "skipped",
        "time",
    ]
    assert sorted(suite.attrib) == sorted(wanted)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert set(cases) == set(keys_of)
    for case in cases.values():
        assert sorted(case.attrib) == ["classname", "name", "time"]
        assert len(case) <= 1
        for child in case:
            needed = {"message"} if child.tag == "skipped" else {"message", "type"}
            assert set(child.attrib) == needed
    tags = {key: [child.tag for child in case] for key, case in cases.items()}
    assert tags[keys_of[0]] == tags[bad] == ["failure"]
    assert tags[keys_of[1]] == ["skipped"]
    assert tags[keys_of[3]] == ["error"]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == list("8211")
    assert cases[bad][0].text == "slower by �[1m1.2x <&>"
    for one in suite.iter("property"):
        assert set(one.attrib) == {"name", "value"}


@pytest.fixture
def nightly(built, tmp_path):
    """Calls the nightly of a project whose `tiny` is built, as scripts/nightly does."""
    script = built.file("scripts/scons")
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.join(built.command())} "$@"\n')
    script.chmod(0o755)
    words = ["target=arm64", f"history={tmp_path}/history.sqlite"]
    command = [sys.executable, "-m", "toolchain.nightly.main", *words]
    return lambda *more, **how: subprocess.Popen(
        [*command, *more],
        cwd=built.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **how,
    )


def run_of(said):
    found = re.search(r"run (\S+Z-[0-9a-f]{4})", said)
    assert found, said
    return found[1]


@pytest.mark.slow
@pytest.mark.board
def test_a_night_on_boards(built, nightly, tmp_path):
    process = nightly("device=qemu:cortex-a72*2")
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    assert "2 items on 2 units" in said
    folder = built.file(f"build/nightly/{run_of(said)}")
    rows = json.loads((folder / "summary.json").read_bytes())
    assert {row["verdict"] for row in rows} == {"pass"}
    assert {row["device"] for row in rows} == {"qemu:cortex-a72"}
    assert {row["unit"] for row in rows} == {f"qemu:cortex-a72#{k}" for k in (1, 2)}
    of_build = {
        row["variant"]: row["instructions_per_inference"]
        for row in json.loads(built.file("build/summary.json").read_bytes())
    }
    assert {r["variant"]: r["instructions_per_inference"] for r in rows} == of_build
    assert ElementTree.parse(folder / "junit.xml").getroot()[0].get("tests") == "2"
    assert (folder / "report.html").stat().st_size > 1000
    with History(str(tmp_path / "history.sqlite")) as opened:
        assert opened.run(run_of(said)).state == "complete"
        assert opened.finished(run_of(said)) == {
            f"tiny/{variant}/xnnpack/arm64" for variant in ("float", "int8")
        }


@pytest.mark.slow
@pytest.mark.board
def test_a_recipe_that_cannot_be_built_keeps_back_no_other(built, nightly):
    folder = write_recipe(built.file("recipes/broken"), model="def build():\n    return 1 / 0\n")
    try:
        process = nightly("device=qemu:cortex-a72", "variant=int8")
        said = process.communicate(timeout=600)[0]
    finally:
        shutil.rmtree(folder)
    assert process.returncode == 2, said
    assert "Left out: recipe broken: its build failed with status 2" in said
    (row,) = json.loads(built.file(f"build/nightly/{run_of(said)}/summary.json").read_bytes())
    assert (row["recipe"], row["verdict"]) == ("tiny", "pass")


@pytest.mark.slow
@pytest.mark.board
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_night_that_was_stopped_goes_on(nightly, tmp_path, how):
    said = []
    with nightly("device=qemu:cortex-a72") as process:
        for line in process.stdout:
            said.append(line)
            if "[1/2]" in line:
                process.send_signal(how)
    assert process.returncode == {signal.SIGKILL: -9}.get(how, 128 + how), "".join(said)
    run = run_of("".join(said))
    with History(str(tmp_path / "history.sqlite")) as opened:
        before = {row.key: row.recorded for row in opened.rows(run)}
        if how != signal.SIGKILL:  # which may come before the history has what is on the disk
            assert len(before) == 1
        assert opened.run(run).state == ("running" if how == signal.SIGKILL else "stopped")
    if how != signal.SIGKILL:
        assert "to go on: ./scripts/nightly target=arm64 device=qemu:cortex-a72" in "".join(said)
        assert f"run={run}" in "".join(said)
    other = nightly("device=qemu:cortex-a72", "resume=1")
    more = other.communicate(timeout=600)[0]
    assert other.returncode == 0, more
    assert run_of(more) == run
    assert "1 of them measured already" in more
    with History(str(tmp_path / "history.sqlite")) as opened:
        after = {row.key: row.recorded for row in opened.rows(run)}
        assert len(after) == 2
        assert {key: after[key] for key in before} == before
        assert Counter(one.key for one in opened.attempts(run)).most_common(1)[0][1] == 1


@pytest.mark.slow
def test_a_build_that_fails_ends_the_night_with_its_status(nightly, tmp_path):
    process = nightly("variant=int9")
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert "unknown variant 'int9'" in said
    assert not (tmp_path / "history.sqlite").exists()
