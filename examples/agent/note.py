"""A tool in Python, made with the kit: writes a note, and adds an event about it to its reply, for the log.

Its descriptor gives it five minutes. The policy of this example asks a person first, and the deadline of an invocation
includes the time that the person takes.
"""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from amplifier_module import Context, Module

module = Module("note", version="0.1.0", capabilities=["fs:write:notes"])

Name = Annotated[str, Meta(pattern=r"^[\w-]+\.md$(?!\n)")]  # Python's $ also stands before a last line feed


@module.op
def write(name: Name, text: str, context: Context) -> dict[str, str | int]:
    """Write a note to the folder notes; one that is there under this name is replaced."""
    path = Path("notes", name)
    path.parent.mkdir(exist_ok=True)
    written: dict[str, str | int] = {"path": str(path), "bytes": path.write_bytes(text.encode())}
    context.event("artifact:write", written)
    return written


if __name__ == "__main__":
    module.run()
