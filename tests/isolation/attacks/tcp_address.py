"""Talk TCP to the host by an address that is not the loopback's, over a name for all of them."""

import socket

from module import serve, target


def attack():
    with socket.create_connection(("0.0.0.0", int(target("TCP"))), 5) as connection:
        return connection.recv(100).decode()


serve(attack)
