"""The address: where GATEWAY listens, as a socket, as a URL, and as an error that says why it cannot."""

from __future__ import annotations

import socket

from schemas.errors import ExplainedError

BACKLOG = 512


class PortTaken(ExplainedError):
    """Something else listens where GATEWAY should."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host, self.port = host, port
        super().__init__(
            f"GATEWAY cannot listen on {host} port {port}: {reason}. Stop what listens there, or set gateway.port "
            "(0 takes a free one)."
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for connections.

    Raises:
        PortTaken: this address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        taken.listen(BACKLOG)
    except OSError as error:
        taken.close()
        raise PortTaken(host, port, error.strerror or str(error)) from None
    return taken


def url_of(listening: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = listening.getsockname()[:2]
    here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{here}:{port}"
