"""The page: one file with all that it needs, which asks for nothing and runs nothing but its own two scripts.

Owns the parts of the page, its content security policy, and how data gets into it. What a log says is hostile: it is
base64, or JSON without a character that HTML knows, in script elements of types that no browser runs.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amplifier_core.hookspecs import encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from amplifier_tools._trace.output import Output

    from .blocks import Blocks

__all__ = ["Library", "write_page"]

_CARRIER = "uplot-python"  # the distribution whose wheel has uPlot in it
_SCRIPT, _STYLE = "uplot/static/uPlot.iife.js", "uplot/static/uPlot.min.css"
_UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_PIECE = 3 * 256 * 1024  # bytes that are encoded together; base64 has no padding within


class Library:
    """uPlot, which draws the axes and zooms. ``UsageError`` if it is not installed."""

    def __init__(self) -> None:
        try:
            carrier = metadata.distribution(_CARRIER)  # its files are read, and nothing of it is imported
            files = [Path(str(carrier.locate_file(name))) for name in (_SCRIPT, _STYLE)]
            self.script, self.style = (file.read_text(encoding="utf-8") for file in files)
        except (metadata.PackageNotFoundError, OSError):
            advice = "pip install 'amplifier-tools[html]'"
            raise click.UsageError(f"the page is drawn by uPlot, which is not installed: {advice}") from None


def write_page(output: Output, library: Library, title: str, facts: Mapping[str, object], blocks: Blocks) -> None:
    """Write the page. ``facts`` are what it says of the log beside the events."""
    ours = "".join(_own(name) for name in ("log.js", "layout.js", "chart.js", "details.js", "page.js"))
    scripts = [_inline(text) for text in (library.script, f'"use strict";\n{ours}')]
    styles = [_inline(text) for text in (library.style, _own("page.css"))]
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    slots = {
        "policy": html.escape(policy, quote=True),
        "title": html.escape(title),
        "styles": "".join(f"<style>{text}</style>\n" for text in styles),
        "facts": encode(facts, "facts").decode().translate(_UNSAFE),
        "scripts": "".join(f"<script>{text}</script>\n" for text in scripts),
    }
    parts = _SLOT.split(_own("page.html"))
    for text, slot in zip(parts[::2], [*parts[1::2], ""], strict=True):
        output.write(text.encode())
        if slot in ("rows", "lines"):
            _write_base64(output, blocks.rows() if slot == "rows" else blocks.lines())
        elif slot:
            output.write(slots[slot].encode())


def _own(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def _inline(text: str) -> str:
    """Give text as HTML will read it from within its element. ``ValueError`` if the element would end elsewhere."""
    if re.search(r"<!--|</?(script|style)", text, re.IGNORECASE):
        raise ValueError("a script or a style sheet of the page has a tag of HTML in it")
    return text.replace("\r\n", "\n")


def _hashes(texts: list[str]) -> str:
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _write_base64(output: Output, pieces: Iterator[bytes]) -> None:
    rest = b""
    for piece in pieces:
        rest += piece
        if len(rest) >= _PIECE:
            whole = len(rest) // 3 * 3
            output.write(base64.b64encode(rest[:whole]))
            rest = rest[whole:]
    output.write(base64.b64encode(rest))
