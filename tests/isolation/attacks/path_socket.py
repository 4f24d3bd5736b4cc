"""Talk to a socket of the host by its path: that of a container service, say."""

import socket

from module import serve, target


def attack():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(target("SOCKET"))
        return connection.recv(100).decode()


serve(attack)
