"""The channel to the collector: posts what the exporters of the SDK made, as the options say.

Owns the connection, and what the environment may add: nothing, unless the embedder lets it. It knows nothing of what
the messages mean.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from amplifier_core.hookspecs import close_socket

from ._event import shortened

if TYPE_CHECKING:
    import threading

    from ._options import Options

_ANSWER_MAX = 64 * 1024  # bytes of an answer that are read
_OK, _REDIRECT, _ERROR = 200, 300, 400  # statuses
_STOPPED = "no answer before the sink's end"


class Channel(HTTPAdapter):
    """Connects a session of ``requests`` to the collector. One thread posts; others ``stop`` it, or ``after_fork``."""

    def __init__(self, options: Options, closing: threading.Event) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self.status: int = 0
        """Of the last answer; 0: there was none."""
        self.answer: bytes = b""
        self.problem: str = ""
        """Why the last message was not taken, on one line."""
        self._options = options
        self._closing = closing
        self._is_stopped = False
        self._connection: Any = None  # of urllib3: the newest one, which is the one in use

    def session(self) -> requests.Session:
        """Give a session whose requests go through here."""
        made = requests.Session()
        made.trust_env = self._options.environment  # proxies, .netrc, REQUESTS_CA_BUNDLE
        made.stream = True  # the answer is read here
        made.mount("http://", self)
        made.mount("https://", self)
        return made

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - its signature is that of requests
        timeout: Any = None,
        verify: Any = True,  # noqa: FBT002
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Post a message, and read the answer's beginning."""
        if not self._options.environment:  # the exporters read variables whatever they are told
            verify, cert = self._options.ca or True, None
            self._set_headers(request)
        self.status, self.answer = 0, b""
        if self._is_stopped:
            raise requests.RequestException(_STOPPED)
        try:
            with contextlib.closing(super().send(request, stream, timeout, verify, cert, proxies)) as response:
                self.answer = b"".join(islice(response.iter_content(_ANSWER_MAX), 2))  # the second is its end
                if self._is_stopped:  # then a half answer looks like a whole one
                    raise TimeoutError(_STOPPED)
        except OSError as error:
            self.problem = _STOPPED if self._is_stopped else _cause(error)
            if self._closing.is_set():  # this was the last word: the SDK would try again for seconds
                raise requests.RequestException(self.problem) from error
            raise
        self.status = response.status_code
        if not _OK <= self.status < _REDIRECT:
            self.problem = f"HTTP status {self.status}"
            if self.status < _ERROR or self._closing.is_set():  # the SDK takes a redirection for a success
                raise requests.RequestException(self.problem)
        return response

    def close(self) -> None:
        """Close the connection, which urllib3 does only once nothing refers to it: an error's traceback may."""
        super().close()
        if self._connection is not None:
            self._connection.close()

    def stop(self) -> None:
        """End what the other thread waits for, from this one. It may be connecting: then only another call ends it."""
        self._is_stopped = True
        self.problem = _STOPPED
        if taken := getattr(self._connection, "sock", None):
            with contextlib.suppress(OSError):
                taken.shutdown(socket.SHUT_RDWR)

    def after_fork(self) -> None:
        """Close the child's copy of the connection."""
        close_socket(getattr(self._connection, "sock", None))

    def get_connection_with_tls_context(self, *given: Any, **named: Any) -> Any:
        """Give the pool of connections, which has one, and tells which."""
        pool = super().get_connection_with_tls_context(*given, **named)
        pool.ConnectionCls = partial(self._connect, type(pool).ConnectionCls)  # type: ignore[assignment]
        return pool

    def _connect(self, kind: Any, **named: Any) -> Any:
        self._connection = kind(**named)
        return self._connection

    def _set_headers(self, request: requests.PreparedRequest) -> None:
        """Leave of the headers only those that the options say, and those of OTLP."""
        headers = {"Content-Length": request.headers["Content-Length"], "Content-Type": "application/x-protobuf"}
        if self._options.compression == "gzip":
            headers["Content-Encoding"] = "gzip"
        request.headers.clear()
        request.headers.update({"User-Agent": "amplifier-sink-otel", **(self._options.headers or {}), **headers})


def _cause(error: BaseException) -> str:
    """Say what was behind an error of ``requests``, which wraps it many times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return shortened(" ".join(str(error).split()) or type(error).__name__, 200)
