"""Ending a server at once."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading

POLL_S = 60.0
"""So often ``serve_forever`` looks whether it is to end, if nobody connects: ``end`` does."""
_POKE_WITHIN_S = 0.2
_POKE_AGAIN_S = 0.02


def serve(server: socketserver.TCPServer, name: str) -> None:
    """Serve on a thread of that name until ``end``."""
    threading.Thread(target=server.serve_forever, args=(POLL_S,), name=name, daemon=True).start()


def end(server: socketserver.TCPServer) -> None:
    """End a server that serves on another thread, and close it.

    It wakes when its poll ends or somebody connects; we connect, since the daemon is to be gone
    within two seconds.
    """
    ending = threading.Thread(target=server.shutdown, daemon=True)
    ending.start()
    while ending.is_alive():
        # Once may be too soon: before the thread has said that it is to end.
        with contextlib.suppress(OSError), socket.socket(server.address_family) as poke:
            poke.settimeout(_POKE_WITHIN_S)
            poke.connect(server.server_address)
        ending.join(_POKE_AGAIN_S)
    server.server_close()
