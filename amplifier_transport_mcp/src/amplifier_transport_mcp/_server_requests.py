"""What a server asks of its client in the middle of a call, as system calls of the kernel, and the answers.

Owns the two forms: ``input_required`` of the revision of 2026, where the client sends its request again with the
answers, and the requests of older revisions, which wait in the server. The kernel sees ``pending`` for both. Nothing is
sent here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from amplifier_core import Forbidden, KernelError
from amplifier_core.hookspecs import LARGE, Message, NotJson, decode_message, decode_message_large

from ._codes import broke_contract

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._fields import Inputs

_WEIGHED = sys.maxsize  # the values were weighed when they came

CLIENT_METHODS = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}
"""The methods that a server may call on its client, and the key of ``transport`` that offers each."""


def roots_of(inputs: Inputs) -> dict[str, Any]:
    """Give the result of ``roots/list``."""
    return {"roots": [{"uri": Path(root).as_uri()} for root in inputs.roots or ()]}


async def pending(
    requests: Sequence[tuple[str, Mapping[str, Any]]], inputs: Inputs, state: Mapping[str, Any]
) -> Message:
    """Make the reply by which the kernel calls the handler of each (method, params); ``Forbidden`` if one has none."""
    calls = []
    for method, params in requests:
        handler = inputs.handlers.get(method)
        if handler is None:
            raise refused([method])
        args = {"path": handler.path, "op": handler.op, "args": dict(params)}
        calls.append({"name": "invoke", "args": args})
    text = msgspec.json.encode({"pending": {"syscalls": calls, "state": state}})
    try:
        return await decode_message_large(text, _WEIGHED) if len(text) > LARGE else decode_message(text, _WEIGHED)
    except NotJson as error:  # what was just deep enough is deeper now
        raise broke_contract("its requests", str(error)) from None


def refused(methods: Sequence[str], **details: Any) -> Forbidden:
    """Make the error of a call whose server asked for what the descriptor does not offer."""
    keys = ", ".join(f"transport.{CLIENT_METHODS.get(method, method)}" for method in dict.fromkeys(methods))
    what = ", ".join(dict.fromkeys(methods))
    return Forbidden(
        f"the server asked for {what}, which the descriptor does not offer ({keys})",
        details={"asked": list(methods), **details},
    )


def answers(resume: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the results of the system calls, or raise the error of the first that failed, as by a refusal of policy."""
    results = []
    for result in resume["results"]:
        if not result["ok"]:
            error = result["error"]
            raise KernelError.from_body(error["code"], error["message"], error.get("details"))
        results.append(result["result"])
    return results


class InputRequired:
    """A result that asks for input: ``known`` is answered here at once, the rest by handlers."""

    def __init__(self, result: Mapping[str, Any], inputs: Inputs) -> None:
        self._inputs = inputs
        self.state = result.get("requestState")
        self.known: dict[str, Any] = {}
        self._unknown: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for key, request in (result.get("inputRequests") or {}).items():
            method = request["method"]
            if method == "roots/list" and inputs.roots is not None:
                self.known[key] = roots_of(inputs)
            else:
                self._unknown[key] = (method, request.get("params") or {})

    async def pending(self) -> Message | None:
        """Make the kernel's reply, or ``None`` if no handler has to be called."""
        if not self._unknown:
            return None
        state = {"keys": list(self._unknown), "known": self.known, "request_state": self.state}
        return await pending(list(self._unknown.values()), self._inputs, state)


def resumed(resume: Mapping[str, Any]) -> dict[str, Any]:
    """Give the parameters to add to the request, after the kernel's system calls."""
    state = resume["state"]
    responses = dict(zip(state["keys"], answers(resume), strict=True))
    return more_params({**state["known"], **responses}, state["request_state"])


def more_params(known: Mapping[str, Any], state: str | None) -> dict[str, Any]:
    """Give the parameters to add to the request, when everything is known."""
    responses = {"inputResponses": dict(known)} if known else {}
    return responses if state is None else {**responses, "requestState": state}
