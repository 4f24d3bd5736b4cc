"""A real nats-server, and workers as processes, for the tests."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from amplifier_core import ModuleDescriptor

MODULES = Path(__file__).parents[1] / "modules"
SUBJECT = "tools.m"


def program():
    """Give the path of nats-server: that of the registry's package, or the system's."""
    return shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")


class Server:
    """A nats-server on the loopback. ``config`` is text of its configuration file."""

    def __init__(self, folder, *, config="", port=-1, address="127.0.0.1"):
        self.folder, self.port, self._listens = folder, port, address
        self.config = folder / "server.conf"
        self.config.write_text(config)
        self.process: subprocess.Popen

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        found = program()
        assert found
        command = [found, "-c", str(self.config), "-a", self._listens, "-p", str(self.port)]
        command += ["--ports_file_dir", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        ports = self.folder / f"nats-server_{self.process.pid}.ports"
        deadline = time.monotonic() + 30
        while not (ports.exists() and ports.read_text().strip()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(self.process.communicate()[1].decode())
            time.sleep(0.005)
        self.port = int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])
        return self

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def stop(self):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=5)
        self.kill()


class WorkerProcess:
    """A worker, as a process of its own. It is ready when it says so."""

    def __init__(self, command):
        self.said = []
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def wait(self, text="serving"):
        """Read what it logs until it says so."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.said.append(line)
            if text in line:
                return self
        raise AssertionError("".join(self.said))

    def kill(self):
        self.process.kill()

    def terminate(self):
        self.process.terminate()

    def end(self, seconds=30):
        """Wait for its end; give its exit status."""
        try:
            self.said += (self.process.communicate(timeout=seconds)[1] or "").splitlines(keepends=True)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.said += (self.process.communicate()[1] or "").splitlines(keepends=True)
        return self.process.returncode


class Worker(WorkerProcess):
    """A worker as it is installed."""

    def __init__(self, folder, server, fields, *options, subject=SUBJECT, tls=False, within=(), at=None):
        path = folder / f"worker-{fields['name']}-{time.monotonic_ns()}.json"
        path.write_text(json.dumps(fields))
        command = [*within, sys.executable, "-m", "amplifier_transport_nats", str(path), "--subject", subject]
        command += ["--servers", at or server.address, *([] if tls else ["--no-tls"]), *options]
        super().__init__(command)


def local(file, *argv, **fields):
    """Describe a program of tests/modules, as its worker runs it."""
    name = fields.pop("name", "m")
    options = ["--name", name] if file == "echo.py" else []
    transport = {"type": "stdio", "command": [sys.executable, str(MODULES / file), *argv, *options]}
    return {"name": name, "kind": "tool", "capabilities": [], "transport": transport, **fields}


def descriptor(server, **fields):
    """Describe the same as a kernel finds it."""
    transport = {"type": "nats", "servers": getattr(server, "address", server), "subject": SUBJECT, "tls": False}
    known: dict[str, object] = {
        name: fields.pop(name) for name in ("name", "kind", "capabilities", "limits") if name in fields
    }
    told: dict[str, object] = {"name": "m", "kind": "tool", "capabilities": []}
    return ModuleDescriptor.from_mapping(told | known | {"transport": transport | fields})


def is_root():
    return hasattr(os, "geteuid") and os.geteuid() == 0
