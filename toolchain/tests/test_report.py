"""The report: what has to be seen is there, whole, in any light, without a network."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest

from toolchain import report
from toolchain.errors import UserError
from toolchain.report import __main__ as command
from toolchain.report import page
from toolchain.report.material import SIGNS, Attempt, Gate, Material, Measurement, Program
from toolchain.tests.report_rows import broken, emulated, nights, row, run_of

VOID = {"meta", "link", "br"}
OPERATORS = [
    {"type": "Fully Connected (NC, QS8) GEMM", "calls": 35, "ns": 2017000, "share": 0.53},
    {"type": "Convolution <NHWC> & more", "calls": 17, "ns": 1348000, "share": 0.35},
    {"type": "Static Reshape", "calls": 1, "ns": 0, "share": 0.0},
]


class Page(HTMLParser):
    """What stands in a page; fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[tuple[str, str]] = []
        self.feed(text)
        assert self.open == [], "not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def said(self):
        return " ".join(" ".join(text for tag, text in self.words if tag != "style").split())


def program(made, *, past=(), gate=None, operators=(), unit="pi5", attempt=1):
    key = "/".join(made[name] for name in ("recipe", "variant", "backend", "target"))
    now = Measurement("night-30", "2026-10-31T02:00:00+00:00", unit, made, attempt)
    return Program(key, made["device"], now, past, gate, operators)


def material(*programs, **more):
    return Material("run night-30", "2026-10-31T02:00:00+00:00", "complete", programs, **more)


def shown(*programs, **more):
    return Page(page.render(material(*programs, **more)))


def everything():
    """A page with each verdict, both kinds of device, and every part that there can be."""
    late = row(variant="late", verdict="pass")
    return material(
        program(row(), past=nights(row(), 30), gate=Gate("pass"), operators=OPERATORS),
        program(
            late,
            past=nights(late, 30),
            gate=Gate("regression", ["p50 is 1.21x"], ["a note"], run_of(20), run_of(28)),
        ),
        program(row(variant="bad", verdict="fail", reasons=["drops by 0.03"])),
        program(broken(variant="lost"), past=nights(row(), 3), attempt=3),
        program(
            row(
                variant="odd",
                verdict="inconclusive",
                reasons=["p50 is undecided"],
                latency_moved=["others took 80%"],
            )
        ),
        program(emulated(), past=nights(emulated(), 3)),
        facts={"revision": "4f1c2ab", "host": "build-1"},
        attempts=[
            Attempt("digits/lost", "pi5", "pi5", 1, "infra-error", "the link broke"),
            Attempt("digits/lost", "pi5", "pi6", 2, "pass"),
        ],
        missing=["digits/gone/xnnpack/arm64"],
        quarantined={"pi7": "no answer in 10 s"},
        notes={"pi5": ["the CPU's governor is ondemand, not performance"]},
        left_out=["digits int4: the backend cannot"],
    )


@pytest.fixture(scope="module")
def whole():
    return Page(page.render(everything()))


def test_each_verdict_is_a_word_with_a_sign(whole):
    said = whole.said()
    for word, sign in SIGNS.items():
        assert f"{sign} {word}" in said
    assert len(set(SIGNS.values())) == len(SIGNS)
    assert (
        "Of 6 programs 1 failed, 1 got worse than before, 1 gave no result, "
        "1 could not be decided and 2 passed; missing since the run before: 1." in said
    )


def test_what_needs_a_look_comes_first_the_worst_on_top(whole):
    said = whole.said()
    first = said[said.index("Look at this first", said.index("What the words mean")) :]
    order = [
        "drops by 0.03",
        "p50 is 1.21x",
        "connection to pi5 lost",
        "no answer in 10 s",
        "digits/gone/xnnpack/arm64",
        "p50 is undecided",
    ]
    places = [first.index(text) for text in order]
    assert places == sorted(places)
    assert places[-1] < first.index("All programs")
    assert "Look at this first" not in shown(program(row())).said()


def test_one_reason_of_many_programs_is_said_once():
    lost = [program(broken(variant=f"v{k}")) for k in range(20)]
    said = shown(*lost).said()
    look = said[said.rindex("Look at this first") : said.rindex("All programs")]
    assert look.count("connection to pi5 lost") == 1
    assert "and 8 more" in look


def test_every_link_leads_somewhere_and_no_id_is_there_twice(whole):
    ids = Counter(attrs["id"] for _, attrs in whole.tags if "id" in attrs)
    assert [name for name, count in ids.items() if count > 1] == []
    links = [attrs["href"] for attrs in whole.all("a")]
    assert links
    assert [link for link in links if link[1:] not in ids] == []
    labels = [attrs["aria-labelledby"] for _, attrs in whole.tags if "aria-labelledby" in attrs]
    assert all(set(label.split()) <= set(ids) for label in labels)


def test_names_that_differ_only_in_signs_have_their_own_places():
    two = shown(program(row(variant="a.b")), program(row(variant="a-b")))
    assert len({attrs["id"] for attrs in two.all("details") if "id" in attrs}) == 2


def test_nothing_is_fetched_and_nothing_runs(whole):
    assert "://" not in whole.text.replace("&#58;", ":")
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in whole.tags}
    outer = [a.get("href", a.get("src", "")) for _, a in whole.tags if "href" in a or "src" in a]
    assert {link for link in outer if not link.startswith("#")} == {"data:,"}
    assert not [name for _, attrs in whole.tags for name in attrs if name.startswith("on")]
    assert "@import" not in whole.text
    assert re.findall(r"url\((?!#)", whole.text) == []
    policy = next(a["content"] for a in whole.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_it_fits_a_phone_and_the_dark(whole):
    viewport = next(a["content"] for a in whole.all("meta") if a.get("name") == "viewport")
    assert viewport == "width=device-width, initial-scale=1"
    assert "@media (max-width: 700px)" in whole.text
    assert "@media (prefers-color-scheme: dark)" in whole.text
    widths = [float(attrs["width"]) for attrs in whole.all("svg")]
    assert max(widths) <= 366, "wider than a phone's column"
    boxes = re.findall(r'<div class="scroll"[^>]*>\s*<table', whole.text)
    assert len(boxes) == len(whole.all("table"))
    assert not re.findall(r"#0[1-7]0[1-7]0[1-7]", whole.text), "a color that is not the page's"


def test_pictures_have_words(whole):
    titles = [text for tag, text in whole.words if tag == "title"]
    assert len(titles) == 1 + len(whole.all("svg"))
    assert len(whole.all("desc")) == len(whole.all("svg"))
    assert all(text.strip() for tag, text in whole.words if tag in ("title", "desc"))


def test_headings_do_not_jump(whole):
    levels = [int(tag[1]) for tag, _ in whole.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_what_did_not_pass_is_unfolded(whole):
    unfolded = [attrs["id"] for attrs in whole.all("details") if "id" in attrs and "open" in attrs]
    assert [place.split("-")[2] for place in unfolded] == ["late", "bad", "lost", "odd"]


def test_text_from_outside_is_escaped():
    bad = '<script>alert("x")</script>'
    made = row(
        recipe=bad, variant=bad, device=bad, metric=f"data.py:{bad}", verdict="fail",
        reasons=[bad], findings=[bad], unchecked=[bad],
    )  # fmt: skip
    made["provenance"]["tools"][bad] = bad
    operators = [{"type": bad, "calls": 1, "ns": 5, "share": 1.0}]
    past = nights(row(), 2)
    told = shown(
        program(made, past=past, gate=Gate("no baseline", [bad], [bad]), operators=operators),
        facts={bad: bad},
        attempts=[Attempt(bad, bad, bad, 1, "infra-error", bad)],
        missing=[bad],
        quarantined={bad: bad},
        notes={bad: [bad]},
        left_out=[bad],
    )
    assert "script" not in {tag for tag, _ in told.tags}
    assert "<script" not in told.text.lower()
    assert told.said().count(bad) > 20


def test_emulated_boards_have_instructions_and_no_latency():
    said = shown(program(emulated(), past=nights(emulated(), 3))).said()
    assert "115.865 M instructions" in said
    assert "They are not latency, and they do not rank float against int8" in said
    assert "instructions, not latency (M)" in said
    words = said[: said.rindex("What the words mean")]
    assert "p50" not in words
    assert "Nothing disturbed these times" not in words


def test_a_disturbed_race_is_told_where_its_times_stand():
    told = shown(program(row(latency_moved=["its host took 9.0% of the CPU time"]))).said()
    at = told.index("These times are not to be trusted")
    assert "its host took 9.0% of the CPU time" in told[at : at + 120]
    assert at < told.index("3.593 ms", told.index("Figures of"))
    assert "Nothing disturbed these times" not in told
    assert "Nothing disturbed these times" in shown(program(row())).said()


def test_rows_without_figures_are_drawn_and_show_no_zeros():
    told = shown(program(broken(), past=nights(row(), 4)), program(broken(variant="other")))
    said = told.said()
    assert "connection to pi5 lost" in said
    assert not re.search(r"\b0\.000 ms|\b0\.0000\b|None|nan", said)
    assert "What changed since" not in said, "nothing was measured whose cause is looked for"


def test_rows_of_earlier_versions_are_shown():
    old = {name: row()[name] for name in ("recipe", "variant", "backend", "target", "device")}
    assert "✓ pass" in shown(program(old | {"verdict": "pass"})).said()


def test_an_empty_run_is_no_success():
    said = shown().said()
    assert "⚡ infra-error Nothing was measured in this run." in said


@pytest.mark.slow
def test_equal_material_gives_equal_bytes(tmp_path):
    code = (
        "import sys; from pathlib import Path; from toolchain.report import page;"
        "from toolchain.tests.test_report import everything;"
        "Path(sys.argv[1]).write_text(page.render(everything()))"
    )
    out = tmp_path / "page.html"
    environment = {"PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-W", "error", "-c", code, out], check=True, env=environment)
    assert out.read_text() == page.render(everything())


def test_a_page_of_one_build(tmp_path, capsys):
    rows = [row(), row(variant="float", scheme="float", chosen=False), emulated()]
    summary, race = tmp_path / "summary.json", tmp_path / "digits/race/x86_64/pi5/comparison.json"
    summary.write_text(json.dumps(rows))
    race.parent.mkdir(parents=True)
    race.write_text(json.dumps(comparison()))
    (tmp_path / "left_out.txt").write_text("digits int4: no\n")
    command.main([f"--summary={summary}", f"--out={tmp_path / 'page.html'}"])
    assert capsys.readouterr().out == f"report: {tmp_path / 'page.html'}\n"
    said = Page((tmp_path / "page.html").read_text()).said()
    for text in ("All 3 programs pass", "GEMM", "The clock is hidden.", "digits int4: no"):
        assert text in said
    assert "Static Reshape" not in said, "it took no time"
    assert "★ chosen" in said
    assert "2.03x (1.93 to 2.13)" in said


def comparison():
    return {
        "recipe": "digits",
        "target": "x86_64",
        "device": "pi5",
        "moved": [],
        "notes": ["the clock is hidden"],
        "programs": {"int8/xnnpack": {"operators": OPERATORS, "spread": 1.0}},
        "pays": [],
        "backends": [],
    }


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"recipe": "r"}]'])
def test_what_is_no_summary_is_refused(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(UserError, match=r"s\.json: is no summary of a build"):
        report.write_build(tmp_path / "s.json", tmp_path / "page.html")
    with pytest.raises(UserError, match="there is no such file"):
        report.write_build(tmp_path / "t.json", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_build_has_no_run(capsys):
    with pytest.raises(SystemExit):
        command.main(["--summary=s.json", "--run=1"])
    assert "it takes neither --history nor --run" in capsys.readouterr().err


def test_units_without_trouble_are_folded_where_they_are_many():
    tries = [Attempt("k", "p", f"u{k}", 1, "pass") for k in range(200)]
    tries += [Attempt("k", "p", "bad", 1, "infra-error", "it fell")]
    said = shown(program(row()), attempts=tries).said()
    assert "Units that need a look unit of attempts infra-errors state bad p 1 1" in said
    assert "200 units without trouble" in said
    assert "units without trouble" not in shown(program(row()), attempts=tries[:12]).said()


@pytest.mark.slow
def test_a_page_of_fifty_programs_and_thirty_nights_is_small():
    made = [row(recipe=f"r{k // 6}", variant=f"v{k % 6}") for k in range(50)]
    many = [program(one, past=nights(one, 30), operators=OPERATORS) for one in made]
    assert len(page.render(material(*many)).encode()) < 1_500_000
