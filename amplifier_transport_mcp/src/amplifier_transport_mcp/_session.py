"""One client of the SDK's, from its handshake to its end, and the requests between.

Owns the client. The SDK's scopes belong to the task that enters them, so a task of the session's own enters and leaves;
each request is made in its caller's task. What a request means is for the connection.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp import Client, MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from amplifier_core import Internal, KernelError, Unreachable
from amplifier_core.hookspecs import causes

from . import _codes, _result
from ._correlator import PARAMS, Correlator, ServerRequest
from ._http import HttpStreams
from ._listing import Listing
from ._messages import has_more_values
from ._server_requests import roots_of
from ._stdio import StdioStreams
from ._tools import Tools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amplifier_transport_http import HttpFields
    from amplifier_transport_stdio import Launcher

    from ._correlator import Call
    from ._fields import Inputs

_CLOSE_SECONDS = 1.5
_RAW: TypeAdapter[Any] = TypeAdapter(dict[str, Any])  # the SDK's models would drop what they do not know
_REQUESTS: dict[str, tuple[Any, Any]] = {
    "tools/call": (types.CallToolRequest, types.CallToolRequestParams),
    "resources/list": (types.ListResourcesRequest, types.PaginatedRequestParams),
    "resources/templates/list": (types.ListResourceTemplatesRequest, types.PaginatedRequestParams),
    "resources/read": (types.ReadResourceRequest, types.ReadResourceRequestParams),
    "prompts/list": (types.ListPromptsRequest, types.PaginatedRequestParams),
    "prompts/get": (types.GetPromptRequest, types.GetPromptRequestParams),
}
_VERSION = "0.1.0"


class ClientSession:
    """One client of one server. ``fault`` is the reason of its end, after it. ``old``: no first question is asked."""

    def __init__(
        self, correlator: Correlator, streams: StdioStreams | HttpStreams, inputs: Inputs, limit: int, *, old: bool
    ) -> None:
        self.correlator = correlator
        self.old = old
        self._limit = limit
        self.fault: KernelError | None = None
        self._streams = streams
        self._tools: Tools | None = None
        self._listing = asyncio.Lock()
        self._over = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own(inputs, "legacy" if old else "auto"))

    @property
    def usable(self) -> bool:
        """Whether a request may be sent, as far as is known."""
        return not self._streams.stale and not self._over.is_set()

    @property
    def rejected(self) -> bool:
        """Whether the server has ended at the first question: it has read it, and answered nothing."""
        return not self.correlator.answered

    async def client(self) -> Client:
        """Wait for the end of the handshake, and give the client; raise the reason if it failed."""
        if not self._ready.done():
            await asyncio.wait((self._ready,))
        return self._ready.result()

    def end(self, error: KernelError) -> None:
        """Let the owner leave the client; requests in flight fail with the error."""
        self.fault = self.fault or error
        self._over.set()

    async def close(self) -> None:
        """Leave the client, and wait for its end."""
        self._over.set()
        if self._ready.done():  # else the owner waits for the handshake alone
            await asyncio.wait((self._owner,), timeout=_CLOSE_SECONDS)
        self._owner.cancel()
        await asyncio.wait((self._owner,))

    async def _own(self, inputs: Inputs, mode: str) -> None:
        features = _ClientFeatures(self.correlator, inputs)
        client = Client(
            self._streams,
            mode=mode,
            cache=None,
            client_info=types.Implementation(name="amplifier-transport-mcp", version=_VERSION),
            sampling_callback=features.callback("sampling/createMessage", types.CreateMessageResultWithTools),
            elicitation_callback=features.callback("elicitation/create", types.ElicitResult),
            list_roots_callback=None if inputs.roots is None else features.list_roots,
        )
        try:
            async with client:
                self._ready.set_result(client)
                await self._over.wait()
        except Exception as error:  # noqa: BLE001 - the SDK raises any kind: it is the fault of the requests that wait
            cause = _leaf(error)
            if isinstance(cause, BrokenPipeError):  # the exit of the process follows, and has the cause
                await self._over.wait()
            self.fault = self.fault or self._fault_of(cause, "the handshake")
        finally:
            self._over.set()
            if not self._ready.done():
                self._ready.set_exception(self.fault or Unreachable("the module was unmounted"))
                self._ready.exception()  # retrieved, though no task may wait for it

    # Requests.

    @property
    def modern(self) -> bool:
        """Whether the server speaks the revision in which each request stands alone."""
        return self._ready.result().protocol_version in MODERN_PROTOCOL_VERSIONS

    async def ping(self) -> None:
        """Wait for any answer of the server; an error is an answer too."""
        session = (await self.client()).session
        try:
            if self.modern:
                await session.send_discover(str(session.protocol_version))
            else:
                await session.send_ping()
        except MCPError as error:
            if (fault := self._own_fault(error)) is not None:
                raise fault from error

    async def request(
        self, call: Call, method: str, params: Mapping[str, Any], meta: Mapping[str, Any], what: str
    ) -> dict[str, Any]:
        """Make one request of a call, and give its result unchanged. Raises ``KernelError`` alone."""
        session = (await self.client()).session
        make, make_params = _REQUESTS[method]
        if call.chunks is not None:
            meta = {**meta, "progressToken": call.token}
        try:
            request = make(params=make_params.model_validate({**params, "_meta": dict(meta)}))
        except ValidationError as error:
            raise Internal(f"{what}: {_first_line(error)}") from error
        try:
            with self.correlator.showing(partial(_result.show, method)):
                result = _result.whole(await session.send_request(request, _RAW))
        except (MCPError, ValidationError, RuntimeError) as error:
            raise self._fault_of(error, what, call) from error
        if not self.modern:
            result.pop("resultType", None)  # it means nothing there
        _result.check(method, result, what)
        return result

    async def list_tools(self, granted: Any) -> Tools:
        """Give the tools. All pages are read if the tools are not known yet, or have changed."""
        async with self._listing:
            if self._tools is None or self.correlator.tools_changed:
                self.correlator.tools_changed = False
                listing = await self._list_all()
                self._tools = Tools(listing.tools, self._offered(), granted, listing.flawed, listing.size)
            return self._tools

    async def _list_all(self) -> Listing:
        session = (await self.client()).session
        listing = Listing(self._limit)
        more = "tools" in self._offered()
        while more:
            params = types.PaginatedRequestParams(cursor=listing.cursor)
            try:
                with self.correlator.showing(listing.show):
                    page = await session.list_tools(params=params)
            except (MCPError, ValidationError, RuntimeError) as error:
                raise self._fault_of(error, "tools/list") from error
            listing.keep({tool.name for tool in page.tools})
            more = listing.cursor is not None
        return listing

    def server(self) -> dict[str, Any]:
        """Describe the server."""
        client = self._ready.result()
        info = client.server_info
        return {
            **(info.model_dump(by_alias=True, mode="json", exclude_none=True) if info else {}),
            "protocol": client.protocol_version,
            **({"instructions": client.instructions} if client.instructions else {}),
        }

    def _offered(self) -> list[str]:
        return list(self._ready.result().server_capabilities.model_dump(exclude_none=True))

    # Faults.

    def _own_fault(self, error: MCPError) -> KernelError | None:
        """Give what an error of the SDK stands for if it is ours: the server has not answered."""
        if (fault := self.correlator.take_error(error.error.data)) is not None:
            return fault
        return None if self.fault is None else _codes.again(self.fault)

    def _fault_of(self, error: BaseException, what: str, call: Call | None = None) -> KernelError:
        """Give the kernel's error for one of the SDK's."""
        if not isinstance(error, MCPError):
            why = _codes.broke_contract(what, _first_line(error))
            why.details["causes"] = causes(error)
            return why
        if (fault := self._own_fault(error)) is not None:
            return fault
        if call is not None and call.cut:
            return Unreachable(f"{what}: {error.error.message}")
        status = call.http_status if call is not None else None
        return _codes.of_server(error.code, error.error.message, error.error.data, what, status)


class _ClientFeatures:
    """The SDK's callbacks for requests of a server of an older revision: each is added to its call."""

    def __init__(self, correlator: Correlator, inputs: Inputs) -> None:
        self._correlator = correlator
        self._inputs = inputs

    def callback(self, method: str, kind: Any) -> Any:
        return partial(self._ask, method, kind) if method in self._inputs.handlers else None

    async def list_roots(self, context: Any) -> Any:  # noqa: ARG002 - the name is the SDK's
        return types.ListRootsResult.model_validate(roots_of(self._inputs))

    async def _ask(self, method: str, kind: Any, context: Any, params: Any) -> Any:
        call = self._correlator.caller(context.request_id)
        if call is None:
            return _refusal(f"{method}: several calls are in flight, and the request names none of them")
        request = ServerRequest(method, params.model_dump(by_alias=True, mode="json", exclude_none=True))
        call.add(request)
        try:
            answer = await request.response
            if has_more_values(answer, PARAMS):
                return _refusal(f"{method}: the answer has more than {PARAMS} values")
            return kind.model_validate(answer)
        except (KernelError, ValidationError) as error:
            return _refusal(f"{method}: {_first_line(error)}")


def _refusal(why: str) -> types.ErrorData:
    return types.ErrorData(code=types.INVALID_REQUEST, message=why)


def _leaf(error: BaseException) -> BaseException:
    """Give the first exception inside nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _first_line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        error = ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    return " ".join(str(error).split())[:200] or type(error).__name__


class StdioClientSession(ClientSession):
    """The client of a server that is a child process, for as long as that runs."""

    def __init__(self, launcher: Launcher, limit: int, inputs: Inputs, *, old: bool) -> None:
        correlator = Correlator(inputs)
        streams = StdioStreams(launcher, correlator, self.end)
        self.child = streams.child
        self._process = streams
        super().__init__(correlator, streams, inputs, limit, old=old)

    @property
    def rejected(self) -> bool:
        """Whether the server has ended at the first question. One that has not read it has ended for another reason."""
        return super().rejected and self._process.read_question

    async def close(self) -> None:
        """End the process, and wait until it is gone."""
        await asyncio.gather(self.child.close(), super().close())


class HttpClientSession(ClientSession):
    """The client of a server over HTTP, for as long as the server knows its session."""

    def __init__(self, fields: HttpFields, limit: int, inputs: Inputs, *, old: bool) -> None:
        correlator = Correlator(inputs)
        super().__init__(correlator, HttpStreams(fields, limit, correlator), inputs, limit, old=old)
