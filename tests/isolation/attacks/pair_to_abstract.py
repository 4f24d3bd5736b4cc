"""Send to an abstract socket of the host, from half of a pair of datagram sockets."""

import socket

from module import serve, target


def attack():
    for half in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM):
        with half:
            half.sendto(b"hello", "\0" + target("ABSTRACT_MAILBOX"))
            half.connect("\0" + target("ABSTRACT_MAILBOX"))
    return "sent"


serve(attack)
