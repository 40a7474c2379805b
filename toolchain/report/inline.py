"""Pictures inside a page: drawn by matplotlib, colored by the page's own CSS, small.

    drawings = Drawings()
    svg = drawings.picture("trend-3", (340, 150), draw, title="p50", text="p50 of 30 nights …")
    page(svg, css=drawings.css)

Words stay text, so that they can be searched and read aloud. Equal data give equal bytes. Colors
are those of the page (`COLORS`), so that a picture is dark where the page is; what the pictures of
a page share in style stands once, in `Drawings.css`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Stand-ins that matplotlib understands, each for a variable of the page's CSS.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
BLUE, ORANGE, GREEN = "#050505", "#060606", "#070707"
COLORS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.size": 11,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "axes.axisbelow": True,
    "axes.titley": 1.0,  # not looked for: that takes a third of the time
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.bottom": False,
    "ytick.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
}
FONTS = "system-ui, sans-serif"
_SVG = "{http://www.w3.org/2000/svg}"
# The date; and matplotlib's style element, which would be that of the whole page.
_NEEDLESS = {"metadata", "style"}
_GEOMETRY = {"d", "x", "y", "transform", "points"}


class Drawings:
    """The pictures of one page."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}

    @property
    def css(self) -> Markup:
        """Rules of the classes that the pictures made so far use."""
        return Markup("\n".join(f".{name}{{{style}}}" for style, name in self._classes.items()))

    def picture(
        self,
        name: str,
        size: tuple[float, float],
        draw: Callable[[Axes], None],
        *,
        title: str,
        text: str,
        margins: tuple[float, float, float, float] = (52, 12, 8, 24),
    ) -> Markup:
        """An <svg> of what `draw` makes, to be put into a page as it is.

        name: unique in the page. size, margins (left, right, top, bottom): in CSS pixels.
        title, text: what it shows, short and in full, for those who do not see it.
        """
        import matplotlib.style
        from matplotlib.figure import Figure

        (width, height), (left, right, top, bottom) = size, margins
        with matplotlib.style.context(STYLE, after_reset=True):
            figure = Figure((width / 72, height / 72))
            axes = figure.add_axes(
                (
                    left / width,
                    bottom / height,
                    (width - left - right) / width,
                    (height - top - bottom) / height,
                )
            )
            for patch in (figure.patch, axes.patch):
                patch.set_visible(False)
            draw(axes)
            file = io.BytesIO()
            figure.savefig(file, format="svg")
        root = ElementTree.fromstring(file.getvalue())
        self._tidy(root, name)
        root.attrib = {
            "viewBox": f"0 0 {width:g} {height:g}",
            "width": f"{width:g}",
            "height": f"{height:g}",
            "role": "img",
            "aria-labelledby": f"{name}-t {name}-d",
        }
        told = [("title", "t", title), ("desc", "d", text)]
        for place, (tag, suffix, words) in enumerate(told):
            element = ElementTree.Element(tag, {"id": f"{name}-{suffix}"})
            element.text = words
            root.insert(place, element)
        return Markup(ElementTree.tostring(root, encoding="unicode"))

    def _tidy(self, root: ElementTree.Element, name: str) -> None:
        """Leave what is seen: without namespaces, groups, ids and digits that nobody needs."""
        _strip(root)
        for element in root.iter():
            for key in _GEOMETRY & set(element.attrib):
                element.set(key, _short(element.attrib[key]))
            if element.get("transform", "").startswith("rotate(-0"):
                del element.attrib["transform"]
            style = element.attrib.pop("style", "")
            if style:
                element.set("class", self._class(style))
        ids = _used(root)
        names = {old: f"{name}-{place}" for place, old in enumerate(ids)}
        for element in root.iter():
            own = element.attrib.pop("id", None)
            if own in names:
                element.set("id", names[own])
            for key, value in element.attrib.items():
                for old, new in names.items():
                    if value in (f"#{old}", f"url(#{old})"):
                        element.set(key, value.replace(old, new))
        _unwrap(root)

    def _class(self, style: str) -> str:
        rules = re.sub(r"\s*([:;])\s*", r"\1", style.strip().rstrip(";"))
        rules = re.sub(r"'DejaVu Sans'[^;]*", FONTS, rules)
        for color, variable in COLORS.items():
            rules = rules.replace(color, variable)
        return self._classes.setdefault(rules, f"p{len(self._classes)}")


def _strip(element: ElementTree.Element) -> None:
    """Drop namespaces and what is not seen, here and below."""
    element.tag = element.tag.removeprefix(_SVG)
    element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    element.tail = None
    if element.text is not None and not element.text.strip():
        element.text = None
    for child in list(element):
        _strip(child)
        if child.tag in _NEEDLESS or (child.tag in ("defs", "g") and not len(child)):
            element.remove(child)


def _used(root: ElementTree.Element) -> list[str]:
    """The ids that something refers to, in order."""
    found: dict[str, None] = {}
    for element in root.iter():
        for value in element.attrib.values():
            if match := re.fullmatch(r"#(\S+)|url\(#(\S+)\)", value):
                found[match[1] or match[2]] = None
    return list(found)


def _unwrap(element: ElementTree.Element) -> None:
    """Put the children of groups that say nothing in their place."""
    children: list[ElementTree.Element] = []
    for child in element:
        _unwrap(child)
        children += list(child) if child.tag == "g" and not child.attrib else [child]
    element[:] = children


def _short(geometry: str) -> str:
    """Numbers with one digit after the point, and no needless space."""
    rounded = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.1f}", geometry)
    rounded = re.sub(r"(\.\d*?)0+\b", lambda match: match[1].rstrip("."), rounded)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", " ".join(rounded.split()))
