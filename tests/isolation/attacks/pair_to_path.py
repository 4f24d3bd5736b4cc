"""Send to a Unix socket of the host by its path, from half of a pair of datagram sockets."""

import socket

from module import serve, target


def attack():
    for half in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM):
        with half:
            half.sendto(b"hello", target("MAILBOX"))
            half.connect(target("MAILBOX"))
    return "sent"


serve(attack)
