"""Connect to a Unix socket of the host by its path, such as that of a container service."""

import socket

from module import serve, target


def attack():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(target("SOCKET"))
        return connection.recv(100).decode()


serve(attack)
