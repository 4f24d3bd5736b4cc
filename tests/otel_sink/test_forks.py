"""A process that is forked from the kernel's sends nothing, and holds no connection open."""

import json
import os
import subprocess
import sys

import pytest
from tests.otel_sink.test_delivery import line

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")

PROGRAM = r"""
import json, os, sys
from amplifier_sink_otel import open_sink
endpoint, first, second = sys.argv[1:]
sink = open_sink({"endpoint": endpoint, "interval": 0.01})
if first: sink.write(first.encode())
input()  # the collector has it
read, write = os.pipe()
child = os.fork()
if child == 0:
    import threading
    sink.write(second.encode())
    sink.close()
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try: links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError: pass
    os.write(write, json.dumps([links, threading.active_count()]).encode())
    sys.exit()
os.waitpid(child, 0)
print(os.read(read, 65536).decode(), flush=True)
sink.write(second.encode())
sink.close()
"""


@pytest.mark.parametrize("used", [True, False])
def test_a_fork_holds_nothing_and_its_parent_goes_on(collector, traced, used):
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, collector.endpoint, line(1) if used else "", line(2)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    collector.wait_for(lambda: collector.metrics or not used)
    out, _ = process.communicate("\n", 60)
    links, threads = json.loads(out)
    assert process.returncode == 0
    assert not [link for link in links if link.startswith("socket:")]
    assert threads == 1
    assert [span.span_id.hex() for span in collector.spans] == [f"{n:016x}" for n in ((2, 3) if used else (3,))]
    assert collector.connections == 1
