"""Foreign text on a terminal: bounded, on one line, and obeyed by nothing.

Owns what is escaped and where a text is cut. It does not know what the text says.
"""

from __future__ import annotations

import msgspec

from amplifier_core.hookspecs import encode

__all__ = ["json_line", "json_page", "line_of", "printable", "start_of"]

_BYTES_OF_A_CHARACTER = 6  # at most, as JSON may write it


def printable(text: str) -> str:
    """Show text on one line: line ends, control characters and the like are escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def line_of(text: str, width: int = 200) -> str:
    """Show the beginning of a text on one line, of at most ``width`` characters before they are escaped."""
    text = text.strip()
    return printable(text if len(text) <= width else f"{text[: width - 1]}…")


def start_of(text: bytes | msgspec.Raw, width: int) -> str:
    """Show the beginning of JSON that is not decoded, or of any bytes, as ``line_of`` does."""
    some = memoryview(text)[: width * _BYTES_OF_A_CHARACTER]
    return line_of(bytes(some).decode(errors="replace"), width)


def json_line(value: object) -> str:
    """Write JSON on a line. What a terminal obeys is escaped as JSON escapes it, so the value stays the same."""
    text = encode(value, "value").decode()
    odd = {ord(char): _escaped(char) for char in set(text) if not char.isprintable()}
    return text.translate(odd) if odd else text


def json_page(value: object) -> str:
    """Write JSON as ``json_line`` does, on as many lines as people read it best."""
    return msgspec.json.format(json_line(value), indent=2)


def _escaped(char: str) -> str:
    digits = char.encode("utf-16-be").hex()
    return "".join(f"\\u{digits[n : n + 4]}" for n in range(0, len(digits), 4))
