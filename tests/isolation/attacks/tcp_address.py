"""Connect by TCP to 0.0.0.0, which means this host but is no address of the loopback."""

import socket

from module import serve, target


def attack():
    with socket.create_connection(("0.0.0.0", int(target("TCP"))), 5) as connection:
        return connection.recv(100).decode()


serve(attack)
