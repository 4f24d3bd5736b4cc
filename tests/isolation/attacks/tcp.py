"""Connect by TCP to a service of the host."""

import socket

from module import serve, target


def attack():
    with socket.create_connection(("127.0.0.1", int(target("TCP"))), 5) as connection:
        return connection.recv(100).decode()


serve(attack)
