"""Connect to an abstract socket of the host."""

import socket

from module import serve, target


def attack():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("\0" + target("ABSTRACT"))
        return connection.recv(100).decode()


serve(attack)
