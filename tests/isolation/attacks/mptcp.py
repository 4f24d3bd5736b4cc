"""Connect by MPTCP, which rules for TCP do not match."""

import socket

from module import serve, target


def attack():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as connection:
        connection.settimeout(5)
        connection.connect(("127.0.0.1", int(target("TCP"))))
        return connection.recv(100).decode()


serve(attack)
