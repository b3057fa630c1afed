"""Readers of /proc: areas of a process, the machine's statistics, pressure, resctrl groups."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from pathlib import Path

import pytest

from numad_py.errors import Malformed, Vanished
from numad_py.kernel.machine_stat import MachineStat, parse_machine_stat
from numad_py.kernel.maps import MappedArea, parse_maps
from numad_py.kernel.pressure import parse_pressure
from numad_py.kernel.procfs import ProcFs
from numad_py.model.machine import Pressure
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, put

MAPS = (
    "55d0c8a00000-55d0c8a21000 r-xp 00002000 fd:01 1048601                    /usr/bin/a b\n"
    "55d0ca000000-55d0ca021000 rw-p 00000000 00:00 0                          [heap]\n"
    "7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \n"
    "7f0040000000-7f0080000000 ---p 00000000 00:00 0 \n"
    "7f0080000000-7f0080001000 rw-s 00000000 00:01 77                         /x\\012y (deleted)\n"
    "7ffd00000000-7ffd00004000 r--p 00000000 00:00 0                          [vvar]\n"
    "7ffd00004000-7ffd00006000 r-xp 00000000 00:00 0                          [vdso]\n"
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
)
STAT = (
    "cpu  300 30 60 9000 5 3 3 6 40 4\n"
    "cpu0 100 10 20 3000 5 1 1 2 40 4\n"
    "cpu3 200 20 40 6000 0 2 2 4 0 0\n"
    f"intr 12345 {'0 ' * 5000}\n"
    "ctxt 99\nbtime 1700000000\nprocesses 50321\nprocs_running 2\n"
)
PRESSURE = (
    "some avg10=12.50 avg60=0.98 avg300=0.35 total=2683378481\n"
    "full avg10=100.00 avg60=0.00 avg300=0.00 total=0\n"
)


def machine(folder: Path, process: FakeProcess | None = None) -> FakeMachine:
    """Return one with a node and at most one process."""
    nodes = [FakeNode(0, [0, 1])]
    return FakeMachine(folder, nodes, processes=[process] if process else [])


def test_each_area_is_read_with_what_is_mapped_there() -> None:
    """Paths keep their blanks; the kernel's own names stay; an anonymous area has no path."""
    areas = parse_maps(MAPS)
    assert areas[0] == MappedArea(
        0x55D0C8A00000, 0x55D0C8A21000, "r-xp", "fd:01", 1048601, "/usr/bin/a b"
    )
    assert areas[2] == MappedArea(0x7F0000000000, 0x7F0040000000, "rw-p", "00:00", 0, "")
    assert [area.path for area in areas] == [
        *("/usr/bin/a b", "[heap]", "", "", "/x\ny (deleted)", "[vvar]", "[vdso]", "[vsyscall]")
    ]
    assert areas[-1].end == 0xFFFFFFFFFF601000


@pytest.mark.parametrize(
    ("permissions", "path", "may"),
    [
        *(("rw-p", path, True) for path in ("", "[heap]", "[stack]", "[anon:x]", "/usr/lib/x.so")),
        *(("rw-s", path, True) for path in ("/dev/shm/x", "/dev/zero (deleted)")),
        *(("rw-s", f"/dev/huge{x}/y", True) for x in ("pages", "pages-1G", "tlbfs")),
        *(("rw-s", f"/d{x}", True) for x in ("mabuf-models/w", "ev/models/w.gguf (deleted)")),
        *(("rw-s", path, False) for path in ("/dev/nvidia0", "/dmabuf:x", "anon_inode:[perf]")),
        *(("r--p", path, False) for path in ("[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]")),
        *(("---p", path, False) for path in ("", "/usr/lib/x.so")),
        ("--xp", "/usr/lib/x.so", True),
    ],
)
def test_an_area_may_hold_pages_or_not(permissions: str, path: str, *, may: bool) -> None:
    """Address space without access, devices and what the kernel maps itself hold none."""
    area = MappedArea(0x1000, 0x2000, permissions, "00:00", 0, path)
    assert area.may_hold_pages is may


def test_maps_cut_anywhere_give_their_whole_lines() -> None:
    """A line that was cut short is left out: its path or inode would be another file's."""
    areas = parse_maps(MAPS)
    for cut in range(len(MAPS) + 1):
        assert parse_maps(MAPS[:cut]) == areas[: MAPS[:cut].count("\n")]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "7f00 rw-p 00000000 00:00 0 ",
        "7f00-zz rw-p 00000000 00:00 0 ",
        "-7f00 rw-p 00000000 00:00 0 ",
        "7f00-7f01 rw-p 00000000 00:00 x ",
        "7f00-7f01 rw-p 00000000 00:00",
        "Size:                  4 kB",
    ],
)
def test_an_odd_line_of_maps_costs_no_other(line: str) -> None:
    """It is left out, and those around it are read."""
    assert parse_maps(f"{MAPS}{line}\n{MAPS}") == parse_maps(MAPS) * 2


def test_maps_of_this_process_name_a_file_with_a_newline(tmp_path: Path) -> None:
    """The running kernel escapes it, and nothing else, and every line of its is read."""
    path = tmp_path / "a\nb c\t=d"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        text = ProcFs().maps(os.getpid())
        areas = parse_maps(text)
        (area,) = [area for area in areas if area.path == str(path)]
    assert area.end - area.start == mmap.PAGESIZE
    assert (area.permissions, area.inode) == ("r--s", path.stat().st_ino)
    assert len(areas) == text.count("\n")
    assert [a.start for a in areas] == sorted(a.start for a in areas)


def test_busy_is_all_but_idle_and_waiting_for_io() -> None:
    """Guest time is inside user time; CPUs go by their real id, and offline ones are absent."""
    assert parse_machine_stat(STAT) == MachineStat(
        50321, {0: 100 + 10 + 20 + 1 + 1 + 2, 3: 200 + 20 + 40 + 2 + 2 + 4}
    )


def test_a_stat_cut_anywhere_is_malformed_or_tells_the_same_forks() -> None:
    """A count that lost its last digits would look like a machine that was booted anew."""
    whole = STAT.index("\nprocs_running") + 1
    for cut in (*range(200), *range(whole - 60, len(STAT) + 1)):
        if cut < whole:
            with pytest.raises(Malformed, match="how many processes"):
                parse_machine_stat(STAT[:cut])
        else:
            assert parse_machine_stat(STAT[:cut]) == parse_machine_stat(STAT)


@pytest.mark.parametrize("text", ["", "\n", "processes 5\n", "x\nprocesses many\n", "\nprocesses"])
def test_a_stat_without_the_fork_count_is_malformed(text: str) -> None:
    """Discovery hangs on it: no count is not zero."""
    with pytest.raises(Malformed):
        parse_machine_stat(text)


def test_an_odd_cpu_is_left_out_of_stat() -> None:
    """One with too few figures, or with words in their place, says nothing of how busy it was."""
    text = f"cpu1 1 2 3\ncpu2 a b c d e f g h\ncpux 1 1 1 1 1 1 1 1\n{STAT}"
    assert parse_machine_stat(text) == parse_machine_stat(STAT)


def test_making_a_process_is_seen_in_this_machines_stat() -> None:
    """The running kernel counts each fork, and time spent on a CPU as busy."""
    before = ProcFs().machine_stat()
    subprocess.run(["true"], check=True)
    after = ProcFs().machine_stat()
    assert after.forks > before.forks
    assert set(after.busy_ticks) & os.sched_getaffinity(0)
    assert sum(after.busy_ticks.values()) >= sum(before.busy_ticks.values())


def test_a_made_stat_is_read(tmp_path: Path) -> None:
    """Through the reader; one that is malformed is counted."""
    made = machine(tmp_path)
    made.forks, made.busy_ticks = 7000, {0: 5, 8: 6}
    procfs = ProcFs(made.write().procfs)
    assert procfs.machine_stat() == MachineStat(7000, {0: 5, 8: 6})
    second = procfs.clock_ticks
    assert procfs.busy_s({0, 4, 8}) == {0: 5 / second, 8: 6 / second}
    put(made.procfs / "stat", "cpu 1\n")
    with pytest.raises(Malformed):
        procfs.machine_stat()
    (made.procfs / "stat").unlink()
    with pytest.raises(Vanished):
        procfs.machine_stat()
    assert (procfs.malformed, procfs.vanished) == (1, 1)
    assert procfs.busy_s({0, 8}) == {}


def test_pressure_is_a_share_of_the_last_ten_seconds() -> None:
    """Per cent become 0..1; before Linux 5.13 the CPUs have no second line."""
    assert parse_pressure(PRESSURE) == {"some": 0.125, "full": 1.0}
    assert parse_pressure(PRESSURE.partition("full")[0]) == {"some": 0.125}


def test_a_pressure_cut_anywhere_gives_its_whole_lines() -> None:
    """12.50 cut to 1 or to 12 would be another share."""
    whole = list(parse_pressure(PRESSURE).items())
    for cut in range(len(PRESSURE) + 1):
        lines = PRESSURE[:cut].count("\n")
        assert parse_pressure(PRESSURE[:cut]) == dict(whole[:lines])


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", "some\n", "some avg10\n", "some avg10=\n", "some avg10=x.y avg60=0.00\n"),
        *("some avg10=-1.00\n", "some avg10=nan\n", "some avg10=.\n", "some avg60=1.00\n"),
        "other avg10=1.00\n",
    ],
)
def test_an_odd_pressure_says_nothing(text: str) -> None:
    """It is left out, which is not zero."""
    assert parse_pressure(text) == {}


def test_pressure_is_read_where_there_is_any(tmp_path: Path) -> None:
    """What this kernel has not is None."""
    made = machine(tmp_path)
    made.pressure = {"memory": (25.0, 12.5)}
    procfs = ProcFs(made.write().procfs)
    assert procfs.pressure() == Pressure(None, 0.25, 0.125)
    put(made.procfs / "pressure/cpu", "some avg10=50.00 avg60=0.00 avg300=0.00 total=1\n")
    assert procfs.pressure().cpu_some == 0.5


class SwitchedOff(ProcFs):
    """One whose PSI is switched off at boot."""

    def _open(self, full: str) -> int:
        if "/pressure/" in full:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return super()._open(full)


@pytest.mark.parametrize("reader", [ProcFs, SwitchedOff])
def test_no_pressure_is_none(tmp_path: Path, reader: type[ProcFs]) -> None:
    """Without the files, or with ones that cannot be read, nothing is known and nothing counted."""
    procfs = reader(machine(tmp_path).write().procfs)
    assert procfs.pressure() == Pressure(None, None, None)
    assert (procfs.malformed, procfs.vanished) == (0, 0)


@pytest.mark.parametrize(
    "group", [("/", ""), ("/", "mon0"), ("group0", ""), ("group0", "mon 1"), ("a:b", "c:d")]
)
def test_a_process_names_its_resctrl_groups(tmp_path: Path, group: tuple[str, str]) -> None:
    """The root is ``/``; names may hold blanks and colons, but no newline."""
    made = machine(tmp_path, FakeProcess(7, ["x"], "", resctrl=group)).write()
    assert ProcFs(made.procfs).resctrl_group(7) == group


def test_a_resctrl_group_cut_anywhere_is_none_or_whole(tmp_path: Path) -> None:
    """A name that was cut short would be another group's."""
    text = "res:group0\nmon:mon1\n"
    for cut in range(len(text) + 1):
        put(tmp_path / "7/cpu_resctrl_groups", text[:cut])
        expected = ("group0", "mon1") if cut == len(text) else None
        assert ProcFs(tmp_path).resctrl_group(7) == expected


@pytest.mark.parametrize("text", ["", "res:\nmon:\n", "mon:a\n", "res:a\n", "nonsense\n\n"])
def test_a_process_without_a_resctrl_group_has_none(tmp_path: Path, text: str) -> None:
    """Both names are empty where resctrl is not mounted; odd texts say as little."""
    put(tmp_path / "7/cpu_resctrl_groups", text)
    assert ProcFs(tmp_path).resctrl_group(7) is None


def test_a_kernel_that_does_not_tell_resctrl_groups_has_none(tmp_path: Path) -> None:
    """Nor does a process that has ended; neither counts as vanished."""
    procfs = ProcFs(machine(tmp_path, FakeProcess(7, ["x"], "")).write().procfs)
    assert (procfs.resctrl_group(7), procfs.resctrl_group(8)) == (None, None)
    assert procfs.vanished == 0


def test_a_stat_that_is_the_same_to_the_letter_is_not_parsed_again(tmp_path: Path) -> None:
    """Of a stat that is known by its hash nothing is told; one letter more tells all of it."""
    made = machine(tmp_path)
    made.processes = [FakeProcess(100, ["sleep"], "", comm="sleep")]
    procfs = ProcFs(made.write().procfs)
    text, first = procfs.stat_changed(100, None)
    assert first == procfs.stat(100)
    assert procfs.stat_changed(100, text) == (text, None)
    stat = made.procfs / "100/stat"
    stat.write_text(stat.read_text().replace("(sleep)", "(sleeps)"))
    changed, second = procfs.stat_changed(100, text)
    assert changed != text
    assert second is not None
    assert second.comm == "sleeps"
