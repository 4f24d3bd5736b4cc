"""One operation of a module: a function, and what its hints and its docstring say of it.

Owns the reading of arguments and both JSON Schemas, which msgspec makes. How the function is run is not known here.
"""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ._context import Context
from ._errors import ModuleError
from ._messages import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLAIN = (type(None), bool, int, float, str)
_REF = "#/$defs/"


class Op:
    """A function as an operation. Raises ``TypeError`` with one line if its signature cannot be one."""

    def __init__(self, function: Callable[..., Any], name: str, *, stateless: bool) -> None:
        self.function = function
        self.name = name
        self.stateless = stateless
        self.is_async = inspect.iscoroutinefunction(function)
        hints = _hints(function)
        parameters = _parameters(function)
        self._context = next((each for each in parameters if hints.get(each) is Context), None)
        fields = [_field(each, hints) for each in parameters.values() if each.name != self._context]
        self._arguments = msgspec.defstruct(
            "Arguments", fields, kw_only=True, forbid_unknown_fields=name != "on_event"
        )  # an event may bring more than it does today
        self.inputs, self.outputs = _schemas(function, self._arguments, hints.get("return", Any))

    def arguments(self, text: bytes | Raw, context: Context) -> dict[str, Any]:
        """Read the arguments of the function. Raises ``ModuleError`` ``bad_request`` with the path of the problem."""
        absent = len(memoryview(text)) == len(b"null") and bytes(text) == b"null"
        found = read(b"{}" if absent else text, self._arguments, "args")
        given = {name: getattr(found, name) for name in self._arguments.__struct_fields__}
        named = {name: value for name, value in given.items() if value is not UNSET}
        return {**named, self._context: context} if self._context else named


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise TypeError(f"{function!r}: its hints cannot be read: {error}") from None


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__}: expected a function, got a generator: context.chunk() sends chunks")
    parameters = dict(inspect.signature(function).parameters)
    for each in parameters.values():
        if each.kind not in _NAMED:
            raise TypeError(f"{function.__qualname__}: {each}: expected a parameter that can be given by its name")
    return parameters


def _field(parameter: inspect.Parameter, hints: dict[str, Any]) -> tuple[str, Any] | tuple[str, Any, Any]:
    """Make the field of one parameter. A default that a schema cannot show is left to Python."""
    name, default = parameter.name, parameter.default
    hint = _described(hints.get(name, Any))
    if default is parameter.empty:
        return name, hint
    if isinstance(default, _PLAIN):
        return name, hint, default
    return name, hint | UnsetType, UNSET


def _described(hint: Any) -> Any:
    """Take the text in ``Annotated[…, "text"]`` as the description of the parameter."""
    if typing.get_origin(hint) is not Annotated:
        return hint
    kind, *extras = typing.get_args(hint)
    for extra in extras:
        kind = Annotated[kind, Meta(description=extra) if isinstance(extra, str) else extra]
    return kind


def _schemas(function: Callable[..., Any], arguments: Any, result: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        inputs, outputs = _schema(arguments), _schema(result)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{function.__qualname__}: its hints make no JSON Schema: {error}") from None
    inputs.pop("title")
    description = inspect.getdoc(function)
    return ({"description": description, **inputs} if description else inputs), outputs


def _schema(kind: Any) -> dict[str, Any]:
    """Make the JSON Schema (2020-12) of a type. Its own definition stands at the root unless it refers to itself."""
    (root,), found = msgspec.json.schema_components([kind], ref_template=f"{_REF}{{name}}")
    name = str(root.get("$ref", "")).removeprefix(_REF)
    others = {each: part for each, part in found.items() if each != name}
    if name and f'"{_REF}{name}"'.encode() not in msgspec.json.encode(found):
        root, found = found[name], others
    return {**root, "$defs": found} if found else dict(root)


def check_known(ops: dict[str, Op], name: str, module: str) -> Op:
    """Find an operation by its name. Raises ``ModuleError`` ``unsupported_op``."""
    op = ops.get(name)
    if op is None:
        raise ModuleError(
            "unsupported_op", f"{module} has no operation {name[:200]!r}; it has {', '.join(ops) or 'none'}"[:1000]
        )
    return op
