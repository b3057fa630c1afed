"""Ending a server at once."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading

POLL_S = 0.5
"""So often ``serve_forever`` looks whether it is to end, if nobody connects."""
_POKE_WITHIN_S = 0.2


def serve(server: socketserver.TCPServer, name: str) -> None:
    """Serve on a thread of that name until ``end``."""
    threading.Thread(target=server.serve_forever, args=(POLL_S,), name=name, daemon=True).start()


def end(server: socketserver.TCPServer) -> None:
    """End a server that serves on another thread, and close it.

    It wakes when its poll ends or somebody connects; we connect, since two servers would cost a
    second of the two in which the daemon is to be gone.
    """
    ending = threading.Thread(target=server.shutdown, daemon=True)
    ending.start()
    with contextlib.suppress(OSError), socket.socket(server.address_family) as poke:
        poke.settimeout(_POKE_WITHIN_S)
        poke.connect(server.server_address)
    ending.join()
    server.server_close()
