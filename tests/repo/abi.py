"""Writes the contract: every public name with its signature, and every field of every shape on the wire.

`python tests/repo/abi.py` rewrites amplifier_core/ABI.md. test_abi.py fails while that file differs.
"""

import importlib
import inspect
import json
from importlib.resources import files
from pathlib import Path

ABI = Path(__file__).resolve().parents[2] / "amplifier_core" / "ABI.md"
DOORS = (
    "amplifier_core",
    "amplifier_core.hookspecs",
    "amplifier_core.hosting",
    "amplifier_core.testing",
    "amplifier_transport_stdio",
    "amplifier_transport_http",
    "amplifier_transport_inproc",
    "amplifier_sink_otel.logs",
    "amplifier_replay",
    "amplifier_module",
)
INTRODUCTION = """\
# The contract of the kernel

Every public name and every shape on the wire, as the code and the schemas say it: a change of contract is a change of
this file. `python tests/repo/abi.py` writes it. What is not here is private, whatever its name.

`amplifier_core.__version__` is the version of the installed distribution.

`amplifier_transport_stdio` and `amplifier_transport_http` are public for other transports that run child processes or
speak HTTP, as MCP does. `amplifier_transport_inproc` is public for programs that mount their own objects.
`amplifier_sink_otel.logs` is public for programs that have a log. `amplifier_module` is for authors of modules; the
kernel does not know it. The contract of the same for Node is `amplifier_module_js/index.d.ts`. `amplifier_tools` has a
command and no public name.

Before 1.0 a minor version may change the Python names below, and says so in the changelog. What goes over the wire only
ever grows (see PROTOCOL.md).
"""


MADE_BY_USERS = (
    "Body",
    "Host",
    "HostedModule",
    "Kernel",
    "KernelError",
    "Launcher",
    "LineBuffer",
    "LogSpans",
    "Module",
    "ModuleError",
    "Pool",
    "ProbeModule",
    "SocketConnection",
    "SteadyClock",
    "StdioConnection",
)  # other classes: their fields say how to make them, or a user makes none


def signature(value):
    """Give the signature of a callable, with its annotations as they are written."""
    try:
        return str(inspect.signature(value)).replace("'", "")
    except (TypeError, ValueError):
        return ""


def members(kind):
    """List the public members that a class adds, a line each."""
    for name, value in sorted(vars(kind).items()):
        if name.startswith("_") and name not in ("__aenter__", "__aexit__", "__call__"):
            continue
        plain = inspect.unwrap(value.__func__ if isinstance(value, classmethod | staticmethod) else value)
        if inspect.isfunction(plain):
            prefix = "async " if inspect.iscoroutinefunction(plain) else ""
            yield f"    {prefix}{name}{signature(plain)}"
        elif isinstance(plain, property):
            yield f"    {name}: {plain.fget.__annotations__.get('return', '')} (property)"
    for name, annotation in vars(kind).get("__annotations__", {}).items():
        if not name.startswith("_"):
            plain = getattr(annotation, "__forward_arg__", annotation)  # a NamedTuple wraps them
            yield f"    {name}: {plain if isinstance(plain, str) else plain.__name__}"


def names(door):
    """List the names of a public module, each with its members."""
    module = importlib.import_module(door)
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if inspect.isclass(value):
            bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
            yield f"class {name}{f'({bases})' if bases else ''}"
            if name in MADE_BY_USERS:
                yield f"    {name}{signature(value)}"
            yield from members(value)
        elif inspect.isfunction(value):
            prefix = "async " if inspect.iscoroutinefunction(value) else ""
            yield f"{prefix}{name}{signature(value)}"
        else:
            yield f"{name} = {value!r}" if isinstance(value, str) else name


def fields(schema, indent="    "):
    """List the fields of a JSON Schema, nested ones below theirs. `!` marks a required field."""
    for name, described in schema.get("properties", {}).items():
        part = described if isinstance(described, dict) else {}  # true: anything
        mark = "!" if name in schema.get("required", ()) else ""
        told = part.get("$ref") or part.get("type") or part.get("enum") or part.get("const") or "any"
        yield f"{indent}{name}{mark}: {told if isinstance(told, str) else json.dumps(told)}"
        yield from fields(part, indent + "    ")
    for keyword in ("oneOf", "anyOf", "allOf"):
        for part in schema.get(keyword, ()):
            if isinstance(part, bool):
                continue
            found = [part["$ref"]] if "$ref" in part else []
            yield from (f"{indent}{keyword} {reference}" for reference in found)
            yield from fields(part, indent + "    ")


def shapes():
    """List the wire shapes with their fields."""
    for file in sorted(files("amplifier_core").joinpath("schemas").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".json"):
            schema = json.loads(file.read_text("utf-8"))
            yield schema["$id"]
            yield from fields(schema)
            for name, part in schema.get("$defs", {}).items():
                yield f"    #/$defs/{name}"
                yield from fields(part, "        ")


def render():
    """Give the whole text."""
    parts = [INTRODUCTION]
    for door in DOORS:
        parts.append(f"## `{door}`\n\n```text\n" + "\n".join(names(door)) + "\n```\n")
    parts.append("## Wire shapes\n\n`!` marks a field that is required.\n\n```text\n" + "\n".join(shapes()) + "\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    ABI.write_text(render(), "utf-8")
