"""The page cache of files: found without reading them, and which files a worker works with."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from numad_py.act.cached import bring
from numad_py.cli import main
from numad_py.errors import NumadError, RightsError
from numad_py.kernel.pagecache import WINDOW_BYTES, CachedFile
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.observe.model_files import LEAST_BYTES, model_files
from numad_py.observe.page_cache import look

MIB = 1 << 20
SIZE = WINDOW_BYTES + 8 * MIB + 5
"""More than one window, and no whole number of pages."""
WORKER = """
import mmap, sys
file = open(sys.argv[1], "rb")
kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print(kept[0], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a file that is cached and on the disk."""
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(b"x" * SIZE)
        file.flush()
        os.fsync(file.fileno())
    return path


def drop(path: Path, start: int, size: int) -> None:
    """Let a part of a file be cached no longer."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_DONTNEED)


def is_cached(path: Path, at: int) -> bool:
    """Ask the kernel whether the page at an offset is cached, by another way."""
    with path.open("rb") as file:
        flags = os.RWF_NOWAIT
        try:
            return os.preadv(file.fileno(), [bytearray(1)], at, flags) == 1
        except BlockingIOError:
            return False


def test_all_of_a_cached_file_is_counted_to_the_page(model: Path) -> None:
    """Its last page too, which the file does not fill."""
    with CachedFile(model) as file:
        found = look(file, Syscalls())
    pages = -(-SIZE // mmap.PAGESIZE)
    assert sum(found.by_node.values()) == pages * mmap.PAGESIZE


def test_what_is_not_cached_is_neither_counted_nor_read(model: Path) -> None:
    """To look at a file of hundreds of GiB must not fill the memory with it."""
    drop(model, 0, 32 * MIB)
    if is_cached(model, 16 * MIB):
        pytest.skip("this file system keeps all that it holds in the cache")
    with CachedFile(model) as file:
        found = look(file, Syscalls())
    assert sum(found.by_node.values()) <= SIZE - 31 * MIB
    assert not is_cached(model, 28 * MIB)


def test_pages_that_are_on_the_node_already_are_left(model: Path) -> None:
    """Nothing is handed to the kernel for them."""
    with CachedFile(model) as file:
        before = look(file, Syscalls())
        (node,) = before.by_node
        after = bring(file, node, Syscalls(), lambda: 0)
    assert (after.moved_bytes, after.no_room_bytes) == (0, 0)


@pytest.mark.parametrize("name", ["absent", "."])
def test_what_is_no_file_is_said(tmp_path: Path, name: str) -> None:
    """With its path."""
    with pytest.raises(NumadError, match=str(tmp_path)):
        CachedFile(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_another_users_file_is_refused_where_the_kernel_would_not_tell(model: Path) -> None:
    """Else all of it would be read: mincore says of each page that it is resident."""
    model.chmod(0o644)
    model.parent.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from numad_py.kernel.pagecache import CachedFile\n"
        "from numad_py.errors import RightsError\n"
        "os.setuid(65534)\n"
        "try: CachedFile(Path(sys.argv[1]))\n"
        "except RightsError as error: print(error)\n"
    )
    link = Path("/proc/self/fd")  # the file through a descriptor: its folder is root's alone
    with model.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", code, str(link / str(file.fileno()))],
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
    assert issubclass(RightsError, NumadError)
    assert "run it as root" in done.stdout


@pytest.fixture
def worker(model: Path) -> Iterator[int]:
    """Run a process that maps the file."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def test_the_files_of_a_worker_are_found(worker: int, model: Path) -> None:
    """Mapped and named as an argument, it is there once; libraries are not."""
    (found,) = model_files(ProcFs(), worker)
    size, inode = model.stat().st_size, model.stat().st_ino
    assert (found.path, found.root) == (model, Path(f"/proc/{worker}/root"))
    assert (found.size_bytes, found.id[1], found.mapped) == (size, inode, True)


def test_the_files_of_a_worker_have_the_names_that_it_gives_them(
    worker: int, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own path, not the one through proc by which they are reached."""
    assert main(["cache", "--of", str(worker)]) == 0
    assert capsys.readouterr().out.startswith(f"{model}: node 0: ")
    assert main(["cache", "--of", str(worker), "--json"]) == 0
    assert [file["file"] for file in json.loads(capsys.readouterr().out)["files"]] == [str(model)]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize(("names", "code"), [(1, 77), (2, 1)])
def test_where_no_file_may_be_looked_at_a_right_is_missing(
    model: Path, names: int, code: int
) -> None:
    """All of them for want of a right: 77; where another one fails for another reason: 1."""
    model.chmod(0o600)
    with model.open("rb") as file:
        # Once as root, for what is imported late: the interpreter's folder may be root's alone.
        script = (
            "import os, sys; from numad_py.cli import main; main(['cache', '/absent'])\n"
            "os.setuid(65534)\nsys.exit(main(sys.argv[1:]))\n"
        )
        link = f"/proc/self/fd/{file.fileno()}"
        words = ["cache", link, "/absent"][: names + 1]
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == code, done.stdout + done.stderr
    assert f"no right to read {link}; run it as root" in done.stdout


def test_the_weights_of_a_folder_that_is_named_are_found(tmp_path: Path) -> None:
    """As vLLM is told of them; small files and others are left out."""
    for name, size in (
        ("a.safetensors", LEAST_BYTES),
        ("b.safetensors", 10),
        ("c.txt", LEAST_BYTES),
    ):
        (tmp_path / name).write_bytes(b"x" * size)
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", f"--model={tmp_path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = model_files(ProcFs(), process.pid)
        assert process.stdin is not None
        process.stdin.close()
    assert [file.path for file in found] == [tmp_path / "a.safetensors"]


def test_the_verb_prints_where_it_lies(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people, and as a document."""
    assert main(["cache", str(model)]) == 0
    assert "node 0: 72.0 MiB" in capsys.readouterr().out
    assert main(["cache", str(model), "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert sum(file["cached_bytes"].values()) >= SIZE


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["/absent"], 1, "/absent cannot be opened: No such file"),
        ([], 2, "name files"),
        (["/absent", "--to", "4711"], 2, "no node 4711 with memory; nodes with memory: 0"),
        (["--of", "4194304"], 1, "gone"),
    ],
)
def test_what_cannot_be_is_said(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what would do, and an exit code that tells."""
    assert main(["cache", *words]) == code
    caught = capsys.readouterr()
    assert said in caught.out + caught.err


def test_a_worker_without_large_files_is_said_to_have_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not that the command was typed wrongly; and how large a file is to be."""
    with subprocess.Popen(["sleep", "60"], env={"LC_ALL": "C"}) as worker:
        try:
            assert main(["cache", "--of", str(worker.pid)]) == NumadError.exit_code
        finally:
            worker.kill()
    assert f"{worker.pid} maps and names no file of 16.0 MiB or more" in capsys.readouterr().err
