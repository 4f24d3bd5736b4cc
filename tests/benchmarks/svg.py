"""A drawing: shapes and text as SVG, for light pages and dark ones.

It owns the elements, the colours and the scales, not the content. Text stays text. There is no script.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
_TEXT = {"title": (20, 600), "head": (14, 600), "body": (12, 400), "value": (12.5, 600), "small": (11, 400)}
_LIGHT = {
    "page": "#ffffff",
    "title": "#1f2328",
    "head": "#1f2328",
    "body": "#1f2328",
    "value": "#1f2328",
    "small": "#59636e",
    "ours": "#2f6fde",
    "peer": "#b9c1cb",
    "goal": "#d9480f",
    "grid": "#e4e8ed",
    "axis": "#8c959f",
}
_DARK = {
    "page": "#0d1117",
    "title": "#f0f6fc",
    "head": "#f0f6fc",
    "body": "#dde4ec",
    "value": "#f0f6fc",
    "small": "#9aa4af",
    "ours": "#5d9dff",
    "peer": "#56606c",
    "goal": "#ff9a57",
    "grid": "#242b34",
    "axis": "#6e7681",
}


@attrs.frozen
class Log:
    """A logarithmic scale: ``low`` stands at ``start``, ``high`` at ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Give the place of a value. A value outside the scale is at its edge."""
        value = min(max(value, self.low), self.high)
        return self.start + (self.end - self.start) * math.log(value / self.low) / math.log(self.high / self.low)

    def decades(self) -> list[float]:
        """Give the powers of ten on the scale."""
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        return [10.0**n for n in range(first, last + 1)]


def decades_around(values: Sequence[float]) -> tuple[float, float]:
    """Give the powers of ten around all values, at least one decade apart."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)


class Drawing:
    """A picture, made of elements. ``look`` is the name of a colour, and for text also of a size."""

    def __init__(self, width: float, title: str, description: str) -> None:
        self._width = width
        self._root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
        self._add("title").text = title
        self._add("desc").text = description
        self._add("style").text = _style()
        self._page = self._add("rect", {"class": "page", "width": "100%", "height": "100%", "rx": "8"})

    def text(self, x: float, y: float, text: str, look: str = "body", anchor: str = "start", *, more: str = "") -> None:
        """Write one line, and small text after it. y is its base line; the anchor is start, middle or end."""
        attributes = {"x": _number(x), "y": _number(y), "class": look}
        line = self._add("text", attributes | ({} if anchor == "start" else {"text-anchor": anchor}))
        line.text = text
        if more:
            ET.SubElement(line, "tspan", {"class": "small", "dx": "8"}).text = more

    def bar(self, x: float, y: float, width: float, height: float, look: str) -> None:
        """Draw a filled bar."""
        box = {"x": x, "y": y, "width": max(width, 2.0), "height": height, "rx": 2.0}
        self._add("rect", {"class": look} | {name: _number(value) for name, value in box.items()})

    def line(self, points: Sequence[tuple[float, float]], look: str, width: float = 1, dash: str = "") -> None:
        """Draw a line through points."""
        joined = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        attributes = {"points": joined, "class": f"{look} line", "stroke-width": _number(width)}
        self._add("polyline", attributes | ({"stroke-dasharray": dash} if dash else {}))

    def dot(self, x: float, y: float, look: str, radius: float = 3) -> None:
        """Draw a dot."""
        self._add("circle", {"cx": _number(x), "cy": _number(y), "r": _number(radius), "class": look})

    def save(self, file: Path, height: float) -> None:
        """Give the SVG, with that height."""
        size = {"width": _number(self._width), "height": _number(height)}
        self._root.attrib |= {"viewBox": f"0 0 {size['width']} {size['height']}", **size}
        ET.indent(self._root, " ")
        file.write_text(ET.tostring(self._root, encoding="unicode") + "\n", "utf-8")

    def _add(self, tag: str, attributes: Mapping[str, str] | None = None) -> ET.Element:
        return ET.SubElement(self._root, tag, dict(attributes or {}))


def _style() -> str:
    sizes = [f".{look}{{font-size:{size}px;font-weight:{weight}}}" for look, (size, weight) in _TEXT.items()]
    dark = "".join(_colours(_DARK))
    rules = [f"text{{font-family:{_FONT}}}", *sizes, *_colours(_LIGHT), f"@media(prefers-color-scheme:dark){{{dark}}}"]
    return "\n".join(rules)


def _colours(palette: Mapping[str, str]) -> list[str]:
    return [f".{look}{{fill:{colour}}}.{look}.line{{fill:none;stroke:{colour}}}" for look, colour in palette.items()]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
