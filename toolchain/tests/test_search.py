"""`scheme = "auto"`: it takes the cheapest that holds, in stages, and does nothing twice."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from toolchain import schemes
from toolchain.errors import CheckFailed, InfraError, UserError
from toolchain.material import Material
from toolchain.schema import Device, Measure, decode
from toolchain.schemes import auto
from toolchain.search import choice, kept, report
from toolchain.search.choice import Limit, Tried
from toolchain.search.plan import Candidate, Given, Search
from toolchain.search.trial import FIGURES, Inputs, Trial, costs
from toolchain.steps import search as search_step
from toolchain.tests.conftest import ROOT, copied

LIMIT = Limit(max_drop=0.01)
FLOAT = {"metric": 0.9, "bytes_moved": 400, "instructions": 1000, "model_bytes": 4000}
STATIC = {"metric": 0.895, "bytes_moved": 100, "instructions": 900, "model_bytes": 1000}


def tried(scheme="float", *, passes=True, trouble="", **figures):
    given = dict.fromkeys(FIGURES) | figures
    if given["metric"] is not None:
        given["drop"] = 0.9 - given["metric"]
    return Tried(Candidate("usual", scheme), given, passes, trouble)


# The rule of choice


def test_the_cheapest_is_taken_and_not_the_first_that_holds():
    rows = [
        tried(**FLOAT),
        tried("int8_dynamic", **{**STATIC, "bytes_moved": 300}),
        tried("int8_static", **STATIC),
        tried("int8_qat", **{**STATIC, "bytes_moved": 50}, passes=False),
    ]
    assert choice.chosen(rows, emulated=True) is rows[2]


def test_bytes_moved_come_before_instructions_on_a_board():
    rows = [tried(**{**FLOAT, "instructions": 1}), tried("int8_static", **STATIC)]
    assert choice.chosen(rows, emulated=True) is rows[1]


def test_latency_alone_decides_on_a_real_device():
    rows = [tried(**FLOAT, latency_ms=2.0), tried("int8_static", **STATIC, latency_ms=2.1)]
    assert choice.chosen(rows, emulated=False) is rows[0]


@pytest.mark.parametrize(
    "better",
    [{"instructions": 899}, {"model_bytes": 999}, {"metric": 0.896}, {"sqnr_db": 31.0}],
)
def test_equals_are_told_apart_by_the_next_figure(better):
    first = tried("int8_static", **STATIC, sqnr_db=30.0)
    second = tried("int8_qat", **{**STATIC, "sqnr_db": 30.0, **better})
    assert choice.chosen([first, second], emulated=True) is second
    assert choice.chosen([second, first], emulated=True) is second


def test_of_complete_equals_the_first_is_taken_and_no_loss_is_the_best():
    same = [tried("int8_static", **STATIC, sqnr_db=30.0) for _ in range(2)]
    assert choice.chosen(same, emulated=True) is same[0]
    exact = tried("int8_qat", **STATIC)
    assert choice.chosen([*same, exact], emulated=True) is exact


def test_float_is_the_answer_if_nothing_else_holds_and_a_finding():
    rows = [tried(**FLOAT), tried("int8_static", **STATIC, passes=False)]
    assert choice.chosen(rows, emulated=True) is rows[0]
    said = report.findings(rows, rows[0], LIMIT, emulated=True)
    assert said == ["nothing that was tried has a drop of 0.01 or less and is cheaper than "
                    "the float model"]  # fmt: skip


def test_a_choice_that_costs_more_than_float_in_something_is_a_finding():
    rows = [tried(**FLOAT), tried("int8_static", **{**STATIC, "instructions": 1001})]
    said = report.findings(rows, rows[1], LIMIT, emulated=True)
    assert len(said) == 1
    assert "not below the float model in user instructions" in said[0]
    assert report.findings([rows[0], tried("int8_static", **STATIC)], rows[1], LIMIT, True) == said
    cheaper = tried("int8_static", **STATIC)
    assert report.findings([rows[0], cheaper], cheaper, LIMIT, True) == []


def test_without_anything_that_ran_there_is_no_choice():
    with pytest.raises(CheckFailed, match="no program ran on the device"):
        choice.chosen([tried(passes=False, trouble="killed by SIGILL", **FLOAT)], emulated=True)


def test_limits():
    drop, floor = Limit(max_drop=0.01), Limit(min_metric=0.9)
    assert drop.holds({"metric": 0.5, "drop": 0.01})
    assert not drop.holds({"metric": 0.5, "drop": 0.0101})
    assert floor.holds({"metric": 0.9, "drop": 0.5})
    assert not floor.holds({"metric": 0.899, "drop": 0.0})
    assert (drop.floor(0.95), floor.floor(0.95)) == (0.94, 0.9)


def test_the_front_holds_what_nothing_beats():
    cheap, dear = tried("int8_static", **STATIC), tried(**FLOAT)
    beaten = tried("int8_dynamic", **{**STATIC, "bytes_moved": 101})
    unmeasured = tried("int8_qat", metric=1.0, bytes_moved=1, model_bytes=1)
    twin = tried("int8_weight_only", **STATIC)
    assert choice.front([dear, beaten, cheap, unmeasured, twin], True) == [dear, cheap, twin]


@pytest.mark.parametrize("emulated", [True, False])
def test_the_choice_is_always_on_the_front(emulated):
    chance = random.Random(0)
    names = (*choice.COSTS[emulated], "metric")
    for _ in range(300):  # few values, so that there are many ties
        rows = [tried(**{name: chance.randint(0, 2) for name in names}) for _ in range(6)]
        limit = Limit(min_metric=chance.randint(0, 1))
        rows = [Tried(r.candidate, r.figures, limit.holds(r.figures), "") for r in rows]
        if any(row.passes for row in rows):
            assert choice.chosen(rows, emulated) in choice.front(rows, emulated)


# What is tried, in order


CONVOLUTIONAL = {"conv2d": 3, "linear": 1, "relu": 3}
LINEAR = {"linear": 4, "embedding": 1, "gelu": 1}
ABLE: dict[str, dict[str, tuple]] = {
    name: {} for name in ("float", "static", "dynamic", "training")
}


def searched(holding=lambda _: False, *, operators=CONVOLUTIONAL, able=ABLE, **options):
    """A search in which exactly the candidates hold that `holding` says."""
    given = Given(operators, "xnnpack", able, options.pop("calibration", True), True)
    metrics = options.pop("metrics", {})

    def attempt(candidate):
        passes = candidate.scheme == "float" or holding(candidate)
        figures = {"metric": metrics.get(candidate.scheme, 0.1), "sqnr_db": 1.0, "drop": 0.0}
        return Tried(candidate, figures, passes)

    search = Search(given, auto.Options(**options), attempt, lambda _: ["b", "c", "a", "d"])
    search.run()
    return search


def names(search):
    return [one.candidate.name for one in search.tried]


def test_static_that_holds_ends_the_search_of_a_convolutional_model():
    assert names(searched(lambda c: c.scheme == "int8_static")) == [
        "float", "int8_static observer=histogram",
    ]  # fmt: skip


def test_observers_are_tried_until_one_holds():
    found = searched(lambda c: c.options.get("observer") == "minmax", max_float_layers=2)
    assert names(found)[1:] == [f"int8_static observer={o}" for o in ("histogram", "mse", "minmax")]


def test_then_sensitive_layers_stay_in_float_one_more_each_time_and_training_is_last():
    found = searched(lambda c: c.options.get("skip") == ["b", "c"], observers=("mse", "minmax"))
    assert names(found) == [
        "float",
        "int8_static observer=mse",
        "int8_static observer=minmax",
        "int8_static observer=mse skip=b",
        "int8_static observer=mse skip=b,c",
        "int8_qat",
    ]
    assert [one.candidate.stage for one in found.tried] == [
        "float", "usual", "observers", "mixed", "mixed", "training",
    ]  # fmt: skip


def test_not_all_layers_are_kept_in_float_and_not_more_than_wanted():
    for most, skipped in ((9, 3), (2, 2), (0, 0)):
        found = searched(observers=("mse",), max_float_layers=most)
        assert sum("skip" in one.candidate.options for one in found.tried) == skipped
    assert {"stage": "mixed", "scheme": "", "why": "max_float_layers = 0"} in found.passed_over


def test_linear_models_are_quantized_dynamically_first_but_static_may_be_cheaper():
    found = searched(lambda c: c.scheme.startswith("int8"), operators=LINEAR)
    assert names(found) == [
        "float", "int8_dynamic embeddings=true", "int8_static observer=histogram",
    ]  # fmt: skip


def test_dynamic_that_holds_leaves_no_need_of_mixed_precision():
    found = searched(lambda c: c.scheme == "int8_dynamic", operators=LINEAR, observers=("mse",))
    assert [one.candidate.stage for one in found.tried] == ["float", "usual", "usual", "training"]


@pytest.mark.parametrize(
    ("best", "base"),
    [
        ("int8_dynamic", "int8_dynamic embeddings=true"),
        ("int8_static", "int8_static observer=mse"),
    ],
)
def test_mixed_precision_starts_from_the_most_accurate(best, base):
    found = searched(
        operators=LINEAR, observers=("mse",), max_float_layers=1, train=False, metrics={best: 0.9}
    )
    assert names(found)[-1] == f"{base} skip=b"
    assert found.passed_over[-1] == {
        "stage": "training", "scheme": "int8_qat", "why": "train = false",
    }  # fmt: skip


def test_what_cannot_be_tried_is_told():
    found = searched(able={"float": {}}, calibration=False)
    assert names(found) == ["float"]
    told = {row["scheme"]: row["why"] for row in found.passed_over}
    assert "no calibration data" in told["int8_static"]
    assert "cannot do the scheme 'int8_qat'" in told["int8_qat"]


def test_a_candidate_is_a_variant_with_all_options():
    variant = Candidate("mixed", "int8_static", {"observer": "mse", "skip": ["a"]}).variant()
    assert variant["scheme"] == "int8_static"
    assert variant["options"]["observer"] == "mse"
    assert variant["options"]["skip"] == ["a"]
    assert variant["options"]["granularity"] == "per_channel"


# What is kept


@pytest.fixture
def inputs(tmp_path):
    """Inputs whose content nothing reads."""
    folder = tmp_path / "runtime"
    (folder / "lib").mkdir(parents=True)
    names = ("model", "data", "reference", "target", "runner", "runtime", "tools")
    files = {name: folder / name for name in names}
    for path in files.values():
        path.write_text(path.name)
    tools = files.pop("tools")
    device, settings = folder / "device.json", folder / "measure.json"
    device.write_text(Device(name="qemu:cortex-a72", driver="qemu", cpu="cortex-a72").canonical())
    settings.write_text(Measure().canonical())
    return Inputs(
        **files, device=device, measure=settings, tools=[tools], folder=folder, backend="xnnpack",
        metric="top1", recipe="tiny", target_name="arm64",
    )  # fmt: skip


class FakeTrial(Trial):
    """Counts what is really done. Candidates named in `broken` fail as a broken device does."""

    def __init__(self, inputs, folder, limit=LIMIT, broken=()):
        super().__init__(
            inputs, limit, kept.Kept(folder, search_step._digest(inputs, inputs.model))
        )
        self.broken = broken
        self.done: Counter[str] = Counter()

    def _found(self, candidate, _here):
        if candidate.name in self.broken:
            raise InfraError("the board is gone")
        self.done[candidate.name] += 1
        figures = dict.fromkeys(FIGURES) | FLOAT | {"metric": 0.88, "drop": 0.02, "trouble": ""}
        if self._wanted(candidate, figures):
            figures["device"] = {"name": "board"}
        return figures


CANDIDATES = [Candidate("observers", "int8_static", {"observer": o}) for o in auto.OBSERVERS[:4]]


def test_a_search_that_was_stopped_does_only_what_is_missing(inputs, tmp_path):
    first = FakeTrial(inputs, tmp_path / "tried", broken=[CANDIDATES[2].name])
    done = [first.attempt(candidate) for candidate in CANDIDATES[:2]]
    with pytest.raises(InfraError):
        first.attempt(CANDIDATES[2])
    assert len(list((tmp_path / "tried").iterdir())) == 2
    again = FakeTrial(inputs, tmp_path / "tried")
    assert [again.attempt(candidate) for candidate in CANDIDATES][:2] == done
    assert set(again.done) == {candidate.name for candidate in CANDIDATES[2:]}


@pytest.mark.parametrize(
    "name", ["model", "data", "reference", "runner", "runtime", "device", "tools"]
)
def test_any_other_input_makes_what_was_kept_worthless(inputs, tmp_path, name):
    FakeTrial(inputs, tmp_path / "tried").attempt(CANDIDATES[0])
    path = inputs.tools[0] if name == "tools" else getattr(inputs, name)
    path.write_text(path.read_text() + " ")
    again = FakeTrial(inputs, tmp_path / "tried")
    again.attempt(CANDIDATES[0])
    assert again.done.total() == 1


def test_the_recipes_code_and_our_own_count_as_inputs(inputs):
    before = search_step._digest(inputs, inputs.model)
    (inputs.folder / "metric.py").write_text("")
    assert search_step._digest(inputs, inputs.model) != before
    files = {path.name for path in kept.source()}
    assert {"int8_static.py", "traffic.py", "histogram.py", "measure.py", "qemu.py"} <= files
    assert not files & {"test_search.py", "summary.py", "graph.py"}


def test_latency_is_reused_by_the_same_search_only(inputs):
    digests = [search_step._digest(inputs, path) for path in (inputs.model, inputs.data)]
    assert digests[0] == digests[1], "a count is the same for any search"
    inputs.device.write_text(Device(name="pi", driver="ssh", host="pi").canonical())
    digests = [search_step._digest(inputs, path) for path in (inputs.model, inputs.data)]
    assert digests[0] != digests[1]


def test_another_limit_asks_only_for_the_cost_that_is_missing(inputs, tmp_path):
    strict = FakeTrial(inputs, tmp_path / "tried", Limit(max_drop=0.01))
    assert not strict.attempt(CANDIDATES[0]).passes
    loose = FakeTrial(inputs, tmp_path / "tried", Limit(max_drop=0.03))
    assert loose.attempt(CANDIDATES[0]).passes
    assert loose.done.total() == 1
    back = FakeTrial(inputs, tmp_path / "tried", Limit(max_drop=0.01))
    assert not back.attempt(CANDIDATES[0]).passes
    assert back.done.total() == 0


# What a measurement says


def measurement(status="measured", emulated=True, counts=(7, 7)):
    runner = {"iterations": {"instructions": counts, "wall_ns": [2_000_000, 3_000_000]}}
    return {
        "status": status,
        "reason": "it broke",
        "device": {"name": "unit", "emulated": emulated},
        "provenance": {"device": {"cpu": "cortex-a72"}},
        "runner": runner,
    }


def test_a_board_gives_instructions_and_no_latency():
    found = costs(measurement())
    assert found["instructions"] == 7
    assert "latency_ms" not in found
    assert found["device"]["facts"] == {"cpu": "cortex-a72"}


def raced(**changes):
    runs = {"v/xnnpack": {"wall_ns": [1_000_000, 2_000_000, 3_000_000], "moved": []}}
    return {
        "status": "measured",
        "reason": "",
        "programs": {"v/xnnpack": {}},
        "failed": {},
        "wanted_rounds": 1,
        "rounds": [{"runs": runs}],
        **changes,
    }


def test_a_real_device_gives_the_times_of_a_race():
    real = measurement(emulated=False, counts=None)
    found = costs(real, raced())
    assert found["latency_ms"] == 2.0
    assert found["device"]["moved"] == []
    with pytest.raises(InfraError, match="gone"):
        costs(real, raced(status="infra-error", reason="gone"))
    with pytest.raises(CheckFailed, match="it crashed"):
        costs(real, raced(programs={}, failed={"v/xnnpack": "it crashed"}))


def test_a_broken_device_ends_the_search_and_a_broken_program_does_not():
    with pytest.raises(InfraError, match="it broke"):
        costs(measurement("infra-error"))
    with pytest.raises(CheckFailed, match="it broke"):
        costs(measurement("failed"))
    with pytest.raises(InfraError, match="counts no instructions"):
        costs(measurement(counts=None))


# Options and report


def test_options_of_auto():
    assert decode(auto.Options, {}, "here").largest_drop == auto.MAX_DROP
    assert decode(auto.Options, {"max_drop": 0.0}, "here").largest_drop == 0
    assert decode(auto.Options, {"min_metric": 0.9}, "here").largest_drop is None
    with pytest.raises(UserError, match="max_drop or min_metric, not both"):
        decode(auto.Options, {"min_metric": 0.9, "max_drop": 0.1}, "here")
    with pytest.raises(UserError, match="one of: entropy, histogram"):
        decode(auto.Options, {"observers": ["histogramm"]}, "here")
    with pytest.raises(UserError, match="is a search"):
        schemes.load("auto").quantize(None, auto.Options(), None, Material())  # type: ignore[arg-type]


def test_a_floor_above_the_float_model_is_refused():
    with pytest.raises(UserError, match=r"float model itself has 0\.9000"):
        search_step._check_floor(Limit(min_metric=0.91), 0.9)
    search_step._check_floor(Limit(min_metric=0.9), 0.9)


@pytest.mark.filterwarnings("ignore")
def test_the_report_tells_all_that_was_tried(tmp_path):
    rows = [
        tried(**FLOAT, device={"name": "board"}),
        tried("int8_static", **STATIC, device={"name": "board"}, sqnr_db=30.0),
        tried("int8_dynamic", passes=False, trouble="no kernel for it"),
    ]
    passed_over = [{"stage": "training", "scheme": "int8_qat", "why": "train = false"}]
    found = report.record(
        rows, rows[1], limit=LIMIT, emulated=True, metric="top1", floating=0.9, samples=12,
        passed_over=passed_over,
    )  # fmt: skip
    assert [row["chosen"] for row in found["tried"]] == [False, True, False]
    assert [row["on_front"] for row in found["tried"]] == [True, True, False]
    assert found["selected_on"]["samples"] == 12
    assert found["device"] == {"name": "board"}
    page = report.page(found, "tiny")
    for words in ("int8_static", "no kernel for it", "train = false", "12 evaluation samples"):
        assert words in page
    report.picture(found, 0.89, tmp_path / "search.svg", "tiny")
    assert "int8_static" in (tmp_path / "search.svg").read_text()


# For real


@pytest.mark.slow
@pytest.mark.board
@pytest.mark.filterwarnings("ignore")
def test_digits_hold_the_limit_for_less_and_nothing_is_done_twice(tmp_path):
    project = copied(tmp_path / "slipway")
    shutil.rmtree(project.folder / "recipes")
    shutil.copytree(ROOT / "recipes/digits", project.folder / "recipes/digits")
    said = project.scons("target=arm64", "recipe=digits", "variant=auto", timeout=1200)
    assert said.status == 0, said.out + said.err
    folder = project.file("build/digits/auto/xnnpack/arm64")
    found, variant = (json.loads((folder / f"{n}.json").read_bytes()) for n in ("search", "choice"))
    chosen = next(row for row in found["tried"] if row["chosen"])
    floating = found["tried"][0]
    assert {"scheme": chosen["scheme"], "options": chosen["options"]} == variant
    assert chosen["scheme"] != "float"
    assert chosen["drop"] <= 0.005
    assert chosen["on_front"]
    assert chosen["bytes_moved"] < 0.5 * floating["bytes_moved"]
    assert chosen["instructions"] != floating["instructions"]
    verdict = json.loads(next(Path(folder).glob("*/verdict.json")).read_bytes())
    assert verdict["verdict"] == "pass"
    assert verdict["accuracy"] == pytest.approx(chosen["metric"])
    (folder / "choice.json").unlink()
    again = project.scons("target=arm64", "recipe=digits", "variant=auto", timeout=1200)
    assert again.status == 0, again.out + again.err
    assert json.loads((folder / "choice.json").read_bytes()) == variant
    assert json.loads((folder / "search.json").read_bytes()) == found, "seconds too: from files"
    assert "iterations" not in "".join(again.out.splitlines()), "nothing was measured again"
