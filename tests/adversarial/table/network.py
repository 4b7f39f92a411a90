"""Attacks that want out: every family of sockets, names, the machine's own addresses."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import re

from tests.adversarial.attack import Attack, Ending, Without, calls

__all__ = ["ROWS"]

FILTER = ("seccomp filter",)
BOTH = ("seccomp filter", "network namespace")
FAMILIES: list[tuple[str, str, int, int, tuple[str, ...]]] = [
    ("IPv4 stream socket", "loopback", 2, 1, FILTER),
    ("IPv4 datagram socket", "DNS", 2, 2, FILTER),
    ("IPv4 raw socket", "raw sockets", 2, 3, ()),
    ("IPv6 raw socket", "raw sockets", 10, 3, ()),
    ("IPv6 datagram socket", "DNS", 10, 2, ()),
    ("netlink socket", "AF_NETLINK", 16, 3, FILTER),
    ("packet socket", "AF_PACKET", 17, 3, ()),
    ("kernel crypto socket", "other families", 38, 5, ()),
    ("vsock stream socket", "AF_VSOCK", 40, 1, ()),
    ("vsock datagram socket", "AF_VSOCK", 40, 2, ()),
    ("XDP socket", "other families", 44, 3, ()),
    ("Bluetooth socket", "other families", 31, 3, ()),
    ("TIPC socket", "other families", 30, 1, ()),
]

ROWS = [
    *(
        Attack(name=name, line=line, wall="the seccomp filter", code=calls(f"attempt(socket.socket, {family}, {kind})"), ends=Ending(stdout=b"EAFNOSUPPORT\n"),
            without=Without(walls=walls, stdout=b"ok\n") if walls else None)
        for name, line, family, kind, walls in FAMILIES
    ),
    Attack(name="pair of IPv4 sockets", line="other families", wall="the seccomp filter", code=calls("attempt(socket.socketpair, 2, 1)"), ends=Ending(stdout=b"EAFNOSUPPORT\n")),
    Attack(name="unix socket", line="other families", wall="allowed: it reaches the sandbox only", code=calls("attempt(socket.socket, 1, 1)"), ends=Ending(stdout=b"ok\n")),
    Attack(name="family with high bits set", line="other families", wall="the filter reads what the kernel reads", code=calls("call(41, 0x100000002, 1, 0); call(41, 0x100000010, 3, 0)"), ends=Ending(stdout=b"EAFNOSUPPORT\n" * 2), without=Without(walls=FILTER, stdout=b"ok\nok\n")),
    Attack(name="loopback of the service", line="loopback", wall="the seccomp filter, and a network name space", code=calls("import sys\nattempt(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5))"), args=["{port}"],
        ends=Ending(stdout=b"EAFNOSUPPORT\n"), without=Without(walls=BOTH, stdout=b"ok\n")),
    Attack(name="loopback of the service, with sockets allowed", line="loopback", wall="a network name space", code=calls("import sys\ntry: socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5); print('reached')\nexcept OSError: print('no')"), args=["{port}"],
        ends=Ending(stdout=b"no\n"), without=Without(walls=BOTH, stdout=b"reached\n")),
    Attack(name="metadata of the cloud", line="cloud metadata address", wall="no route anywhere", code=calls("attempt(lambda: socket.create_connection(('169.254.169.254', 80), 2))"), ends=Ending(stdout=b"EAFNOSUPPORT\n")),
    Attack(name="resolving a name", line="DNS", wall="no route anywhere", code="import socket\ntry: socket.getaddrinfo('example.com', 80); print('ok')\nexcept OSError: print('no')", ends=Ending(stdout=b"no\n")),
    Attack(name="asking a resolver", line="DNS", wall="the seccomp filter, and no route", code=calls("attempt(lambda: socket.socket(2,2).sendto(bytes(30), ('127.0.0.53', 53)))\nprint(os.path.exists('/etc/resolv.conf'))"), ends=Ending(stdout=re.compile(rb"EAFNOSUPPORT\n(True|False)\n"))),
    Attack(name="network interfaces", line="loopback", wall="a network name space", code="print([l.split(':')[0].strip() for l in open('/proc/net/dev').readlines()[2:]], len(open('/proc/net/route').readlines()))", ends=Ending(stdout=re.compile(rb"\['lo'\] [01]\n")),
        without=Without(walls=("network namespace",), stdout=re.compile(rb"\[.*, .*\] \d+\n"))),
    Attack(name="connections of the machine", line="loopback", wall="a network name space", code="print(len(open('/proc/net/tcp').readlines()))", ends=Ending(stdout=b"1\n"), without=Without(walls=("network namespace",), stdout=re.compile(rb"([2-9]|\d\d+)\n"))),
    Attack(name="a tunnel device", line="AF_PACKET", wall="it is not in /dev, and cannot be made", code=calls("attempt(open, '/dev/net/tun', 'r+b')"), ends=Ending(stdout=b"ENOENT\n")),
]
