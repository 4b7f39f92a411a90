"""Makes the network name space of a stage with a gateway where there is no launcher, and becomes the stage.

Invariant: it hands out one listening socket, keeps nothing of it, and runs only the command it was given.
"""

import os
import socket
import sys

from sandbox.kernel.network import listen_on_loopback
from sandbox.kernel.syscalls import CLONE_NEWNET, unshare

__all__ = ["main"]


def main() -> None:
    """Serve one stage. Arguments: descriptor of the socket to the service, port, and the command."""
    channel_fd, port, *command = sys.argv[1:]
    with socket.socket(fileno=int(channel_fd)) as channel:
        try:
            unshare(CLONE_NEWNET)
            listener = listen_on_loopback(int(port))
        except OSError as exc:
            sys.exit(f"the gateway cannot listen inside: {exc}")
        with listener:
            socket.send_fds(channel, [b"!"], [listener.fileno()])
    os.execvp(command[0], command)  # noqa: S606 - the command is ours
