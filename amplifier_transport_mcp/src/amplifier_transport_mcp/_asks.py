"""What a server asks for in the middle of a call, as system calls of the kernel, and the answers on their way back.

Owns the two shapes: ``input_required`` of the revision of 2026, whose calls are sent again with the answers, and the
requests of the older ones, which wait in the server. To the kernel both are ``pending``. It sends nothing itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import Forbidden, KernelError
from amplifier_core.hookspecs import Message, decode_message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._fields import Inputs

_KEYS = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}
"""What a server may ask its client, and the key of ``transport`` that offers it."""


def roots_of(inputs: Inputs) -> dict[str, Any]:
    """Give the result of ``roots/list``."""
    return {"roots": [{"uri": Path(root).as_uri()} for root in inputs.roots or ()]}


def pending(asked: Sequence[tuple[str, Mapping[str, Any]]], inputs: Inputs, state: Mapping[str, Any]) -> Message:
    """Make the reply that has the kernel call whoever answers each (method, params); raises ``Forbidden`` if nobody."""
    calls = []
    for method, params in asked:
        handler = inputs.handlers.get(method)
        if handler is None:
            raise refused([method])
        args = {"path": handler.path, "op": handler.op, "args": dict(params)}
        calls.append({"name": "invoke", "args": args})
    return decode_message(json.dumps({"pending": {"syscalls": calls, "state": state}}).encode())


def refused(methods: Sequence[str], **details: Any) -> Forbidden:
    """Make the error of a call for which a server asked what the descriptor does not offer."""
    keys = ", ".join(f"transport.{_KEYS.get(method, method)}" for method in dict.fromkeys(methods))
    what = ", ".join(dict.fromkeys(methods))
    return Forbidden(
        f"the server asked for {what}, which the descriptor does not offer ({keys})",
        details={"asked": list(methods), **details},
    )


def answers(resume: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the results of the system calls, or raise the error of the first that failed: policy may have said no."""
    found = []
    for result in resume["results"]:
        if not result["ok"]:
            error = result["error"]
            raise KernelError.from_body(error["code"], error["message"], error.get("details"))
        found.append(result["result"])
    return found


class InputRequired:
    """A result that asks for input: what is answered here at once, and what others have to answer."""

    def __init__(self, result: Mapping[str, Any], inputs: Inputs) -> None:
        self._state = result.get("requestState")
        self.known: dict[str, Any] = {}
        self._others: list[tuple[str, str, Mapping[str, Any]]] = []
        for key, request in (result.get("inputRequests") or {}).items():
            method = request["method"]
            if method == "roots/list" and inputs.roots is not None:
                self.known[key] = roots_of(inputs)
            else:
                self._others.append((key, method, request.get("params") or {}))
        self._inputs = inputs

    def pending(self) -> Message | None:
        """Make the kernel's reply, or ``None`` if nobody else is to be asked."""
        if not self._others:
            return None
        state = {"keys": [key for key, _, _ in self._others], "known": self.known, "request_state": self._state}
        return pending([(method, params) for _, method, params in self._others], self._inputs, state)

    def again(self) -> dict[str, Any]:
        """Give what to send the request again with, when everything is known."""
        return _responses(self.known, self._state)


def resumed(resume: Mapping[str, Any]) -> dict[str, Any]:
    """Give what to send a request again with, after the kernel's system calls."""
    state = resume["state"]
    responses = dict(zip(state["keys"], answers(resume), strict=True))
    return _responses({**state["known"], **responses}, state["request_state"])


def _responses(known: Mapping[str, Any], state: str | None) -> dict[str, Any]:
    again: dict[str, Any] = {}
    if known:
        again["inputResponses"] = dict(known)
    if state is not None:
        again["requestState"] = state
    return again
