"""A module server on a Unix domain socket: `python server.py SOCKET`. It says when it is ready, and ends with stdin.

Any number of connections, any number of requests at once on each, the JSON lines of the protocol's section 3.
"""

import asyncio
import contextlib
import json
import os
import sys
import threading

OPERATIONS = ("count", "spell", "meet", "wait", "cancelled", "babble", "flood", "exit")


class Words:
    """The module: what its operations share."""

    def __init__(self):
        self._met = []
        self._given_up = 0

    async def serve(self, reader, writer):
        """Answer one connection until its end."""
        running = {}
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                request = json.loads(line)
                if request["method"] == "cancel":
                    running[request["params"]["id"]].cancel()
                else:
                    running[request["id"]] = asyncio.create_task(self._reply(request, writer))
                    await asyncio.sleep(0)  # a task that is cancelled before it begins would not reply
        for task in running.values():
            task.cancel()
        writer.close()

    async def _reply(self, request, writer):
        try:
            reply = await self._answer(request, writer)
        except asyncio.CancelledError:
            self._given_up += 1
            reply = {"ok": False, "error": {"code": "cancelled", "message": "as asked"}}
        writer.write(json.dumps({"id": request["id"], **reply}).encode() + b"\n")

    async def _answer(self, request, writer):
        method, params = request["method"], request["params"]
        if method == "health":
            return {"ok": True, "result": {"status": "ok"}}
        if method == "describe":
            schemas = {op: {} for op in OPERATIONS}
            names = {"name": "words", "version": "1.0.0", "kind": "tool", "capabilities": []}
            return {"ok": True, "result": {**names, "inputs": schemas, "outputs": schemas}}
        op, args = params["op"], params["args"]
        if op not in OPERATIONS:
            return {"ok": False, "error": {"code": "unsupported_op", "message": f"words does not know {op!r}"}}
        return {"ok": True, "result": await getattr(self, f"_{op}")(id_=request["id"], writer=writer, **args)}

    async def _count(self, text, **_):
        return {"words": len(text.split())}

    async def _spell(self, id_, writer, text, **_):
        for word in text.split():
            writer.write(json.dumps({"id": id_, "chunk": word}).encode() + b"\n")
        return {"text": text}

    async def _meet(self, number, of, **_):
        """Answer when so many requests are in flight, the last to come first."""
        here = asyncio.get_running_loop().create_future()
        self._met.append(here)
        if len(self._met) == of:
            self._met.pop().set_result(None)
        await here
        if self._met:
            self._met.pop().set_result(None)
        return {"number": number}

    async def _wait(self, **_):
        await asyncio.Event().wait()

    async def _cancelled(self, **_):
        return {"count": self._given_up}

    async def _babble(self, writer, **_):
        writer.write(b"this is no protocol\n")
        return {}

    async def _flood(self, size, **_):
        return "x" * size

    async def _exit(self, **_):
        os._exit(3)


def end_with_stdin():
    """End the process when whoever started it ends, or closes the pipe."""
    sys.stdin.buffer.read()
    os._exit(0)


async def main(path):
    """Listen for ever."""
    server = await asyncio.start_unix_server(Words().serve, path, limit=2**26)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
