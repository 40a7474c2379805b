"""Pictures: all that is given is in them, in its place; equal data give equal bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from toolchain import pictures
from toolchain.errors import UserError

SVG = "{http://www.w3.org/2000/svg}"


def row(layer, only, without=12.0, only_drop=None, without_drop=None):
    return {
        "layer": layer,
        "operator": "conv2d",
        "only_sqnr_db": only,
        "without_sqnr_db": without,
        "only_drop": only_drop,
        "without_drop": without_drop,
    }


def many(count):
    return [row(f"features.{k}.conv", 20 + k * 7 % 31, 12 + k % 3) for k in range(count)]


def point(name, cost, metric, passes=True, on_front=False, chosen=False):
    return {
        "name": name,
        "cost": cost,
        "metric": metric,
        "passes": passes,
        "on_front": on_front,
        "chosen": chosen,
    }


POINTS = [
    point("float", 14.0, 1.0, on_front=True),
    point("int8", 3.7, 0.66, passes=False, on_front=True),
    point("int8, 2 layers float", 4.1, 0.98, on_front=True, chosen=True),
    point("int8, mse", 3.7, 0.65, passes=False),
]


@pytest.fixture
def sensitivity(tmp_path):
    def draw(rows, name="s.svg"):
        pictures.sensitivity(rows, tmp_path / name, title="net int8")
        return tmp_path / name

    return draw


@pytest.fixture
def pareto(tmp_path):
    def draw(points, name="p.svg", floor=0.97):
        pictures.pareto(
            points,
            tmp_path / name,
            title="net auto",
            cost_label="size (MB)",
            metric_label="top1",
            floor=floor,
        )
        return tmp_path / name

    return draw


def words(path):
    """Texts of a picture, with their places from its top left corner: {text: [(x, y), …]}."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for element in ElementTree.parse(path).iter(f"{SVG}text"):
        text = "".join(element.itertext()).strip()
        spot = re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", element.get("transform", ""))
        where = spot.groups() if spot else (element.attrib["x"], element.attrib["y"])
        found.setdefault(text, []).append(tuple(map(float, where)))
    return found


def heights(path, texts):
    """How far down each text stands; each has to be there once."""
    said = words(path)
    return [said[text][0][1] for text in texts if len(said[text]) == 1]


@pytest.mark.parametrize("count", [1, 5, 53])
def test_every_layer_is_named_once_and_apart(sensitivity, count):
    path = sensitivity(many(count))
    names = [f"features.{k}.conv  (conv2d)  {k + 1:>3}" for k in range(count)]
    places = sorted(heights(path, names))
    assert len(places) == count
    assert all(b - a > 9 for a, b in pairwise(places)), "texts touch"
    size = ElementTree.parse(path).getroot().attrib["viewBox"].split()
    spots = [spot for spots in words(path).values() for spot in spots]
    assert all(0 <= x < float(size[2]) and 0 < y < float(size[3]) for x, y in spots)
    assert "net int8" in words(path)


def test_the_most_sensitive_is_on_top(sensitivity):
    rows = [row("a", 30.0), row("b", 10.0), row("c", None), row("d", float("inf")), row("e", 20.0)]
    path = sensitivity(rows)
    names = [
        f"{name}  (conv2d)  {place:>3}" for name, place in zip("abcde", range(1, 6), strict=True)
    ]
    a, b, c, d, e = heights(path, names)
    assert b < e < a < min(c, d)
    assert {"10.0", "20.0", "30.0", "∞", "no figure"} <= set(words(path))


def bars(path, color):
    """Widths of what is filled with a color."""
    found = []
    for element in ElementTree.parse(path).iter(f"{SVG}path"):
        if f"fill: {color}" in (element.get("style") or "") and element.get("clip-path"):
            numbers = [float(n) for n in re.findall(r"[ML] ([-\d.]+) ", element.attrib["d"])]
            found.append(max(numbers) - min(numbers))
    return found


def test_worse_layers_have_longer_bars_and_the_worst_stand_out(sensitivity):
    rows = [row(f"l{k}", 50.0 - k, 12 + k) for k in range(20)]
    path = sensitivity(rows)
    red, blue = (bars(path, color.lower()) for color in (pictures.VERMILION, pictures.BLUE))
    # First panel, then second; from the top, which is the last layer, down.
    assert len(red) == 4
    assert len(blue) == 36
    first, second = red[:2] + blue[:18], red[2:] + blue[18:]
    assert first == sorted(first, reverse=True)
    assert second == sorted(second, reverse=True)
    assert first[0] > 5 * first[-1]


def test_drops_are_shown_where_there_are_any(sensitivity):
    assert not [text for text in words(sensitivity(many(3))) if "drop" in text]
    rows = [row("a", 30.0, only_drop=0.25, without_drop=0.5), row("b", 20.0, only_drop=None)]
    assert [text for text in words(sensitivity(rows)) if "drop" in text]


@pytest.mark.parametrize(
    "rows",
    [
        [row("a", None, None)],
        [row("a", float("inf"), float("inf")), row("b", float("-inf"), float("nan"))],
        [row("a", 20.0, 20.0), row("b", 20.0, 20.0)],
        [row("a", 20.0, only_drop=float("nan"), without_drop=0.0)],
        [row("a $b$ <c> & d_e", 1.0), row("a" * 80, 2.0)],
    ],
)
def test_odd_figures_are_drawn(sensitivity, rows):
    said = "".join(words(sensitivity(rows)))
    assert all(row["layer"] in said for row in rows)


def test_each_point_is_named_with_its_figures(pareto):
    said = words(pareto(POINTS))
    assert "float   1, 14" in said
    assert "int8, 2 layers float   0.98, 4.1" in said
    assert {"net auto", "size (MB)", "top1", "floor: 0.97", "chosen", "does not"} <= set(said)
    assert "floor: 0.97" not in words(pareto(POINTS, floor=None))
    assert "chosen" not in words(pareto(POINTS[:2]))


@pytest.mark.parametrize("count", [1, 15, 40])
def test_names_of_equal_points_stand_apart_and_inside(pareto, count):
    path = pareto([point(f"variant {k}", 3.7, 0.5) for k in range(count)])
    places = sorted(heights(path, [f"variant {k}   0.5, 3.7" for k in range(count)]))
    assert len(places) == count
    assert all(b - a > 9 for a, b in pairwise(places)), "texts touch"
    bottom = float(ElementTree.parse(path).getroot().attrib["viewBox"].split()[3])
    assert 0 < places[0] <= places[-1] < bottom


def test_names_stand_as_high_as_their_points(pareto):
    first, second, third = heights(
        pareto(POINTS), ["float   1, 14", "int8, 2 layers float   0.98, 4.1", "int8   0.66, 3.7"]
    )
    assert first < second < third
    assert third - second > 5 * (second - first)


def test_points_without_figures_are_told(pareto):
    odd = [point("broken", float("nan"), 0.5), point("lost", 1.0, None)]
    assert any(text.endswith("not drawn: broken, lost") for text in words(pareto(POINTS + odd)))
    assert any(text.endswith("not drawn: broken, lost") for text in words(pareto(odd)))
    assert words(pareto([], floor=None))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_equal_data_give_equal_bytes(sensitivity, pareto, suffix, tmp_path):
    code = f"""
from pathlib import Path
from toolchain import pictures
from toolchain.tests.test_pictures import many
pictures.sensitivity(many(4), Path({str(tmp_path)!r}, "a.{suffix}"), title="net int8")
"""
    first = sensitivity(many(4), f"s.{suffix}").read_bytes()
    again = sensitivity(many(4), f"t.{suffix}").read_bytes()
    environment = {**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert first == again == (tmp_path / f"a.{suffix}").read_bytes()
    assert first != sensitivity(many(5), f"s.{suffix}").read_bytes()
    assert pareto(POINTS, f"p.{suffix}").read_bytes() == pareto(POINTS, f"q.{suffix}").read_bytes()
    assert first.startswith({"svg": b"<?xml", "png": b"\x89PNG"}[suffix])


def test_settings_of_the_user_change_nothing(sensitivity):
    import matplotlib

    before = sensitivity(many(3)).read_bytes()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.linewidth": 9}):
        assert sensitivity(many(3)).read_bytes() == before
        assert matplotlib.rcParams["font.size"] == 30


def test_another_format_is_refused(sensitivity):
    with pytest.raises(UserError, match=r"s\.gif: pictures are \.svg or \.png"):
        sensitivity(many(2), "s.gif")


def test_matplotlib_is_imported_only_for_drawing():
    code = "import sys; import toolchain.pictures; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
