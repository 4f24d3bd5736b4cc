"""Listen on a port that other programs of the host can reach."""

import socket

from module import serve


def attack():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


serve(attack)
