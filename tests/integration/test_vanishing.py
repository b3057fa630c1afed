"""Processes that end, and files that are odd, at every point of a look: the others are planned."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from numad_py.decide.decisions import decide
from numad_py.errors import Malformed, NumadError
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.plan import DecisionState, Plan, Reason, Verdict
from numad_py.model.snapshot import Snapshot
from numad_py.observe.observer import Observer
from numad_py.policy.load import defaults
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, anon

MIB = 1 << 20
LLAMA = ("/opt/llama.cpp/llama-server", "-m", "model.gguf")
VICTIM, OTHER = 100, 200
POLICY = defaults()


class Accesses:
    """Every open and listing below a folder, told before it happens, whoever makes it.

    Python's audit events are raised by os and io themselves: every read is seen.
    """

    def __init__(self) -> None:
        """Watch nothing yet; an audit hook stays for as long as the interpreter."""
        self.folder: str | None = None
        self.tell: Callable[[str], None] = lambda _path: None
        sys.addaudithook(self._event)

    def _event(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None or event not in {"open", "os.listdir", "os.scandir"}:
            return
        path = arguments[0]
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        name = os.fsdecode(path)
        if name.startswith(self.folder):
            # What the test itself does to the tree is no access of the look.
            folder, self.folder = self.folder, None
            self.tell(name)
            self.folder = folder

    @contextlib.contextmanager
    def told(self, folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
        """Tell of accesses below a folder for a while."""
        self.folder, self.tell = str(folder), tell
        try:
            yield
        finally:
            self.folder = None


@pytest.fixture(scope="module")
def accesses() -> Accesses:
    """Return the watch; one hook for all tests."""
    return Accesses()


def make(folder: Path) -> FakeMachine:
    """Return two nodes with two workers, each pinned away from its memory."""
    return FakeMachine(
        folder,
        [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))],
        [
            FakeProcess(pid, LLAMA, anon({1: 512 * MIB}), affinity=(0, 1), last_cpus=(0, 1))
            for pid in (VICTIM, OTHER)
        ],
        cpusets={"/system.slice/server.service": (0, 1)},
    ).write()


def observer_of(made: FakeMachine, procfs: ProcFs | None = None) -> Observer:
    """Return an observer of a machine by the built-in policy."""
    cgroupfs = CgroupFs(f"{made.sysfs}/fs/cgroup")
    return Observer(procfs or ProcFs(made.procfs), SysFs(made.sysfs), cgroupfs, POLICY)


def look(observer: Observer) -> tuple[Snapshot, Plan]:
    """Observe and decide, as a first cycle does."""
    snapshot = observer.observe()
    return snapshot, decide(snapshot, POLICY, DecisionState())[0]


def other_is_planned(plan: Plan) -> bool:
    """Say whether the worker to which nothing happened is brought home."""
    verdicts = {d.worker.pid: d.verdict for d in plan.decisions}
    return verdicts[OTHER] is Verdict.ACT


def test_a_process_that_ends_before_any_access_costs_nobody_else(
    tmp_path: Path, accesses: Accesses
) -> None:
    """Before whichever open or listing it goes: no error, the other is planned, and it counts."""
    seen: list[str] = []
    made = make(tmp_path / "whole")
    with accesses.told(made.folder, seen.append):
        look(observer_of(made))
    of_victim = [i for i, path in enumerate(seen) if f"/proc/{VICTIM}" in path]
    assert len(seen) > 20
    assert len(of_victim) > 8
    for k in range(len(seen) + 1):
        made = make(tmp_path / str(k))
        count = 0

        def end_at(_path: str, made: FakeMachine = made, k: int = k) -> None:
            nonlocal count
            if count == k:
                shutil.rmtree(made.procfs / str(VICTIM))
            count += 1

        observer = observer_of(made)
        with accesses.told(made.folder, end_at):
            snapshot, plan = look(observer)
        assert other_is_planned(plan)
        assert (snapshot.vanished > 0) == (of_victim[0] <= k <= of_victim[-1])
        if k < len(seen):
            again, plan = look(observer)
            assert [w.id.pid for w in again.workers] == [OTHER]
            assert other_is_planned(plan)


class EndsAt(ProcFs):
    """A proc in which the victim's files answer ESRCH from the k-th access on.

    That is what the kernel says where the process ends after its file was opened; no file system of
    ours can be made to say it.
    """

    def __init__(self, root: Path, k: int) -> None:
        """Let the victim live for k accesses."""
        super().__init__(root)
        self.left = k

    def _open(self, full: str) -> int:
        if f"/{VICTIM}/" in full:
            self.left -= 1
            if self.left < 0:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), full)
        return super()._open(full)


def test_a_process_that_ends_within_any_read_costs_nobody_else(tmp_path: Path) -> None:
    """ESRCH from whichever read on: no error, the other is planned, and it counts."""
    made = make(tmp_path)
    for k in range(100):
        procfs = EndsAt(made.procfs, k)
        snapshot, plan = look(observer_of(made, procfs))
        assert other_is_planned(plan)
        if procfs.left >= 0:
            break
        assert snapshot.vanished > 0
    assert 8 < k < 99


FILES = [
    *("stat", "status", "cgroup", "numa_maps", "cmdline", "task/100/stat", "task/100/status"),
    *("task/101/stat", "task/101/status"),
]
"""Files of a process that a look reads."""


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_anywhere_costs_nobody_else(tmp_path: Path, file: str) -> None:
    """Empty, or cut at any byte: no error, and the other is planned."""
    made = make(tmp_path)
    path = made.procfs / str(VICTIM) / file
    whole = path.read_bytes()
    for cut in {*range(0, len(whole), 1 + len(whole) // 12), len(whole) - 1}:
        path.write_bytes(whole[:cut])
        _, plan = look(observer_of(made))
        assert other_is_planned(plan), cut


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\0\n",
        b"\n\n\n",
        b"Uid:\nCpus_allowed_list:\t3-1\nMems_allowed_list:\tx\nVmRSS:\t\xc2\xb2 kB\n",
        b") (",
        b"1 (a) " + b"9" * 5000 + b" x" * 50,
        b"0:::::\n:\n" + b"a" * 100_000,
    ],
)
def test_an_odd_file_costs_nobody_else(tmp_path: Path, file: str, text: bytes) -> None:
    """Whatever stands in whichever file: no error, and the other is planned."""
    made = make(tmp_path)
    (made.procfs / str(VICTIM) / file).write_bytes(text)
    _, plan = look(observer_of(made))
    assert other_is_planned(plan)


class Fails(ProcFs):
    """A proc in which some files of the victim cannot be read.

    Root may read whatever file we make, so the kernel's answer is put in where it would be given.
    """

    def __init__(self, root: Path, file: str, number: int) -> None:
        """Answer with this errno."""
        super().__init__(root)
        self.path = root / str(VICTIM) / file
        self.number = number

    def _open(self, full: str) -> int:
        if full == str(self.path):
            raise OSError(self.number, os.strerror(self.number), full)
        return super()._open(full)


@pytest.mark.parametrize("file", [f for f in FILES if f != "cmdline"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO, errno.ENOMEM])
def test_a_file_that_cannot_be_read_costs_nobody_else(
    tmp_path: Path, file: str, number: int
) -> None:
    """No right (a security module), no memory, an I/O error: the other is planned."""
    made = make(tmp_path)
    procfs = Fails(made.procfs, file, number)
    snapshot, plan = look(observer_of(made, procfs))
    assert other_is_planned(plan)
    victim = next((d for d in plan.decisions if d.worker.pid == VICTIM), None)
    if file in {"stat", "status"}:
        # Without these nothing says that it is a worker.
        assert victim is None
        assert snapshot.unmatched == 1
    elif file == "numa_maps":
        assert victim is not None
        assert victim.reason is Reason.UNREADABLE
        assert str(procfs.path) in victim.why


def test_threads_that_may_not_be_read_are_said(tmp_path: Path) -> None:
    """A worker whose threads cannot be seen is not moved about blindly, nor left out silently."""
    made = make(tmp_path)
    _, plan = look(observer_of(made, Fails(made.procfs, "task/100/stat", errno.EACCES)))
    victim = next(d for d in plan.decisions if d.worker.pid == VICTIM)
    assert victim.reason is Reason.UNREADABLE
    assert "CAP_SYS_PTRACE" in victim.why


NODE_FILES = ["online", "node1/cpulist", "node1/distance", "node1/meminfo"]


@pytest.mark.parametrize("file", NODE_FILES)
@pytest.mark.parametrize("text", [None, b"", b"\xff", b"0-", b"1-0", b"a b c", b"\xc2\xb2"])
def test_an_odd_sysfs_is_an_error_that_names_the_file_or_none_at_all(
    tmp_path: Path, file: str, text: bytes | None
) -> None:
    """Missing, empty or odd: one of our errors with the path, or a look that leaves it out."""
    made = make(tmp_path)
    path = made.sysfs / "devices/system/node" / file
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text)
    try:
        look(observer_of(made))
    except NumadError as error:
        said = str(error)
    else:
        assert file != "online" or text == b""
        return
    assert str(path.parent) in said


@pytest.mark.parametrize("text", ["", "x", "\0"])
def test_an_odd_uptime_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    """Without the time nothing can be said."""
    made = make(tmp_path)
    (made.procfs / "uptime").write_text(text)
    with pytest.raises(Malformed, match="uptime holds no number"):
        look(observer_of(made))
