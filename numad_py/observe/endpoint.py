"""Reading workers' own Prometheus endpoints, beside the cycle: a slow or dead one costs it nothing.

One thread for each guarded rule that has a worker; it ends soon after the last one has. What it
hands over is one frozen value, so that nobody waits for anybody.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from numad_py import __version__
from numad_py.errors import Malformed
from numad_py.kernel import clock
from numad_py.model.guard import GuardReading, read_every_s
from numad_py.observe.exposition import read
from numad_py.policy.schema import GuardPolicy, Policy

TIMEOUT_S = 1.0
"""For connecting, and for each wait for more,"""
WITHIN_S = 2.0
"""and for all of the answer."""
MOST_BYTES = 4 << 20
"""No answer is larger."""
_PART_BYTES = 64 << 10
_MOST_TOLD = 80
"""Characters of somebody else's words."""
_IDLE_ROUNDS = 10
"""A reader for which nobody has asked for so many of its rounds ends."""
_HEADERS = {
    "Accept": "text/plain;version=0.0.4",
    "User-Agent": f"numad-py/{__version__}",
    "Connection": "close",
}


@dataclass(frozen=True)
class GuardLook:
    """What the last reading of an endpoint brought."""

    reading: GuardReading | None = None
    """None where it failed, or there was none yet."""
    problem: str | None = None
    """Why it failed, in words."""


class Endpoints:
    """A reader for each guarded rule that somebody asks for."""

    def __init__(self, policy: Policy, now_s: Callable[[], float] = clock.boottime_s) -> None:
        """Read nothing yet; ``now_s`` is the time since boot, as snapshots have it."""
        self._now_s = now_s
        self._readers: dict[str, _Reader] = {}
        self._every_s = 0.0
        self._policies: Mapping[str, GuardPolicy] = {}
        self.use(policy)

    def use(self, policy: Policy) -> None:
        """Go on by another policy; readers of guards that have changed begin anew."""
        self._every_s = read_every_s(policy.daemon.interval_s)
        self._policies = {r.name: r.guard for r in policy.rules if r.guard is not None}
        for rule, reader in list(self._readers.items()):
            if reader.serves != (self._policies.get(rule), self._every_s):
                self._readers.pop(rule).stop()

    def look(self, rules: Collection[str]) -> dict[str, GuardLook]:
        """Return at once what is known of these rules' endpoints; none of who has no guard."""
        for rule in self._readers.keys() - set(rules):
            self._readers.pop(rule).stop()
        found = {}
        for rule in self._policies.keys() & set(rules):
            reader = self._readers.get(rule)
            if reader is None or not reader.is_alive():
                reader = _Reader(self._policies[rule], self._every_s, self._now_s)
                reader.start()
                self._readers[rule] = reader
            found[rule] = reader.asked()
        return found

    def stop(self) -> None:
        """End all readers; one that is in the middle of reading ends after that."""
        while self._readers:
            self._readers.popitem()[1].stop()


class _Reader(threading.Thread):
    """Reads one endpoint again and again."""

    def __init__(self, policy: GuardPolicy, every_s: float, now_s: Callable[[], float]) -> None:
        super().__init__(name="guard", daemon=True)
        self.serves = (policy, every_s)
        self._now_s = now_s
        self._end = threading.Event()
        self._look = GuardLook()
        self._asked_at_s = clock.monotonic_s()

    def asked(self) -> GuardLook:
        """Return what is known, and go on for a while."""
        self._asked_at_s = clock.monotonic_s()
        return self._look

    def stop(self) -> None:
        self._end.set()

    def run(self) -> None:
        policy, every_s = self.serves
        idle_s = _IDLE_ROUNDS * every_s
        while not self._end.is_set() and clock.monotonic_s() - self._asked_at_s < idle_s:
            self._look = look(policy, self._now_s)
            self._end.wait(every_s)


def look(policy: GuardPolicy, now_s: Callable[[], float]) -> GuardLook:
    """Read an endpoint once; whatever goes wrong becomes the problem."""
    try:
        text = fetch(policy)
        return GuardLook(read(text, policy, now_s()))
    except Malformed as error:
        problem = str(error)
    except TimeoutError:
        problem = f"no answer within {TIMEOUT_S:g} s, or not all of it within {WITHIN_S:g} s"
    except OSError as error:
        problem = error.strerror or str(error)
    except (http.client.HTTPException, ValueError) as error:
        problem = f"what it answers is no HTTP: {repr(error)[:_MOST_TOLD]}"
    except Exception as error:  # noqa: BLE001 - whatever somebody's server answers, the thread lives
        problem = f"reading it failed: {repr(error)[:_MOST_TOLD]}"
    return GuardLook(problem=f"{policy.url}: {problem}")


def fetch(policy: GuardPolicy) -> str:
    """Return what an endpoint answers; no proxy is asked, and no redirect followed.

    Raises:
        Malformed: it is on another machine than it may be, too large, not text, or no 200 OK.
        OSError: it cannot be reached, or takes too long.
        http.client.HTTPException: it does not speak HTTP.
    """
    parts = urlsplit(policy.url)
    deadline_s = clock.monotonic_s() + WITHIN_S
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    connection.response_class = _in_time(deadline_s)
    try:
        connection.connect()
        if not policy.allow_remote and not _is_loopback(connection.sock):
            msg = f"{parts.hostname} leads to another machine; write 127.0.0.1, or allow_remote"
            raise Malformed(msg)
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        connection.request("GET", path, headers=_HEADERS)
        with connection.getresponse() as response:
            if response.status != HTTPStatus.OK:
                msg = f"it answers with HTTP status {response.status}"
                if response.getheader("Location"):
                    msg += "; redirects are not followed: write the address itself"
                raise Malformed(msg)
            return _body(response)
    finally:
        connection.close()


def _is_loopback(connected: socket.socket) -> bool:
    return ipaddress.ip_address(connected.getpeername()[0].partition("%")[0]).is_loopback


def _body(response: http.client.HTTPResponse) -> str:
    parts, size = [], 0
    while part := response.read(_PART_BYTES):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            msg = f"its answer is larger than {MOST_BYTES >> 20} MiB"
            raise Malformed(msg)
    if response.length:
        msg = f"its answer ends {response.length} bytes too early"
        raise Malformed(msg)
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError:
        msg = "its answer is not text"
        raise Malformed(msg) from None


def _in_time(deadline_s: float) -> type[http.client.HTTPResponse]:
    """Return the kind of response that is read until then: one that drips would take for ever."""

    class Response(http.client.HTTPResponse):
        def __init__(self, connected: socket.socket, **more: object) -> None:
            super().__init__(connected, **more)  # type: ignore[arg-type]
            self.fp = io.BufferedReader(_Timely(self.fp.detach(), connected, deadline_s))

    return Response


class _Timely(io.RawIOBase):
    """What comes from a socket, up to a deadline."""

    def __init__(self, raw: io.RawIOBase, connected: socket.socket, deadline_s: float) -> None:
        super().__init__()
        self._raw = raw
        self._socket = connected
        self._deadline_s = deadline_s

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._deadline_s - clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(min(TIMEOUT_S, left_s))
        return self._raw.readinto(buffer)
