"""A listening socket served by a few threads: bounded in clients, in time, and when stopping."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable

import structlog

from numad_py.errors import NumadError

log = structlog.get_logger(__name__)


class TooMuch(NumadError):  # noqa: N818 - names what the client sent
    """A client sent more than is taken."""


class Acceptor:
    """Accepts on ``listener`` and hands each connection to ``serve`` on one of a few threads.

    More clients than threads wait in the kernel's backlog; nothing is spawned for a client.
    """

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[socket.socket], None],
        *,
        name: str,
        threads: int,
    ) -> None:
        """Take over the listener; it is closed by ``stop``."""
        self._listener = listener
        self._serve = serve
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True)
            for i in range(threads)
        ]

    def start(self) -> None:
        """Begin to accept."""
        # Several threads wait for the same socket: those that come second must not block.
        self._listener.setblocking(False)
        for thread in self._threads:
            thread.start()

    def stop(self, within_s: float = 1.0) -> None:
        """Stop accepting; threads that still serve somebody are left behind after the limit."""
        self._stopping.set()
        os.write(self._wake_write, b"x")
        until = time.monotonic() + within_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
        self._listener.close()
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                if self._stopping.is_set():
                    return
                try:
                    connection, _ = self._listener.accept()
                except BlockingIOError:
                    continue
                except OSError as error:
                    # Out of descriptors, or the client gave up: neither is a reason to end, and
                    # a short pause keeps a lasting error from taking a whole CPU.
                    log.warning("a connection could not be taken", error=str(error))
                    self._stopping.wait(0.1)
                    continue
                with connection:
                    self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            self._serve(connection)
        except OSError:
            # The client went away or was too slow; its loss.
            return
        except Exception:  # a mistake of ours in one answer must not end the thread
            log.exception("an answer failed")


def read_until(connection: socket.socket, end: bytes, *, limit: int, within_s: float) -> bytes:
    """Read up to and including ``end``; what was sent before the client shut down where it did.

    The time holds for the whole of it: a client that sends one byte a second gets no more.

    Raises:
        TooMuch: when more than ``limit`` bytes come without an end.
        TimeoutError: when time is up.
    """
    until = time.monotonic() + within_s
    data = bytearray()
    while end not in data:
        if len(data) >= limit:
            msg = f"more than {limit} bytes"
            raise TooMuch(msg)
        left_s = until - time.monotonic()
        if left_s <= 0:
            msg = "nothing more came in time"
            raise TimeoutError(msg)
        connection.settimeout(left_s)
        part = connection.recv(min(4096, limit - len(data)))
        if not part:
            break
        data += part
    return bytes(data)


def send_all(connection: socket.socket, data: bytes, *, within_s: float) -> None:
    """Send all of it within a time (``sendall`` counts its timeout over the whole call)."""
    connection.settimeout(within_s)
    connection.sendall(data)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
