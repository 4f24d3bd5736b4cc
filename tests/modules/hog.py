"""A module that uses more than its share of memory and CPU time, and one that leaves daemons behind."""

import json
import os
import subprocess
import sys
import threading
import time

GROW = "import time\nheld = []\nwhile True:\n    held.append(bytearray(8_000_000)); time.sleep(0.005)"
DAEMON = [sys.executable, "-c", "import time; time.sleep(600)"]


def burn(milliseconds):
    end = time.process_time() + milliseconds / 1000
    while time.process_time() < end:
        pass


def share(megabytes, children, seconds):
    """Hold memory that children have too, without a copy."""
    held = bytearray(os.urandom(1_000_000) * megabytes)
    pids = []
    for _ in range(children):
        pid = os.fork()
        if not pid:
            sum(held[::4096])
            time.sleep(600)
            os._exit(0)
        pids.append(pid)
    time.sleep(seconds)
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def daemon(how):
    """Start a process that is to survive: in the group, in a session of its own, or forked twice."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if how == "double":
        script = f"import subprocess\nprint(subprocess.Popen({DAEMON!r}, start_new_session=True, stdout=-3).pid)"
        found = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True, check=True
        )
        return int(found.stdout)
    return subprocess.Popen(DAEMON, start_new_session=how == "session", **quiet).pid


def answer(op, args):
    if op == "grow":
        exec(GROW)
    elif op == "child":
        subprocess.run([sys.executable, "-c", GROW], check=True)
    elif op == "later":
        threading.Thread(target=exec, args=(GROW,), daemon=True).start()
    elif op == "burn":
        burn(args["milliseconds"])
    elif op == "share":
        share(**args)
    elif op == "daemon":
        return daemon(args["how"])
    elif op == "exit":
        os._exit(3)
    return op


def turn(args, resume):
    """Burn in each of so many turns; between them, ask for what is refused."""
    burn(args["milliseconds"])
    turns = resume["state"] + 1 if resume else 1
    if turns == args["count"]:
        return {"ok": True, "result": "turns"}
    return {"pending": {"syscalls": [{"name": "mounts"}], "state": turns}}


def reply(method, params):
    if method == "health":
        return {"ok": True, "result": {"status": "ok"}}
    if method == "describe":
        described = {"name": "hog", "kind": "tool", "capabilities": [], "inputs": {}, "outputs": {}}
        return {"ok": True, "result": described}
    if params["op"] == "turns":
        return turn(params["args"], params.get("resume"))
    return {"ok": True, "result": answer(params["op"], params["args"])}


for line in sys.stdin.buffer:
    request = json.loads(line)
    if "id" in request:
        print(json.dumps({"id": request["id"], **reply(request["method"], request.get("params"))}), flush=True)
