"""The client's side of the control socket: whatever listens there, or does not."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from numad_py.errors import NumadError, UsageError
from numad_py.serve.control import NotRunning, call, listener


@contextlib.contextmanager
def listening(path: Path, backlog: int = 5) -> Iterator[socket.socket]:
    """Listen without ever accepting, unless the test does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(backlog)
        yield listener


@contextlib.contextmanager
def answering(path: Path, reply: bytes) -> Iterator[None]:
    """Answer one client with these bytes, whatever it asks."""
    with listening(path) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join(5)


def test_a_client_is_told_when_nobody_listens(tmp_path: Path) -> None:
    """No file, a stale file and a file in the place of the folder: how to start the daemon.

    Which one is meant is not known here: that of the service, or one with a file of its own.
    """
    path = tmp_path / "control.sock"
    ways = "the service: systemctl start numad-py; any other: numad-py run --config FILE"
    with pytest.raises(NotRunning, match=f"no daemon answers on {path}; to start {ways}"):
        call(path, "status")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(NotRunning):
        call(path, "status")
    with pytest.raises(NotRunning):
        call(path / "control.sock", "status")


def test_a_daemon_that_does_not_answer_is_given_up_on(tmp_path: Path) -> None:
    """A client waits so long, and says so, and how to look without the daemon."""
    with (
        listening(tmp_path / "control.sock"),
        pytest.raises(NumadError, match=r"did not answer within .*--direct looks without it"),
    ):
        call(tmp_path / "control.sock", "status", timeout_s=0.1)


def test_who_listens_is_known_without_an_answer(tmp_path: Path) -> None:
    """By its pid, which is ours here; nobody where the file is absent, stale or no socket."""
    path = tmp_path / "control.sock"
    assert listener(path) is None
    with listening(path):
        assert listener(path) == os.getpid()
    assert listener(path) is None
    path.unlink()
    path.write_text("no socket")
    assert listener(path) is None


def test_a_daemon_that_hangs_up_is_said(tmp_path: Path) -> None:
    """An answer that never began is no answer."""
    path = tmp_path / "control.sock"
    with answering(path, b""), pytest.raises(NumadError, match="hung up"):
        call(path, "status")


@pytest.mark.parametrize(
    ("kind", "raised"), [("UsageError", UsageError), ("BrandNewError", NumadError)]
)
def test_the_daemon_s_error_is_raised_as_what_it_was(
    tmp_path: Path, kind: str, raised: type[NumadError]
) -> None:
    """Its kind and its text; a kind not known here is an error all the same."""
    path = tmp_path / "control.sock"
    reply = json.dumps({"ok": False, "error": "so it is", "kind": kind, "exit": 2})
    with answering(path, reply.encode() + b"\n"), pytest.raises(NumadError) as caught:
        call(path, "status")
    assert (caught.type, str(caught.value)) == (raised, "so it is")


def test_a_daemon_that_is_busy_is_said(tmp_path: Path) -> None:
    """When its queue of connections is full, the client says so."""
    path = tmp_path / "control.sock"
    with listening(path, backlog=0), contextlib.ExitStack() as stack:
        for _ in range(3):
            other = stack.enter_context(socket.socket(socket.AF_UNIX))
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                other.connect(str(path))
        with pytest.raises(NumadError):
            call(path, "status", timeout_s=0.1)


def test_a_path_that_no_socket_can_have_is_said(tmp_path: Path) -> None:
    """A socket's path has 107 characters at most; a runtime_dir may be longer."""
    with pytest.raises(NumadError):
        call(tmp_path / ("a" * 108) / "control.sock", "status")


def test_an_answer_that_is_none_is_said(tmp_path: Path) -> None:
    """Whatever else may listen there."""
    path = tmp_path / "control.sock"
    with answering(path, b"220 mail.example.org ESMTP\n"), pytest.raises(NumadError):
        call(path, "status")
