"""Send a datagram to a service of the host, and read the answer."""

import socket

from module import serve, target


def attack():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(5)
        connection.sendto(b"hello", ("127.0.0.1", int(target("UDP"))))
        return connection.recv(100).decode()


serve(attack)
