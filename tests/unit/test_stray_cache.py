"""Page cache of model files far from their workers: what of it is told of, and whose it is."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from numad_py.cli.doctor import _far_away
from numad_py.errors import NumadError
from numad_py.kernel import pagecache
from numad_py.kernel.in_root import InRoot
from numad_py.kernel.pagecache import CachedFile
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.observe import page_cache, stray_cache
from numad_py.observe.model_files import MOST_NAMED, ModelFile, model_files, path_here
from numad_py.observe.page_cache import Lies, glimpse, look
from numad_py.observe.stray_cache import Resident, Stray, StraysSeen, stray_caches

MIB = 1 << 20
SIZE = 24 * MIB
"""Of the file, all of it cached, on this machine's nodes."""
FAR = 1 << 9
"""A node that holds nothing of it."""
READS = "open(sys.argv[1], 'rb').read()"
MAPS = "f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); m[0]"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a file that is cached."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"x" * SIZE)
    return path


@contextlib.contextmanager
def process(does: str, *words: str, before: str = "") -> Iterator[int]:
    """Run a process that does something with what it is told, and then waits."""
    code = f"import mmap, os, sys\n{before}\n{does}\nprint(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        assert started.stdout is not None
        started.stdout.readline()
        yield started.pid


@pytest.fixture
def pid(model: Path) -> Iterator[int]:
    """Run a process that names the file, and has read it rather than mapped."""
    with process(READS, str(model)) as found:
        yield found


def lies(model: Path) -> dict[int, int]:
    """Return where the file is cached."""
    with CachedFile(model) as file:
        return look(file, Syscalls()).by_node


def at_home(pid: int, *homes: int | None) -> list[Resident]:
    """Return workers with these homes, all of them this process."""
    return [
        Resident(f"w/{i}", pid, frozenset(() if home is None else (home,)))
        for i, home in enumerate(homes)
    ]


def seen(workers: list[Resident], least_bytes: int = MIB) -> StraysSeen:
    """Return what is found, where nothing stands in the way."""
    found = stray_caches(workers, ProcFs(), Syscalls(), least_bytes)
    assert (found.barred, found.left_out, found.problems) == (False, 0, [])
    return found


def test_a_file_that_was_read_elsewhere_is_told_of_with_its_workers(model: Path, pid: int) -> None:
    """Each file once, by the name that its worker gives it, to the page."""
    (stray,) = seen(at_home(pid, FAR, FAR)).strays
    assert (stray.file.path, stray.workers) == (model, ("w/0", "w/1"))
    assert stray.homes == frozenset({FAR})
    assert stray.away_bytes == lies(model)
    assert stray.error_bytes == 0
    assert path_here(stray.file) == model


def test_a_file_is_at_home_with_any_of_its_workers(model: Path, pid: int) -> None:
    """Two workers of two nodes share one copy: it cannot be with both. No home, no word."""
    (node,) = lies(model)
    for workers in (at_home(pid, node), at_home(pid, FAR, node)):
        assert (seen(workers).strays, seen(workers).looked_at) == ([], 1)
    for workers in (at_home(pid, None), at_home(pid, FAR, None)):
        assert seen(workers).looked_at == 0
    assert seen(at_home(pid, FAR), SIZE + MIB).strays == []


def test_a_file_that_a_worker_maps_is_left_alone(model: Path, pid: int) -> None:
    """It is that worker's memory; to map it as well would make it look shared meanwhile."""
    with process(MAPS, str(model)) as mapping:
        workers = [*at_home(pid, FAR), Resident("m/0", mapping, frozenset({FAR}))]
        assert seen(workers).looked_at == 0
        assert seen(workers[:1]).looked_at == 1


def test_a_shared_segment_is_no_model_file() -> None:
    """A queue in /dev/shm is memory of those who map it."""
    path = Path(f"/dev/shm/numad-py-test-{os.getpid()}")
    try:
        path.write_bytes(b"x" * SIZE)
        with process(MAPS.replace("sys.argv[1]", repr(str(path)))) as mapping:
            assert model_files(ProcFs(), mapping) == ()
    finally:
        path.unlink()


def test_a_large_file_is_looked_at_in_parts(
    model: Path, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stand for the whole, within the error that is told."""
    monkeypatch.setattr(page_cache, "MOST_PARTS", 8)
    with CachedFile(model) as file:
        found = glimpse(file, Syscalls())
    assert (len(found.parts), found.scale) == (8, 3.0)
    assert sum(found.by_node.values()) == SIZE
    (stray,) = seen(at_home(pid, FAR)).strays
    assert sum(stray.away_bytes.values()) == SIZE


def test_the_error_covers_how_unlike_the_parts_are() -> None:
    """Half of the parts on each node: eight say within a third, where all are alike for sure."""
    mixed = Lies(tuple({i % 2: MIB} for i in range(8)), 100.0)
    assert mixed.by_node == {0: 400 * MIB, 1: 400 * MIB}
    assert 200 * MIB < mixed.error_bytes([1]) < 400 * MIB
    assert mixed.error_bytes([0, 1]) == 0
    assert Lies(mixed.parts, 1.0).error_bytes([1]) == 0


def test_what_is_not_sure_is_not_told(
    model: Path, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than its error, it may be nothing."""
    (node,) = lies(model)
    for others, told in ((0, 1), (7, 0)):
        parts = ({node: MIB}, *[{FAR: MIB}] * others)
        monkeypatch.setattr(stray_cache, "glimpse", lambda *_, p=parts: Lies(p, 10.0))
        assert len(seen(at_home(pid, FAR)).strays) == told


def test_what_could_not_be_looked_at_is_told(
    model: Path, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old kernel, or a file that goes: not to be taken for all being well."""

    def fails(_file: CachedFile, _syscalls: Syscalls) -> Lies:
        raise OSError(errno.EIO, "cannot be read", str(model))

    monkeypatch.setattr(stray_cache, "glimpse", fails)
    found = stray_caches(at_home(pid, FAR), ProcFs(), Syscalls(), MIB)
    assert (found.looked_at, len(found.problems)) == (0, 1)
    assert str(model) in found.problems[0]
    monkeypatch.setattr(stray_cache, "MOST_FILES", 0)
    assert stray_caches(at_home(pid, FAR), ProcFs(), Syscalls(), MIB).left_out == 1


def test_who_has_ended_is_left_out(model: Path, pid: int) -> None:
    """And so is a file that is gone by now."""
    assert seen(at_home((1 << 22) + 1, FAR)).looked_at == 0
    model.unlink()
    assert seen(at_home(pid, FAR)).looked_at == 0


@as_root
def test_without_the_right_nothing_is_told_but_that(pid: int) -> None:
    """Another user's root cannot be opened."""
    os.seteuid(65534)
    try:
        found = stray_caches(at_home(pid, FAR), ProcFs(), Syscalls(), MIB)
    finally:
        os.seteuid(0)
    assert (found.strays, found.barred) == ([], True)


@as_root
def test_links_of_a_container_lead_where_they_lead_for_it(tmp_path: Path) -> None:
    """One to /real stays below its own root; one that climbs out ends there too."""
    inside = tmp_path / "root"
    (inside / "models").mkdir(parents=True)
    (inside / "real").mkdir()
    (tmp_path / "secret.gguf").write_bytes(b"y" * SIZE)
    (inside / "real/w.gguf").write_bytes(b"x" * SIZE)
    (inside / "models/w.gguf").symlink_to("/real/w.gguf")
    (inside / "models/out.gguf").symlink_to(f"../../../../../..{tmp_path}/secret.gguf")
    (inside / "models/host.gguf").symlink_to(tmp_path / "secret.gguf")
    names = [f"/models/{name}.gguf" for name in ("w", "out", "host")]
    root = f"os.chroot({str(inside)!r}); os.chdir('/')"
    with process("", *names, before=root) as contained:
        (found,) = model_files(ProcFs(), contained)
        assert found.path == Path("/models/w.gguf")
        assert found.id[1] == (inside / "real/w.gguf").stat().st_ino
        with CachedFile(found.path, found.root) as file:
            assert file.size_bytes == SIZE
        reached = path_here(found)
        assert reached == inside / "real/w.gguf"


@as_root
@pytest.mark.parametrize("where", ["/dev/shm", "chroot", "deleted"])
def test_who_maps_a_file_is_told_by_the_kernel_not_by_a_path(tmp_path: Path, where: str) -> None:
    """On tmpfs, in a chroot, and by a name that is gone: mapped is mapped."""
    folder = Path("/dev/shm") if where == "/dev/shm" else tmp_path
    names = [folder / f"numad-py-test-{os.getpid()}-{i}.gguf" for i in range(2)]
    names[0].write_bytes(b"x" * SIZE)
    names[1].hardlink_to(names[0])
    chroot = f"os.chroot({str(tmp_path)!r}); os.chdir('/')" if where == "chroot" else ""
    told = f"/{names[0].name}" if where == "chroot" else str(names[0])
    named = f"/{names[1].name}" if where == "chroot" else str(names[1])
    try:
        with process(MAPS.replace("argv[1]", "argv[2]"), named, told, before=chroot) as mapping:
            if where == "deleted":
                names[0].unlink()
            (found,) = model_files(ProcFs(), mapping)
            assert found.mapped
            assert seen(at_home(mapping, FAR)).looked_at == 0
    finally:
        for name in names:
            name.unlink(missing_ok=True)


@as_root
def test_relative_and_odd_names_are_found_below_the_root(tmp_path: Path) -> None:
    """The kernel tells a folder below our root; two slashes are one."""
    inside = tmp_path / "root"
    (inside / "m").mkdir(parents=True)
    (inside / "m/w.gguf").write_bytes(b"x" * SIZE)
    (inside / "m/link.gguf").symlink_to("/m/w.gguf")
    for name in ("w.gguf", "//m/w.gguf", "--model=../m/w.gguf", "link.gguf"):
        before = f"os.chroot({str(inside)!r}); os.chdir('/m')"
        with process("", name, before=before) as contained:
            (found,) = model_files(ProcFs(), contained)
            assert path_here(found) == inside / "m/w.gguf"


def test_a_pipe_in_the_place_of_a_folder_keeps_nobody_waiting(tmp_path: Path) -> None:
    """It is opened as a folder or not at all."""
    os.mkfifo(tmp_path / "pipe.bin")
    with InRoot(Path("/")) as root, pytest.raises(NotADirectoryError):
        root.open(tmp_path / "pipe.bin", os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
    with process("", str(tmp_path / "pipe.bin")) as naming:
        assert model_files(ProcFs(), naming) == ()


def test_a_folder_named_a_thousand_times_is_read_once(tmp_path: Path) -> None:
    """And no more than so many files are looked at of one worker."""
    for i in range(3 * MOST_NAMED // 2):
        (tmp_path / f"{i}.bin").touch()
    (tmp_path / "0.bin").write_bytes(b"x" * SIZE)
    with process("", *[f"{tmp_path}{'/' * n}" for n in range(1, 500)]) as naming:
        began_s = time.monotonic()
        (found,) = model_files(ProcFs(), naming)
        assert time.monotonic() - began_s < 10
    assert found.path == tmp_path / "0.bin"


@as_root
def test_huge_pages_are_not_reserved_by_looking(tmp_path: Path) -> None:
    """A file of hugetlbfs is no cached one; to map it would take pages from the pool."""
    mounted = ["mount", "-t", "hugetlbfs", "none", str(tmp_path)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("hugetlbfs cannot be mounted here")
    try:
        path = tmp_path / "model.bin"
        with path.open("wb") as file:
            file.truncate(64 * MIB)
        with pytest.raises(NumadError, match="hugetlbfs"):
            CachedFile(path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_holes_of_a_sparse_file_are_passed_over(tmp_path: Path) -> None:
    """15 TiB of nothing take no time, and what there is is found."""
    path = tmp_path / "sparse.bin"
    with path.open("wb") as file:
        file.truncate(15 << 40)
        file.seek(7 << 40)
        file.write(b"x" * MIB)
    began_s = time.monotonic()
    assert sum(lies(path).values()) == MIB
    assert time.monotonic() - began_s < 5


def test_a_root_that_is_none_and_a_path_that_is_none_are_said(tmp_path: Path) -> None:
    """As open(2) says it, with the path."""
    with pytest.raises(FileNotFoundError):
        InRoot(tmp_path / "absent")
    with InRoot(tmp_path) as root, pytest.raises(FileNotFoundError, match="/x"):
        root.open("/x", os.O_PATH)


def test_to_look_makes_no_page_more_used(model: Path) -> None:
    """Weights that were read once stay the first to be reclaimed (since Linux 6.3)."""
    release = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    if release < (6, 3):
        pytest.skip("before Linux 6.3 pages count as used when they are unmapped")
    with model.open("ab") as file:
        file.write(b"x" * (256 * MIB - SIZE))
    before = _active_bytes()
    for _ in range(3):
        lies(model)
    assert _active_bytes() - before < 128 * MIB


def _active_bytes() -> int:
    found = re.search(r"Active\(file\): +(\d+)", Path("/proc/meminfo").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_the_command_is_told_only_where_it_brings_all_home() -> None:
    """Of a file with two homes there is no one node that it should go to."""
    file = ModelFile(Path("/srv/m.gguf"), id=(1, 2))
    one = Stray(file, ("w/0",), frozenset({2}), {0: 5 << 30, 1: 1 << 30}, MIB)
    text = _far_away(one)
    assert "w/0 (at home on node 2) is cached far away: about 5.0 GiB on node 0, 1.0 GiB" in text
    assert text.endswith("numad-py cache /srv/m.gguf --to 2")
    two = Stray(file, ("w/0", "w/1"), frozenset({2, 3}), {0: 5 << 30}, 0)
    assert "numad-py cache" not in _far_away(two)
    assert "about" not in _far_away(two)


def test_a_name_is_quoted_in_the_command_and_may_not_forge_a_line(
    tmp_path: Path,
) -> None:
    """Whoever runs the command as root runs no other one; what no shell shows gives none."""
    tricky = ModelFile(tmp_path / "q;touch x.bin", id=(1, 2))
    text = _far_away(Stray(tricky, ("w/0",), frozenset({2}), {0: 5 << 30}, 0))
    assert text.endswith(f"numad-py cache '{tmp_path}/q;touch x.bin' --to 2")
    forged = ModelFile(tmp_path / "a\nok", id=(1, 2))
    many = tuple(f"w/{i}" for i in range(200))
    text = _far_away(Stray(forged, many, frozenset({2}), {0: 5 << 30}, 0))
    assert "numad-py cache" not in text
    assert "of w/0, w/1, w/2 and 197 more (at home" in text


def test_a_window_beyond_the_end_is_cut(model: Path) -> None:
    """The last part of a file is as long as it is."""
    with CachedFile(model) as file, file.window(SIZE - MIB, 4 * MIB) as window:
        assert window.size_bytes == MIB
        assert sum(end - start for start, end in window.runs) == MIB
    assert pagecache.WINDOW_BYTES > SIZE
