"""What may hold pages, what a full reading teaches about it, and what is counted once."""

from __future__ import annotations

from dataclasses import replace

from numad_py.kernel.maps import parse_maps
from numad_py.kernel.numa_maps import parse
from numad_py.kernel.segments import segments
from numad_py.model.residency import Kind, Mobility, Residency, SegmentId, SegmentPart
from numad_py.model.snapshot import Snapshot
from numad_py.observe.areas import MOST_SEGMENTS, Frame, candidates, frame_of, layout_of
from numad_py.observe.sample import Area
from numad_py.observe.segments import merge
from tests.unit.test_unfinished import GIB, seen

MIB = 1 << 20
MAPS = """\
555500000000-555500100000 r-xp 00000000 fe:01 77 /opt/llama-server
555500200000-555500300000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f1000000000 ---p 00000000 00:00 0
7f1000000000-7f1040000000 rw-p 00000000 00:00 0
7f2000000000-7f2040000000 r--s 00000000 fe:01 4711 /srv/model a.gguf
7f2800000000-7f2810000000 rw-s 00000000 00:01 12 /dev/shm/kv
7f2900000000-7f2910000000 rw-s 00000000 00:06 300 /dev/nvidia0
7f2a00000000-7f2a10000000 rw-s 00000000 00:0f 55 anon_inode:[io_uring]
7f2b00000000-7f2b40000000 rw-p 00000000 00:10 9 /anon_hugepage (deleted)
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]
7ffc00100000-7ffc00104000 r--p 00000000 00:00 0 [vvar]
7ffc00104000-7ffc00106000 r-xp 00000000 00:00 0 [vdso]
"""
NUMA_MAPS = """\
555500000000 default file=/opt/llama-server mapped=256 mapmax=2 N0=256 kernelpagesize_kB=4
555500200000 default heap anon=16 dirty=16 N0=16 kernelpagesize_kB=4
7f0000000000 default
7f1000000000 bind:1 anon=1000 dirty=1000 N1=1000 kernelpagesize_kB=4
7f2000000000 default file=/srv/model\\040a.gguf mapped=9000 N0=5000 N1=4000 kernelpagesize_kB=4
7f2800000000 default file=/dev/shm/kv mapped=600 mapmax=3 N1=600 kernelpagesize_kB=4
7f2b00000000 default file=/anon_hugepage\\040(deleted) huge anon=8 N1=8 kernelpagesize_kB=2048
7ffc00000000 default stack anon=4 dirty=4 N0=4 kernelpagesize_kB=4
"""


def frame() -> Frame:
    """Return what the full reading teaches."""
    vmas, odd = parse(NUMA_MAPS)
    assert not odd
    return frame_of(vmas, parse_maps(MAPS))


def drawn_from(known: Frame, text: str = MAPS) -> list[Area]:
    """Return what would be drawn from."""
    return [area for _, area in candidates(parse_maps(text), known)]


def test_what_holds_no_memory_is_not_drawn_from() -> None:
    """Reserved address space, devices and the kernel's own areas would waste draws."""
    starts = [area.start for area in drawn_from(Frame())]
    assert starts == [
        *(0x555500000000, 0x555500200000, 0x7F1000000000, 0x7F2000000000),
        *(0x7F2800000000, 0x7F2B00000000, 0x7FFC00000000),
    ]


def test_kinds_are_told_from_maps_alone() -> None:
    """Before a full reading, everything counts as movable, and hugetlb as small pages."""
    found = drawn_from(Frame())
    expected = (Kind.FILE, Kind.ANON, Kind.ANON, Kind.FILE, Kind.SHMEM, Kind.HUGETLB, Kind.ANON)
    assert tuple(area.kind for area in found) == expected
    assert {area.mobility for area in found} == {Mobility.MOVABLE}


def test_a_full_reading_teaches_mobility_and_size_of_page() -> None:
    """Later samples know what is shared, what the user has placed, and what is a huge page."""
    found = {area.start: area for area in drawn_from(frame())}
    assert found[0x7F1000000000].mobility is Mobility.POLICY
    assert found[0x7F2800000000].mobility is Mobility.SHARED
    assert found[0x7F2000000000].mobility is Mobility.MOVABLE
    assert found[0x7F2B00000000].page_bytes == 2 * MIB
    assert frame().policies == ("bind:1",)


def test_a_part_of_an_area_is_still_known() -> None:
    """Areas are split and cut: the part that is left has the same pages as before."""
    text = "7f1000100000-7f1000200000 rw-p 00000000 00:00 0\n"
    (found,) = drawn_from(frame(), text)
    assert found.mobility is Mobility.POLICY


def test_a_new_area_is_taken_for_movable() -> None:
    """It was not there when the frame was made, though another one was near."""
    text = "7f1040000000-7f1050000000 rw-p 00000000 00:00 0\n"
    (found,) = drawn_from(frame(), text)
    assert found.mobility is Mobility.MOVABLE


def test_another_file_in_the_same_place_is_another_area() -> None:
    """What was known of the pages there is of pages that are gone."""
    text = "7f1000000000-7f1040000000 rw-s 00000000 fe:01 99 /srv/other\n"
    (found,) = drawn_from(frame(), text)
    assert (found.kind, found.mobility) == (Kind.FILE, Mobility.MOVABLE)


def test_what_cannot_be_moved_is_drawn_from_by_itself_where_it_is_much() -> None:
    """A model file that all map would leave few draws for the memory on which decisions hang."""
    shared = "7f2000000000 default file=/m.gguf mapped=9000 mapmax=5 N0=9000 kernelpagesize_kB=4\n"
    vmas, _ = parse(NUMA_MAPS.replace("bind:1", "default") + shared)
    layout = layout_of(parse_maps(MAPS), frame_of(vmas, parse_maps(MAPS)))
    assert [area.start for area in layout.others] == [
        *(0x555500000000, 0x7F2000000000, 0x7F2800000000)
    ]
    assert {area.mobility for area in layout.movable} == {Mobility.MOVABLE}
    assert layout.segments[SegmentId("fe:01", 4711)] == ("/srv/model a.gguf", Kind.FILE)
    assert not layout_of(parse_maps(MAPS), Frame()).others


def test_larger_files_and_segments_are_told_apart() -> None:
    """By device and inode, with their pages by node, and what others map; small ones are not."""
    vmas, _ = parse(NUMA_MAPS)
    page = 4096
    kv, model = SegmentId("00:01", 12), SegmentId("fe:01", 4711)
    pool, program = SegmentId("00:10", 9), SegmentId("fe:01", 77)
    on_0, on_1 = ((0, 256 * page),), ((1, 600 * page),)
    model_on = ((0, 5000 * page), (1, 4000 * page))
    assert segments(vmas, parse_maps(MAPS)) == (
        SegmentPart(kv, "/dev/shm/kv", Kind.SHMEM, on_1, on_1, 3),
        SegmentPart(pool, "/anon_hugepage (deleted)", Kind.HUGETLB, ((1, 16 * MIB),), mapmax=1),
        SegmentPart(program, "/opt/llama-server", Kind.FILE, on_0, on_0, 2),
        SegmentPart(model, "/srv/model a.gguf", Kind.FILE, model_on, mapmax=1),
    )


def test_system_v_segments_are_not_told_apart() -> None:
    """Their ids begin at 0 in each IPC namespace: two of one id may be two segments."""
    text = "7f3000000000-7f3010000000 rw-s 00000000 00:01 0 /SYSV0000002a (deleted)\n"
    (area,) = drawn_from(Frame(), text)
    assert (area.kind, area.segment) == (Kind.SHMEM, None)
    assert not layout_of(parse_maps(text), Frame()).segments
    line = "7f3000000000 default file=/SYSV0000002a\\040(deleted) N0=9000 kernelpagesize_kB=4\n"
    assert segments(parse(line)[0], parse_maps(text)) == ()


def test_of_many_segments_the_largest_are_told_apart() -> None:
    """Each costs draws of its own: thousands would cost seconds."""
    lines = []
    for i in range(1, 100):
        start, size = (0x7F00 + i) << 32, (64 + i) * MIB
        lines.append(f"{start:x}-{start + size:x} rw-s 0 00:01 {i} /memfd:x\n")
    layout = layout_of(parse_maps("".join(lines)), Frame())
    assert len(layout.movable) == 99
    assert sorted(key.inode for key in layout.segments) == list(range(100 - MOST_SEGMENTS, 100))


def mapping(*parts: tuple[str, dict[int, int]]) -> Snapshot:
    """Return a snapshot with workers that map one file, and what each has resident of it."""
    snapshot = seen(0)
    workers = []
    for label, by_node in parts:
        part = SegmentPart(SegmentId("fe:01", 4711), "/m.gguf", Kind.FILE, tuple(by_node.items()))
        residency = Residency((), 0.0, segments=(part,))
        workers.append(replace(snapshot.workers[0], label=label, residency=residency))
    return replace(snapshot, workers=tuple(workers))


def test_a_segment_counts_once_with_all_its_users() -> None:
    """Five workers that map one model file of 40 GiB have 40 GiB of it, not 200."""
    snapshot = mapping(*((f"x/{i}", {0: 40 * GIB}) for i in range(5)))
    (segment,) = merge(snapshot.workers)
    assert segment.resident_bytes == 40 * GIB
    assert segment.users == ("x/0", "x/1", "x/2", "x/3", "x/4")


def test_of_a_segment_the_most_that_anyone_has_counts() -> None:
    """Each has touched another part: at least that much is there."""
    (segment,) = merge(mapping(("x/0", {0: GIB}), ("x/1", {0: 3 * GIB, 1: GIB})).workers)
    assert segment.bytes_by_node == {0: 3 * GIB, 1: GIB}
