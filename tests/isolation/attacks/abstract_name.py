"""Take an abstract name away from a service of the host that starts later, with half of a pair of sockets."""

import os
import socket

from module import serve


def attack():
    half, other = socket.socketpair()
    with half, other:
        half.bind(f"\0amplifier-test-name-{os.getpid()}")
    return "a name"


serve(attack)
