"""Wait for the host to call: a port that others can reach."""

import socket

from module import serve


def attack():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


serve(attack)
