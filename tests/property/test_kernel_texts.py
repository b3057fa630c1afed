"""Properties of the parsers of kernel files."""

from __future__ import annotations

from hypothesis import given, settings

from numad_py.errors import Malformed
from numad_py.kernel.maps import parse_maps
from numad_py.kernel.numa_maps import Vma, parse, parse_line, residency
from numad_py.kernel.stat import parse_stat
from numad_py.model.residency import Kind
from tests.fake_tree import area, stat_line
from tests.property.strategies import (
    Area,
    area_lists,
    areas,
    comms,
    cuts,
    figures_of_stat,
    odd_texts,
)

MANY = settings(max_examples=5 * settings().max_examples)
"""For facts that few examples touch."""


def line_of(made: Area) -> str:
    """Return an area as the kernel prints it."""
    return area(
        made.pages,
        start=made.start,
        policy=made.policy,
        file=made.file,
        words=made.words,
        figures=made.figures,
        page_kib=made.page_kib,
    )


def vma_of(made: Area) -> Vma:
    """Return what is to be read from an area; figures stand only where pages do."""
    figures = made.figures if made.pages else {}
    return Vma(
        start=made.start,
        policy=made.policy,
        file=made.file,
        huge="huge" in made.words,
        heap="heap" in made.words,
        stack="stack" in made.words,
        pages=made.pages,
        page_bytes=made.page_kib * 1024 if made.pages else 0,
        mapmax=figures.get("mapmax", 1),
        anon_pages=figures.get("anon", 0),
        dirty_pages=figures.get("dirty", 0),
    )


@given(areas)
def test_a_printed_area_is_read_back(made: Area) -> None:
    """Whatever the policy, path, words and figures: what the kernel prints is what is read."""
    assert parse_line(line_of(made).removesuffix("\n")) == vma_of(made)


@MANY
@given(areas)
def test_each_page_is_counted_once(made: Area) -> None:
    """Parts and residency add up to an area's pages, on every node; anonymous ones to anon=."""
    vma = vma_of(made)
    for node, count in made.pages.items():
        assert sum(part.pages.get(node, 0) for part in vma.parts) == count
    if made.file is not None and "huge" not in made.words:
        anon = sum(sum(p.pages.values()) for p in vma.parts if p.kind is Kind.ANON)
        assert anon == min(vma.anon_pages, sum(made.pages.values()))
    seen = residency([vma], 0, read_at_s=0.0, cost_s=0.0)
    assert seen.by_node() == {n: count * vma.page_bytes for n, count in made.pages.items()}


@given(area_lists, cuts)
def test_a_text_cut_anywhere_gives_its_whole_lines(made: list[Area], cut: int) -> None:
    """A cut costs the line that it falls into, which counts as odd, and nothing else."""
    text = "".join(map(line_of, made))
    cut = cut % (len(text) + 1)
    found, odd = parse(text[:cut])
    assert found == [vma_of(a) for a in made][: text[:cut].count("\n")]
    assert odd == (1 if text[:cut] and text[cut - 1] != "\n" else 0)


@MANY
@given(odd_texts)
def test_any_text_is_read_and_every_line_accounted_for(text: str) -> None:
    """Each line is an area or odd; nothing is raised for the whole, Malformed for a line."""
    found, odd = parse(text)
    lines = text.split("\n")
    assert len(found) + odd == len(lines) - (not lines[-1])
    for line in lines:
        try:
            vma = parse_line(line)
        except Malformed:
            continue
        assert vma.page_bytes > 0 or not vma.pages


@given(odd_texts)
def test_any_text_is_read_as_maps(text: str) -> None:
    """Lines of another form are left out of /proc/PID/maps."""
    assert len(parse_maps(text)) <= len(text.split("\n"))


@given(comms, figures_of_stat)
def test_a_stat_line_is_read_whatever_the_command_is_called(
    comm: str, figures: tuple[int, int, int]
) -> None:
    """Blanks, parentheses and newlines in comm shift no field."""
    start, cpu, last = figures
    stat = parse_stat(stat_line(1, comm, start, cpu, last))
    assert (stat.comm, stat.state, stat.ppid) == (comm, "S", 1)
    assert (stat.start_ticks, stat.cpu_ticks, stat.last_cpu) == (start, cpu, last)


@given(comms, figures_of_stat, cuts)
def test_a_stat_line_cut_anywhere_is_malformed_or_the_same_process(
    comm: str, figures: tuple[int, int, int], cut: int
) -> None:
    """A cut never makes another process of it: comm and start time are whole or it is Malformed."""
    text = stat_line(1, comm, *figures)
    try:
        stat = parse_stat(text[: cut % len(text)])
    except Malformed:
        return
    assert (stat.comm, stat.start_ticks) == (comm, figures[0])


@given(odd_texts)
def test_any_text_is_a_stat_line_or_malformed(text: str) -> None:
    """Nothing but Malformed is raised."""
    try:
        stat = parse_stat(text)
    except Malformed:
        return
    assert f"({stat.comm})" in text
