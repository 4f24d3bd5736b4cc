"""A module's description, compared with its descriptor (protocol, section 2).

Owns that comparison. It does not send the request: the mount does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .capability import canonical, covers
from .errors import Forbidden, Internal, short

if TYPE_CHECKING:
    from .descriptor import ModuleDescriptor


def check_description(described: object, descriptor: ModuleDescriptor, path: str) -> dict[str, Any]:
    """Return a description that fits. ``Internal`` for a wrong field, ``Forbidden`` for a capability not declared."""
    if not isinstance(described, dict):
        raise Internal(f"{path}: describe: expected an object, got {short(described)}")
    for field, expected in (("name", descriptor.name), ("kind", descriptor.kind)):
        if described.get(field) != expected:
            raise Internal(
                f"{path}: describe: {field}: {descriptor.source} says {expected!r}, got {short(described.get(field))}"
            )
    for field in ("inputs", "outputs"):
        schemas = described.get(field)
        if not isinstance(schemas, dict) or not all(isinstance(schema, dict | bool) for schema in schemas.values()):
            raise Internal(f"{path}: describe: {field}: expected an object that maps each op to a JSON Schema")
    words = described.get("capabilities")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Internal(f"{path}: describe: capabilities: expected a list of text, got {short(words)}")
    for word in words:
        _check_claim(word, descriptor, path)
    return described


def _check_claim(word: str, descriptor: ModuleDescriptor, path: str) -> None:
    try:
        claim = canonical(word, descriptor.base)
    except ValueError as error:
        raise Internal(f"{path}: describe: capabilities: {error}") from None
    if not any(covers(capability, claim) for capability in descriptor.capabilities):
        raise Forbidden(f"{path}: describe claims {word!r}, which {descriptor.source} does not name")
