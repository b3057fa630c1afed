"""Reading a worker's Prometheus endpoint: a real server on the loopback, and what it may do."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from numad_py.model.guard import GuardReading
from numad_py.observe import endpoint
from numad_py.observe.endpoint import MOST_BYTES, TIMEOUT_S, WITHIN_S, Endpoints, look
from numad_py.policy.schema import DaemonPolicy, GuardPolicy, Policy, Rule

HISTOGRAM = """\
# HELP latency_seconds How long it took.
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.1",model="a"} 3.0
latency_seconds_bucket{le="0.5",model="a"} 5.0
latency_seconds_bucket{le="+Inf",model="a"} 6.0
latency_seconds_count{model="a"} 6.0
latency_seconds_sum{model="a"} 1.5
latency_seconds_bucket{le="0.1",model="b"} 10.0
latency_seconds_bucket{le="0.5",model="b"} 10.0
latency_seconds_bucket{le="+Inf",model="b"} 10.0
latency_seconds_count{model="b"} 10.0
latency_seconds_sum{model="b"} 0.5
"""
ANY = GuardPolicy("http://127.0.0.1:1/metrics", "latency_seconds")
SOON_S = 5.0
"""Nothing here takes so long unless it hangs."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each path as its test wants it."""

    def do_GET(self) -> None:
        """Answer."""
        assert isinstance(self.server, Server)
        self.server.asked.append((self.path, dict(self.headers)))
        try:
            self.server.answers[self.path.partition("?")[0]](self)
        except OSError:
            # Whoever asked has gone.
            self.close_connection = True

    def text(self, body: str | bytes, status: int = 200, **headers: str) -> None:
        """Send a body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode() if isinstance(body, str) else body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Listens on the loopback, at some port."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, Callable[[Handler], None]] = {
            "/metrics": lambda to: to.text(HISTOGRAM)
        }
        self.end = threading.Event()

    def guard(self, path: str = "/metrics", metric: str = "latency_seconds") -> GuardPolicy:
        """Return the policy that reads a path."""
        return GuardPolicy(f"http://127.0.0.1:{self.server_address[1]}{path}", metric)

    def hang(self, _to: Handler) -> None:
        """Let a client wait until the test ends."""
        self.end.wait()

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve until the test ends."""
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.end.set()
        made.shutdown()
        thread.join()


def problem(policy: GuardPolicy) -> tuple[str, float]:
    """Return what is said of an endpoint that cannot be read, and how long that took."""
    began_s = time.monotonic()
    found = look(policy, time.monotonic)
    assert found.reading is None
    assert found.problem is not None
    assert found.problem.startswith(f"{policy.url}: ")
    return found.problem.removeprefix(f"{policy.url}: "), time.monotonic() - began_s


# What is read


def test_a_histogram_is_read(server: Server) -> None:
    """Added up over its series, without the last bucket, which is the count."""
    found = look(server.guard(), lambda: 7.0)
    assert found.problem is None
    buckets = ((0.1, 13.0), (0.5, 15.0))
    assert found.reading == GuardReading(7.0, "latency_seconds", buckets=buckets, count=16.0)


def test_it_is_asked_for_plainly(server: Server) -> None:
    """In the format that is parsed here, not compressed, query and all; nothing is kept open."""
    look(server.guard("/metrics?a=1"), time.monotonic)
    ((path, headers),) = server.asked
    assert path == "/metrics?a=1"
    assert headers["Accept"] == "text/plain;version=0.0.4"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Connection"] == "close"


def test_no_proxy_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says: the answer is to be the worker's own."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert look(server.guard(), time.monotonic).reading is not None


# What a server may do


def test_one_that_never_answers_is_given_up(server: Server) -> None:
    """Within the time for one wait."""
    server.answers["/hangs"] = server.hang
    said, took_s = problem(server.guard("/hangs"))
    assert "no answer within 1 s" in said
    assert took_s < TIMEOUT_S + 1


@pytest.mark.parametrize("head", [True, False], ids=["its head", "its body"])
def test_one_that_drips_is_given_up(server: Server, *, head: bool) -> None:
    """Each wait is short enough, all together are not: the head counts as well as the body."""

    def drip(to: Handler) -> None:
        if not head:
            to.text("")
        while not server.end.wait(0.1):
            to.wfile.write(b"H" if head else b"#\n")

    server.answers["/drips"] = drip
    said, took_s = problem(server.guard("/drips"))
    assert "not all of it within 2 s" in said
    assert took_s < WITHIN_S + 1


def test_one_that_is_huge_is_given_up(server: Server) -> None:
    """No more than the limit is read, however much there is."""
    sent = 0

    def flood(to: Handler) -> None:
        nonlocal sent
        to.text("")
        part = b"# " + b"x" * 65533 + b"\n"
        while not server.end.is_set():
            to.wfile.write(part)
            sent += len(part)

    server.answers["/huge"] = flood
    said, _ = problem(server.guard("/huge"))
    assert said == "its answer is larger than 4 MiB"
    # What lies in the socket's buffers has been sent too.
    assert sent < 4 * MOST_BYTES


def test_a_redirect_is_not_followed(server: Server) -> None:
    """It could lead anywhere, with the daemon's rights to the network."""
    server.answers["/moved"] = lambda to: to.text("", 302, Location="/metrics")
    said, _ = problem(server.guard("/moved"))
    assert said == (
        "it answers with HTTP status 302; redirects are not followed: write the address itself"
    )
    assert [path for path, _ in server.asked] == ["/moved"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda to: to.text("no such thing", 404), "it answers with HTTP status 404"),
        (lambda to: to.text(b"\xff\xfe\x00latency"), "its answer is not text"),
        (lambda to: to.text("{}"), "there is no latency_seconds"),
        (lambda to: to.wfile.write(b"SSH-2.0-\x1b[31m\r\n"), "what it answers is no HTTP"),
        (lambda to: to.text("x", **{"Content-Length": "9"}), "its answer ends 8 bytes too early"),
        (lambda _to: None, "Remote end closed connection without response"),
    ],
    ids=["404", "binary", "json", "ssh", "cut short", "hangs up"],
)
def test_what_is_no_exposition_is_told_apart(
    server: Server, answer: Callable[[Handler], None], said: str
) -> None:
    """In words that fit a line, without what a terminal would obey."""
    server.answers["/odd"] = answer
    found, _ = problem(server.guard("/odd"))
    assert said in found
    assert "\x1b" not in found


def test_where_nobody_listens_that_is_said() -> None:
    """At once."""
    said, took_s = problem(ANY)
    assert said == "Connection refused"
    assert took_s < TIMEOUT_S


def test_a_name_that_leads_elsewhere_is_not_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name localhost is what /etc/hosts says; nothing is sent to another machine."""
    monkeypatch.setattr(endpoint, "_is_loopback", lambda _connected: False)
    said, _ = problem(server.guard())
    assert "leads to another machine" in said
    assert server.asked == []
    allowed = replace(server.guard(), allow_remote=True)
    assert look(allowed, time.monotonic).reading is not None


def test_the_far_end_of_a_connection_tells_whether_it_is_this_machine() -> None:
    """A connection over the loopback has a loopback address at its far end."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as connected,
    ):
        assert endpoint._is_loopback(connected)


# Beside the cycle


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have endpoints read every few milliseconds."""
    monkeypatch.setattr(endpoint, "read_every_s", lambda _interval_s: 0.02)


def policy_of(guard: GuardPolicy | None) -> Policy:
    """Return a policy with one rule."""
    return Policy(daemon=DaemonPolicy(), rules=(Rule("x", "test", guard=guard),))


def until(true: Callable[[], object]) -> None:
    """Wait for what another thread brings about."""
    limit = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.005)


def readers() -> int:
    """Return how many threads read."""
    return sum(thread.name == "guard" for thread in threading.enumerate())


@pytest.mark.usefixtures("often")
def test_the_cycle_never_waits_for_an_endpoint(server: Server) -> None:
    """A look at one that hangs takes no time, and tells so once that is known."""
    server.answers["/hangs"] = server.hang
    endpoints = Endpoints(policy_of(server.guard("/hangs")))
    began_s = time.monotonic()
    assert endpoints.look({"x"})["x"] == endpoint.GuardLook()
    assert time.monotonic() - began_s < TIMEOUT_S / 4
    until(lambda: endpoints.look({"x"})["x"].problem)
    endpoints.stop()


@pytest.mark.usefixtures("often")
def test_readings_follow_each_other(server: Server) -> None:
    """By the clock that snapshots have; one thread for a rule, however many workers it has."""
    endpoints = Endpoints(policy_of(server.guard()))
    seen: set[float] = set()

    def enough() -> bool:
        reading = endpoints.look({"x"})["x"].reading
        seen.update([reading.at_s] if reading else ())
        return len(seen) >= 3

    until(enough)
    assert readers() == 1
    assert max(seen) == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=SOON_S)
    endpoints.stop()
    until(lambda: not readers())


@pytest.mark.usefixtures("often")
def test_an_endpoint_is_read_only_while_it_matters(server: Server) -> None:
    """Not without a worker, not without a guard, and not when nobody looks any more."""
    endpoints = Endpoints(policy_of(server.guard()))
    assert endpoints.look(()) == {}
    assert endpoints.look({"y"}) == {}
    assert readers() == 0
    endpoints.look({"x"})
    assert readers() == 1
    endpoints.look(())
    until(lambda: not readers())
    endpoints.look({"x"})
    # Nobody has asked for a while: as a daemon that has stopped.
    until(lambda: not readers())
    assert Endpoints(policy_of(None)).look({"x"}) == {}


@pytest.mark.usefixtures("often")
def test_another_policy_begins_anew(server: Server) -> None:
    """What was read by the earlier one is not told as the new one's; the same guard goes on."""
    endpoints = Endpoints(policy_of(server.guard()))
    until(lambda: endpoints.look({"x"})["x"].reading)
    endpoints.use(policy_of(server.guard()))
    assert endpoints.look({"x"})["x"].reading is not None
    endpoints.use(policy_of(server.guard(metric="other_seconds")))
    assert endpoints.look({"x"})["x"] == endpoint.GuardLook()
    until(lambda: endpoints.look({"x"})["x"].problem)
    endpoints.use(policy_of(None))
    assert endpoints.look({"x"}) == {}
    until(lambda: not readers())
