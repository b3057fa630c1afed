"""The control socket: one JSON object a line, in and out, for root and the group numad-py."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import socket
import socketserver
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from numad_py import errors
from numad_py.errors import NumadError, PolicyError, RightsError, UsageError
from numad_py.serve.listening import end, serve

GROUP = "numad-py"
JOIN = f"as root: usermod -aG {GROUP} NAME"
"""What lets somebody ask."""
LONGEST_REQUEST = 64 * 1024
TIMEOUT_S = 5.0
_SO_PEERGROUPS = 59
"""Supplementary groups of the peer (include/uapi/asm-generic/socket.h); not in Python's socket."""
_GROUPS_BYTES = 1024
"""Room for 256 groups: the most that Python's getsockopt takes."""

SOCKET = "control.sock"
"""Its name in the daemon's runtime_dir."""

Handle = Callable[[str, Mapping[str, object]], object]


class NotRunning(NumadError):  # noqa: N818 - names the state
    """No daemon answers."""


class ControlServer:
    """Answers one request a connection, each connection on a thread of its own."""

    def __init__(self, path: Path, handle: Handle) -> None:
        """``handle`` gets verb and arguments; what it raises becomes the answer's error."""
        self.path = path
        self._handle = handle
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            NumadError: another daemon listens there.
            OSError: the directory cannot be written.
        """
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        if self.path.exists():
            if (pid := listener(self.path)) is not None:
                msg = (
                    f"another numad-py answers on {self.path}; stop it first: "
                    f"systemctl stop numad-py, or kill {pid or 'PID'}"
                )
                raise NumadError(msg)
            self.path.unlink()
        before = os.umask(0o117)
        try:
            self._server = _Server(str(self.path), _Handler)
        finally:
            os.umask(before)
        self._server.answer = self._handle
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(self.path, -1, grp.getgrnam(GROUP).gr_gid)
        serve(self._server, "control")

    def stop(self) -> None:
        """End, and leave no socket behind."""
        if self._server is not None:
            end(self._server)
            self.path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    answer: Handle

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that hangs up is no event."""


class _Handler(socketserver.StreamRequestHandler):
    timeout = TIMEOUT_S

    def handle(self) -> None:
        """Read one line, answer with one."""
        try:
            # Read first: who is refused before it has sent its line may see a broken pipe, not why.
            line = self.rfile.readline(LONGEST_REQUEST + 1)
            if not may(self.connection):
                msg = f"only root and members of the group {GROUP} may ask; {JOIN}"
                raise RightsError(msg)
            verb, arguments = _request(line)
            answer = cast("_Server", self.server).answer
            reply: dict[str, Any] = {"ok": True, "result": answer(verb, arguments)}
        except NumadError as error:
            reply = {
                "ok": False,
                "error": str(error),
                "kind": type(error).__name__,
                "exit": error.exit_code,
            }
        self.wfile.write(json.dumps(reply).encode() + b"\n")


def _request(line: bytes) -> tuple[str, Mapping[str, object]]:
    if len(line) > LONGEST_REQUEST:
        msg = f"a request is one line of at most {LONGEST_REQUEST} bytes"
        raise UsageError(msg)
    try:
        request = json.loads(line)
        verb = request.pop("verb")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        verb = None
    if not isinstance(verb, str):
        msg = 'a request is one JSON object a line, {"verb": "status"}'
        raise UsageError(msg)
    return verb, request


def may(connection: socket.socket) -> bool:
    """Say whether the peer is root, ourselves, or in the group (SO_PEERCRED, unix(7))."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, gid = struct.unpack("3i", raw)
    if uid in {0, os.geteuid()}:
        return True
    try:
        wanted = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return False
    return wanted == gid or wanted in peer_groups(connection)


def peer_groups(connection: socket.socket) -> tuple[int, ...]:
    """Return the peer's supplementary groups, as they were when it connected."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw[: len(raw) // 4 * 4])


def listener(path: Path) -> int | None:
    """Return the pid of who listens, whether it answers or not; None where nobody does.

    The kernel tells a client the pid of who called listen() (unix_stream_connect, net/unix);
    it is 0 where that cannot be told: the other is in another PID namespace, or too busy.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except (BlockingIOError, TimeoutError):
            return 0
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[0])


def call(path: Path, verb: str, *, timeout_s: float = 15.0, **arguments: object) -> object:
    """Ask a daemon.

    Raises:
        NotRunning: nobody listens there.
        RightsError: the socket is not for us.
        NumadError: what the daemon answered; its exit code is the daemon's.
    """
    request = json.dumps({"verb": verb, **arguments}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            with contextlib.suppress(BrokenPipeError):
                # It has hung up already; what it said before that is still to be read.
                connection.sendall(request)
            with connection.makefile("rb") as file:
                line = file.readline()
    except PermissionError:
        msg = f"no right to {path}: be root or a member of the group {GROUP}; {JOIN}"
        raise RightsError(msg) from None
    except (FileNotFoundError, ConnectionError, NotADirectoryError):
        msg = (
            f"no daemon answers on {path}; to start the service: systemctl start numad-py; "
            "any other: numad-py run --config FILE"
        )
        raise NotRunning(msg) from None
    except TimeoutError:
        msg = (
            f"the daemon on {path} did not answer within {timeout_s:.0f} s; see its log; "
            "status --direct looks without it"
        )
        raise NumadError(msg) from None
    except BlockingIOError:
        msg = f"the daemon on {path} has its hands full; try again in a moment"
        raise NumadError(msg) from None
    except OSError as error:
        msg = f"no daemon can be reached on {path}: {error}; see daemon.runtime_dir of the policy"
        raise NotRunning(msg) from None
    if not line:
        msg = f"the daemon on {path} hung up; see its log"
        raise NumadError(msg)
    return _result(path, line)


def _result(path: Path, line: bytes) -> object:
    """Return what an answer holds, or raise the error that it is."""
    try:
        reply = json.loads(line)
        result, refused = (reply["result"], None) if reply["ok"] else (None, _error(reply))
    except (ValueError, KeyError, TypeError):
        msg = f"what answers on {path} is no numad-py: {line[:80]!r}"
        raise NumadError(msg) from None
    if refused is not None:
        raise refused
    return result


def _error(reply: Mapping[str, Any]) -> NumadError:
    kind = getattr(errors, str(reply.get("kind")), NumadError)
    if kind is PolicyError:
        return PolicyError(str(reply["error"]).split("\n"))
    return kind(reply["error"]) if issubclass(kind, NumadError) else NumadError(reply["error"])
