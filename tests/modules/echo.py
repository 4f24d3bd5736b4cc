"""An STDIO module whose operations do what a test needs, each request in a thread of its own.

echo.py [--name NAME] [--kind KIND] [--version VERSION] [--capabilities JSON]
"""

import json
import os
import sys
from threading import Event, Lock, Thread

OPERATIONS = ("echo", "sleep", "deaf", "fail", "exit", "env", "pid", "stderr")


class Failed(Exception):  # it is a reply
    """The reply is an error: code, message and whatever else it has."""

    def __init__(self, code, message, **more):
        super().__init__(message)
        self.error = {"code": code, "message": message, **more}


def description(more=()):
    """Return what the module says of itself, as the command line says."""
    told = {"name": "echo", "kind": "tool", "version": "0.1.0", "capabilities": []}
    for name in told:
        if (option := f"--{name}") in sys.argv:  # argparse takes as long to import as json
            value = sys.argv[sys.argv.index(option) + 1]
            told[name] = json.loads(value) if name == "capabilities" else value
    schemas = {op: {} for op in (*OPERATIONS, *more)}
    return {**told, "inputs": schemas, "outputs": schemas}


def perform(op, args, cancelled):
    """Return the result of an operation that any transport can do."""
    if op == "echo":
        return args
    if op == "sleep":
        if cancelled.wait(args["seconds"]):
            raise Failed("cancelled", "woken up")
        return {"seconds": args["seconds"]}
    if op == "fail":
        raise Failed(**args)
    if op == "exit":
        os._exit(args["code"])
    if op == "deaf":
        Event().wait()
    if op == "env":
        return dict(os.environ)
    if op == "pid":
        return {"pid": os.getpid(), "parent": os.getppid(), "cwd": os.getcwd()}  # noqa: PTH109
    if op == "stderr":
        sys.stderr.write(args["text"])
        sys.stderr.flush()
        return {}
    raise Failed("unsupported_op", f"echo does not know {op!r}")


class Echo:
    """The requests in flight, and the one stdout that their replies share."""

    def __init__(self, described):
        self._described = described
        self._running = {}
        self._stdout = Lock()

    def serve(self):
        """Answer until stdin ends."""
        for line in sys.stdin.buffer:
            request = json.loads(line)
            if request["method"] == "cancel":
                self._running.get(request["params"]["id"], Event()).set()
            else:
                self._running[request["id"]] = Event()
                Thread(target=self._reply, args=(request,), daemon=True).start()

    def _reply(self, request):
        reply = {"id": request["id"]}
        try:
            reply |= {"ok": True, "result": self._answer(request)}
        except Failed as failed:
            reply |= {"ok": False, "error": failed.error}
        del self._running[request["id"]]
        self._write(json.dumps(reply))

    def _answer(self, request):
        if request["method"] == "health":
            return {"status": "ok"}
        if request["method"] == "describe":
            return self._described
        params = request["params"]
        if params["op"] == "noise":
            self._write("this is no protocol")
            return {}
        return perform(params["op"], params["args"], self._running[request["id"]])

    def _write(self, line):
        # Not through sys.stdout: a thread that is cut off inside it at the end of the process is a fatal error.
        data = f"{line}\n".encode()
        with self._stdout:
            while data:
                data = data[os.write(1, data) :]


if __name__ == "__main__":
    Echo(description(more=("noise",))).serve()
