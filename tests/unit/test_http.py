"""The metrics server over real sockets."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from numad_py.errors import NumadError
from numad_py.serve.http import MetricsServer, _Handler

TIMEOUT_S = 0.3
"""Of the server for its clients, in place of its five seconds."""
MARGIN_S = 0.8
"""For a machine that is busy."""
SOON_S = 5.0
SCRAPE_TIMEOUT_S = 10.0
"""Prometheus's own."""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody has; the policy knows no "any port"."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        return int(listening.getsockname()[1])


class Served:
    """A server, what it was asked, and what it is to answer."""

    def __init__(self, listen: str | None = None) -> None:
        """Start to serve, on a free port where nothing is said."""
        listen = listen or f"127.0.0.1:{free_port()}"
        self.accepted: list[str] = []
        self.is_healthy = True
        self.error: Exception | None = None
        self.server = MetricsServer(listen, self.render, lambda: self.is_healthy)
        self.server.start()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return an exposition."""
        self.accepted.append(accept)
        if self.error is not None:
            raise self.error
        return b"up 1\n", "text/plain; version=0.0.4"

    def ask(
        self, path: str, method: str = "GET", host: str = "127.0.0.1"
    ) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        with closing(
            http.client.HTTPConnection(host, self.server.port, timeout=SOON_S)
        ) as connection:
            connection.request(method, path, headers={"Accept": "text/plain"})
            response = connection.getresponse()
            return response.status, response.getheader("Content-Type", ""), response.read()

    def connect(self) -> socket.socket:
        """Return a client that has said nothing yet."""
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=SOON_S)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve on a free port."""
    assert 0 < (_Handler.timeout or 0) < SCRAPE_TIMEOUT_S
    monkeypatch.setattr(_Handler, "timeout", TIMEOUT_S)
    served = Served()
    yield served
    served.server.stop()


def test_metrics_are_rendered_for_the_accept_header(served: Served) -> None:
    """A query is no part of the path: Prometheus may send parameters."""
    assert served.ask("/metrics?a=b") == (200, "text/plain; version=0.0.4", b"up 1\n")
    assert served.accepted == ["text/plain"]


def test_health_is_200_or_503(served: Served) -> None:
    """Whatever watches the service need not read the body."""
    status, _, body = served.ask("/-/healthy")
    assert (status, body) == (200, b"healthy\n")
    served.is_healthy = False
    assert served.ask("/-/healthy")[0] == 503


def test_other_paths_are_404_and_say_what_there_is(served: Served) -> None:
    """The landing page names the same paths."""
    for path in ("/nonsense", "/metrics/", "/../metrics"):
        status, _, body = served.ask(path)
        assert status == 404, path
        assert b"/metrics" in body
    status, kind, body = served.ask("/")
    assert (status, kind.partition(";")[0]) == (200, "text/html")
    assert b"/metrics" in body


def test_head_has_the_same_answer_without_a_body(served: Served) -> None:
    """Its length is that of the body which GET would have."""
    with closing(served.connect()) as client:
        client.sendall(b"HEAD /metrics HTTP/1.0\r\n\r\n")
        text = b""
        while part := client.recv(4096):
            text += part
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200")
    assert b"Content-Length: 5" in head
    assert body == b""


def test_a_client_that_errs_or_hangs_up_leaves_the_next_one_its_answer(served: Served) -> None:
    """Nor does an exposition that fails once end the server."""
    for said in (b"", b"nonsense\r\n\r\n", b"GET /metrics HTTP/1.0\r\n"):
        with closing(served.connect()) as client:
            client.sendall(said)
    served.error = ValueError("a bug")
    with pytest.raises(http.client.RemoteDisconnected):
        served.ask("/metrics")
    served.error = None
    assert served.ask("/metrics")[0] == 200


def waited_s(served: Served) -> float:
    """Return how long an honest client waits."""
    began_s = time.monotonic()
    assert served.ask("/metrics")[0] == 200
    return time.monotonic() - began_s


def test_a_silent_client_holds_up_others_no_longer_than_its_timeout(served: Served) -> None:
    """It is dropped then, and the next is answered."""
    with closing(served.connect()):
        assert waited_s(served) < TIMEOUT_S + MARGIN_S


def test_many_silent_clients_hold_up_others_no_longer_than_one(served: Served) -> None:
    """A scrape has ten seconds: half a dozen connections that say nothing must not take them."""
    clients = [served.connect() for _ in range(6)]
    try:
        assert waited_s(served) < TIMEOUT_S + MARGIN_S
    finally:
        for client in clients:
            client.close()


def test_a_client_that_drips_holds_up_others_no_longer_than_its_timeout(served: Served) -> None:
    """One byte now and then is not patience enough to keep metrics from everybody else."""
    over = threading.Event()
    with closing(served.connect()) as client:

        def drip() -> None:
            for byte in b"GET /metrics HTTP/1.0\r\n\r\n":
                if over.wait(TIMEOUT_S / 3):
                    return
                try:
                    client.send(bytes([byte]))
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        time.sleep(TIMEOUT_S / 2)
        try:
            assert waited_s(served) < TIMEOUT_S + MARGIN_S
        finally:
            over.set()
            dripping.join()


def test_it_ends_within_a_second_whoever_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is to stop in two seconds, whatever a client does."""
    monkeypatch.setattr(_Handler, "timeout", 10 * TIMEOUT_S)
    served = Served()
    stopper = threading.Thread(target=served.server.stop)
    with closing(served.connect()):
        time.sleep(0.05)
        stopper.start()
        stopper.join(1.0)
        late = stopper.is_alive()
    stopper.join()
    assert not late


def test_after_the_end_nobody_listens() -> None:
    """The port is free for the next daemon at once."""
    served = Served()
    served.ask("/metrics")
    port = served.server.port
    served.server.stop()
    with pytest.raises(ConnectionRefusedError):
        served.ask("/metrics")
    again = Served(f"127.0.0.1:{port}")
    assert again.ask("/metrics")[0] == 200
    again.server.stop()


def test_a_server_that_never_started_can_be_stopped() -> None:
    """The composition root need not remember how far it came."""
    server = MetricsServer("127.0.0.1:10465", lambda _: (b"", ""), lambda: True)
    assert server.port == 0
    server.stop()


def test_a_taken_port_is_told_with_what_to_do(served: Served) -> None:
    """The message names the address, how to see who has it, and the key of the policy file."""
    said = r"in use \(who holds it: ss -ltnp\); choose another metrics\.listen"
    with pytest.raises(NumadError, match=said) as caught:
        Served(f"127.0.0.1:{served.server.port}")
    assert f"127.0.0.1:{served.server.port}" in str(caught.value)


def test_an_address_of_another_machine_is_told_with_what_to_do() -> None:
    """It cannot be listened on here."""
    with pytest.raises(NumadError, match=r"choose another metrics\.listen"):
        Served(f"192.0.2.1:{free_port()}")


def test_ipv6_is_served() -> None:
    """The address stands in brackets in the policy."""
    try:
        served = Served(f"[::1]:{free_port('::1')}")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    assert served.ask("/metrics", host="::1")[0] == 200
    served.server.stop()


def test_a_socket_that_systemd_hands_over_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes before metrics.listen (sd_listen_fds(3)); its port may be one below 1024."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        monkeypatch.setattr("numad_py.serve.http._FIRST_INHERITED", listening.detach())
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    served = Served("192.0.2.1:1")
    assert served.server.port == port
    assert served.ask("/metrics")[0] == 200
    served.server.stop()


def test_a_socket_that_was_handed_to_another_process_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The variables are inherited by children; descriptor 3 of this process is something else."""
    monkeypatch.setattr("numad_py.serve.http._FIRST_INHERITED", -1)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    served = Served()
    assert served.ask("/metrics")[0] == 200
    served.server.stop()
