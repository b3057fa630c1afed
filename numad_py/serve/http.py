"""The metrics server: three paths, a few threads, and nothing that a slow client can hold up."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from numad_py.errors import NumadError
from numad_py.policy.keys import split_listen
from numad_py.serve.listening import end, serve

READ_TIMEOUT_S = 5.0
MOST_CLIENTS = 16
_FIRST_INHERITED = 3
"""SD_LISTEN_FDS_START (sd_listen_fds(3))."""
_LANDING = b"""<!doctype html><title>numad-py</title><h1>numad-py</h1>
<p><a href="/metrics">metrics</a> &middot; <a href="/-/healthy">healthy</a></p>
"""
Render = Callable[[str], tuple[bytes, str]]


class MetricsServer:
    """Serves until stopped."""

    def __init__(self, listen: str, render: Render, healthy: Callable[[], bool]) -> None:
        """Take an address, what makes the exposition for an Accept header, and a health check."""
        self._listen = listen
        self._render = render
        self._healthy = healthy
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """Port it listens on."""
        return int(self._server.server_address[1]) if self._server is not None else 0

    @property
    def address(self) -> str:
        """Address it listens on, as systemd may have handed it over: ``[::1]:10465``."""
        if self._server is None:
            return self._listen
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def start(self) -> None:
        """Listen.

        Raises:
            NumadError: the address is taken or is not one of this machine.
        """
        self._server = self._bind()
        self._server.render, self._server.healthy = self._render, self._healthy
        serve(self._server, "metrics")

    def _bind(self) -> _Server:
        inherited = _inherited()
        if inherited is not None:
            server = _Server(("", 0), _Handler, bind_and_activate=False)
            server.socket.close()
            server.socket = inherited
            server.server_address = inherited.getsockname()
            return server
        host, port = split_listen(self._listen)
        try:
            kind = _Server6 if ":" in host else _Server
            return kind((host, port), _Handler)
        except OSError as error:
            holder = " (who holds it: ss -ltnp)" if error.errno == errno.EADDRINUSE else ""
            msg = (
                f"cannot serve metrics on {self._listen}: {error.strerror}{holder}; "
                'choose another metrics.listen, or "" for none'
            )
            raise NumadError(msg) from error

    def stop(self) -> None:
        """End, within a second."""
        if self._server is not None:
            end(self._server)


class _Server(ThreadingHTTPServer):
    """A thread for each client, MOST_CLIENTS at once.

    A further one takes the place of the oldest where that has had its time, else it is hung up on.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16
    render: Render
    healthy: Callable[[], bool]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Begin with nobody connected."""
        self._clients: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a client a thread, where there is a place for it."""
        now_s = time.monotonic()
        with self._lock:
            if len(self._clients) >= MOST_CLIENTS:
                oldest = min(self._clients, key=self._clients.__getitem__)
                if now_s - self._clients[oldest] > READ_TIMEOUT_S:
                    del self._clients[oldest]
                    with contextlib.suppress(OSError):
                        oldest.shutdown(socket.SHUT_RDWR)
            has_place = len(self._clients) < MOST_CLIENTS
            if has_place:
                self._clients[request] = now_s
        if has_place:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a client and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._clients.pop(request, None)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that hangs up is no event."""

    def server_bind(self) -> None:
        """Bind without the reverse look-up of the base class, which can hang without DNS."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", int(self.server_address[1])


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout = READ_TIMEOUT_S
    server_version = "numad-py"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a body."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer without one."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        server = cast("_Server", self.server)
        status, kind = 200, "text/plain; charset=utf-8"
        if path == "/metrics":
            data, kind = server.render(self.headers.get("Accept", ""))
        elif path == "/-/healthy":
            status = 200 if server.healthy() else 503
            data = b"healthy\n" if status == 200 else b"no cycle lately\n"  # noqa: PLR2004
        elif path == "/":
            data, kind = _LANDING, "text/html; charset=utf-8"
        else:
            status, data = 404, b"there is /metrics, /-/healthy and /\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its base's name
        """Say nothing: a scrape every few seconds is no event."""


def _inherited() -> socket.socket | None:
    """Return the socket that systemd handed over, if any."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=_FIRST_INHERITED)
