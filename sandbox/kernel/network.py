"""The network name space of a stage: nothing in it, or loopback with one listening socket of ours.

Invariant: no interface but loopback is ever made, so nothing inside can reach another machine, or this one;
what listens on the gateway's port answers from outside, by a socket that only its holder can accept from.
"""

import fcntl
import socket
import struct

__all__ = ["GATEWAY_ADDRESS", "listen_on_loopback"]

GATEWAY_ADDRESS = "127.0.0.1"
BACKLOG = 128
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
IFREQ = struct.Struct("16sh14x")


def listen_on_loopback(port: int) -> socket.socket:
    """Bring loopback up in the caller's network name space and listen there.

    Raises:
        OSError: the name space is not the caller's to configure (CAP_NET_ADMIN is missing).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        _, flags = IFREQ.unpack(fcntl.ioctl(control, SIOCGIFFLAGS, IFREQ.pack(b"lo", 0)))
        fcntl.ioctl(control, SIOCSIFFLAGS, IFREQ.pack(b"lo", flags | IFF_UP))
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind((GATEWAY_ADDRESS, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
