"""Every Hypothesis strategy of the tests: ids, kernel lines, policy texts and whole machines."""

from __future__ import annotations

from collections import abc
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from itertools import combinations
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from numad_py.decide.solver.problem import Item, Place, Problem
from numad_py.model.cpulist import format_list
from numad_py.model.residency import Kind, Mobility
from numad_py.policy.keys import ARRAYS, TABLES
from numad_py.policy.load import BUILT_IN
from tests.layouts import FAMILIES, layout
from tests.property.crowded import crowd

MIB = 1 << 20
SAMPLE = Path(__file__).parents[2] / "config" / "numad-py.toml"

# Kernel texts

ids = st.frozensets(st.integers(0, 4096), max_size=64)
"""Ids of CPUs or nodes."""

list_texts = st.lists(
    st.one_of(
        st.integers(0, 99).map(str),
        st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda r: f"{r[0]}-{r[1]}"),
        st.sampled_from(["", "-", " ", "0-", "-1", "0-9:2/4", "\N{SUPERSCRIPT TWO}", "x"]),
    ),
    max_size=6,
).map(",".join)
"""What looks like a kernel list, and often is none."""

comms = st.one_of(
    st.text("() R1\n", max_size=15), st.text(st.characters(exclude_characters="\0"), max_size=15)
)
"""Names of commands; a process may give itself any."""

paths = (
    st.one_of(
        st.text(" \t\n=N0", min_size=1, max_size=30),
        st.text(st.characters(exclude_characters="\0\\"), min_size=1, max_size=30),
    )
    .map(lambda text: f"/{text}")
    .filter(lambda path: "//" not in path)
)
"""Paths of files, without backslashes: numa_maps does not escape these, so they have no inverse."""


@dataclass(frozen=True)
class Area:
    """What one line of numa_maps is to say."""

    start: int
    policy: str
    file: str | None
    words: tuple[str, ...]
    figures: Mapping[str, int]
    pages: Mapping[int, int]
    page_kib: int


_modes = st.sampled_from(["prefer", "prefer (many)", "bind", "interleave", "weighted interleave"])
_flags = st.sampled_from(["", "=static", "=relative", "=balancing", "=static|balancing"])
policies = st.one_of(
    st.sampled_from(["default", "local"]),
    # The kernel cuts what does not fit into 64 bytes.
    st.builds(lambda mode, f, on: f"{mode}{f}:{format_list(on)}"[:63], _modes, _flags, ids),
)
"""Mempolicies as mpol_to_str prints them."""

_counts = st.integers(1, 9) | st.integers(1, 1 << 40)
_names = ("anon", "dirty", "mapped", "mapmax", "swapcache", "active", "writeback")
_figures = st.fixed_dictionaries({}, optional=dict.fromkeys(_names, _counts))
areas = st.builds(
    Area,
    start=st.integers(0x1000, (1 << 47) - 1),
    policy=policies,
    file=st.none() | paths,
    words=st.sampled_from([(), ("heap",), ("stack",), ("huge",), ("stack", "huge")]),
    figures=_figures,
    pages=st.dictionaries(st.integers(0, 1023), _counts, max_size=5),
    page_kib=st.sampled_from([4, 16, 64, 2048, 1048576]),
)

area_lists = st.lists(areas, max_size=4)
cuts = st.integers(0, 100_000)
"""Where a text is cut; the test takes it modulo the length."""
figures_of_stat = st.tuples(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.integers(0, 8191))
"""Start time, CPU time and last CPU."""

_odd_words = st.sampled_from(
    [
        *("7f00", "default", "bind:0", "prefer", "(many)", "file=", "file=/a", "heap", "huge"),
        *("anon=1", "anon=", "N0=1", "N=1", "N0=", "N\N{SUPERSCRIPT TWO}=3", "=", "N-1=1"),
        *("N0=\N{SUPERSCRIPT TWO}", "anon=" + "9" * 5000, "N" + "9" * 5000 + "=1"),
        *("N0=\N{ARABIC-INDIC DIGIT FIVE}", "kernelpagesize_kB=4", "kernelpagesize_kB=0"),
        *("kernelpagesize_kB=x", "\r", "\v", "\x85", "\u2028", "", "\udcff"),
    ]
)
_odd_lines = st.builds(
    lambda head, words: head + " ".join(words),
    st.sampled_from(["", "7f00 default ", "7f00 prefer (many)=static:0- "]),
    st.lists(_odd_words | st.text(max_size=5), max_size=6),
)
odd_texts = st.lists(_odd_lines, max_size=4).map("\n".join)
"""Lines out of pieces of the grammar, in any order, and of anything else."""

# Policies

numbers = st.integers(0, 10**9)
percents = st.integers(0, 100)
blanks = st.sampled_from(["", " ", "  "])
byte_units = st.sampled_from(
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)]
)
time_units = st.sampled_from([("ms", 0.001), ("s", 1.0), ("min", 60.0), ("h", 3600.0)])
any_texts = st.text(max_size=40)
any_bytes = st.binary(max_size=60)
quantities = st.one_of(
    st.builds(
        lambda number, rest: f"{number}{rest}",
        st.integers() | st.floats() | st.sampled_from(["9" * 400, "0." + "1" * 400, "", "0x1"]),
        st.sampled_from(["", "B", "MiB", "TiB", "TiB/s", "s", "d", "m", "ms", "%", " % ", "\n"]),
    ),
    st.none() | st.booleans() | st.integers() | st.floats() | any_texts,
    st.lists(st.integers(), max_size=2) | st.dates(),
)
"""What may stand in a policy where a size, a duration, a share or a rate is wanted."""

_keys = [
    *(f"{key} = " for _, keys in TABLES.values() for key in keys),
    *(f"{key} = " for keys in ARRAYS.values() for key in keys),
    *("nodez = ", "'' = ", '"a b" = ', "rule = ", "daemon = "),
]
_values = [
    *('"5s"', '"512MiB"', '"10%"', '"act"', '"unlimited"', '"127.0.0.1:1"', '""', '"("', '"a{9}"'),
    *("true", "-1", "0", "1e999", "[]", "[0, 1]", "[true]", "{}", "{a = 1}", "2020-01-01", '["x"]'),
    *(f'"a{{{"9" * 20}}}"', f'"{"9" * 400}TiB"', f'"{"(" * 3000}"', "0x" + "f" * 5000),
    *("nan", '"0-4294967295"', '"\\u2028"', '"0"', '"0 %"', '"1d"', "'''a\nb'''", '["[", "\\\\"]'),
]
_ends = ["", "x = " + "9" * 5000, "x = " + "[" * 5000, "x", '"', '"""\n', "[", "a.b.c = 1", "\0"]
_headers = [
    *(f"[{name}]\n" for name in (*TABLES, *ARRAYS, "daemno")),
    *(f"[[{name}]]\n" for name in (*ARRAYS, *TABLES)),
]
_tables = st.builds(
    lambda header, pairs: header + "".join(f"{key}{value}\n" for key, value in pairs.items()),
    st.sampled_from(_headers),
    st.dictionaries(st.sampled_from(_keys), st.sampled_from(_values), max_size=6),
)
toml_like = st.builds(
    lambda tables, end: "".join(tables) + end,
    st.lists(_tables, max_size=4),
    st.just("") | st.sampled_from(_ends) | any_texts,
)
"""What looks like a policy, with values that each have broken some parser."""


@st.composite
def mutated_samples(draw: st.DrawFn) -> bytes:
    """Return a shipped policy with some of its bytes cut out, doubled or replaced."""
    data = draw(st.sampled_from([SAMPLE, BUILT_IN])).read_bytes()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 60)))
        new = draw(st.binary(max_size=4) | st.just(data[start:end] * 2))
        data = data[:start] + new + data[end:]
    return data


# Machines


@dataclass(frozen=True)
class NodePart:
    """One node, without its id."""

    cpus: int
    memory_mib: int
    free_share: int
    """In sixteenths of its memory."""
    cache_share: int
    """In sixteenths of what is not free."""


@dataclass(frozen=True)
class WorkerPart:
    """One worker; nodes by their place in the machine."""

    resident: Mapping[tuple[int, Kind, Mobility], int]
    """Units of 10 MiB."""
    threads: tuple[frozenset[int] | None, ...]
    """Masks of its threads as places of nodes; None: every CPU."""
    runs_on: tuple[int, ...]
    """Places of nodes; each stands for a quarter of its CPU time."""
    demand: int
    """CPUs, in units of 60/64: thirds, quarters and fifths of it are exact."""
    mems: frozenset[int] | None
    cpuset: frozenset[int] | None
    rule_nodes: frozenset[int] | None
    readable: bool


@dataclass(frozen=True)
class Machine:
    """A machine without node ids, to be numbered one way or another."""

    nodes: tuple[NodePart, ...]
    workers: tuple[WorkerPart, ...]
    distances: tuple[int, ...]
    """Between the pairs of nodes, no two alike."""
    reserved: frozenset[int] = frozenset()
    """Places of nodes whose first CPU is reserved."""
    absent_rule: bool = False
    """Whether the first worker's rule names a node that is not online."""
    ids: tuple[int, ...] = field(default=())


_kinds = st.sampled_from(list(Kind))
_mobilities = st.sampled_from([Mobility.MOVABLE] * 4 + [Mobility.SHARED, Mobility.POLICY])


@st.composite
def _workers(draw: st.DrawFn, count: int) -> WorkerPart:
    places = st.integers(0, count - 1)
    some = st.frozensets(places, min_size=1)
    return WorkerPart(
        resident=draw(
            st.dictionaries(
                st.tuples(places, _kinds, _mobilities), st.integers(1, 400), max_size=2 * count
            )
        ),
        threads=tuple(draw(st.lists(st.none() | some, min_size=1, max_size=4))),
        runs_on=tuple(draw(st.just(()) | st.tuples(places, places, places, places))),
        demand=draw(st.integers(0, 12)),
        mems=draw(st.none() | some),
        cpuset=draw(st.none() | st.none() | some),
        rule_nodes=draw(st.none() | st.none() | some),
        readable=draw(st.integers(0, 9)) > 0,
    )


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Return a machine of 1-5 nodes with holes in their ids and 0-8 workers."""
    nodes = draw(
        st.lists(
            st.builds(
                NodePart,
                cpus=st.sampled_from([0, 1, 2, 4, 4]),
                memory_mib=st.sampled_from([0, 2000, 4000, 8000, 16000]),
                free_share=st.integers(1, 16),
                cache_share=st.integers(0, 16),
            ),
            min_size=1,
            max_size=5,
        )
    )
    count = len(nodes)
    return Machine(
        nodes=tuple(nodes),
        workers=tuple(draw(st.lists(_workers(count), max_size=8))),
        distances=tuple(draw(st.permutations(range(11, 21)))),
        reserved=draw(st.frozensets(st.integers(0, count - 1))),
        absent_rule=draw(st.booleans()),
        ids=tuple(draw(st.permutations(range(12)))[:count]),
    )


@dataclass(frozen=True)
class SharerPart:
    """A worker of a machine of two nodes that maps some of two files."""

    home: int
    own: tuple[int, int]
    """MiB of its own memory by node."""
    files: tuple[tuple[int, int], tuple[int, int]]
    """MiB of each file by node."""
    willing: bool
    """Whether its rule lets what it shares be moved."""
    moving: bool


_MIBS = st.sampled_from([300, 0, 64, 1000])
sharers = st.lists(
    st.builds(
        SharerPart,
        home=st.sampled_from([1] * 7 + [0]),
        own=st.tuples(_MIBS, _MIBS),
        files=st.tuples(st.tuples(_MIBS, _MIBS), st.tuples(_MIBS, _MIBS)),
        willing=st.sampled_from([True] * 7 + [False]),
        moving=st.sampled_from([False] * 7 + [True]),
    ),
    min_size=1,
    max_size=4,
)
strangers = st.tuples(*[st.sampled_from([0, 0, 0, 1])] * 2)
"""How many processes that are no workers map each file."""
rooms_gib = st.sampled_from([1, 2, 4])

# Memory

layouts = st.builds(layout, st.sampled_from(FAMILIES), st.integers(0, (1 << 32) - 1))
"""What a process's memory may look like, of every pattern."""

sizes_of_kinds = st.none() | st.integers(0, 1 << 30).map(lambda pages: pages * 4096)
"""What the kernel may say of a kind's resident bytes."""

# Placement problems

_GIB = 1 << 30
_ITEM_BYTES = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5])


@st.composite
def _items(draw: st.DrawFn, key: str, ids: tuple[int, ...]) -> Item:
    some = st.frozensets(st.sampled_from(ids), min_size=1)
    by_node = st.fixed_dictionaries({node: _ITEM_BYTES.map(lambda n: n * _GIB) for node in ids})
    home = draw(st.none() | st.none() | some)
    return Item(
        key=key,
        bytes_by_node=draw(by_node),
        fixed_by_node=draw(st.just({}) | by_node),
        coming_bytes=draw(st.sampled_from([0, 0, 0, 2, 4])) * _GIB,
        cpus=draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])),
        busy=draw(st.sampled_from([0.0, 0.25, 1.0])),
        allowed=draw(st.just(frozenset(ids)) | some | st.frozensets(st.sampled_from(ids))),
        device_nodes=draw(st.just({}) | st.just({ids[0]: 1.0})),
        home=home,
        apart=draw(st.sampled_from([None, None, "a", "b"])),
        keep=home is not None and draw(st.integers(0, 3)) == 0,
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Return a machine of 1-3 nodes with 0-7 workers, often too tight for all of them."""
    ids = tuple(draw(st.permutations(range(9)))[: draw(st.integers(1, 3))])
    pairs = dict(zip(combinations(range(3), 2), draw(st.permutations(range(11, 23))), strict=False))
    places = tuple(
        Place(
            id=node,
            room_bytes=draw(st.sampled_from([0, 1, 2, 3, 5, 8])) * _GIB,
            cpus=draw(st.sampled_from([1.0, 2.0, 4.0])),
            distances={
                other: 10 if to == at else pairs[min(at, to), max(at, to)]
                for to, other in enumerate(ids)
            },
            slow=draw(st.sampled_from([1.0, 1.0, 1.5])),
        )
        for at, node in enumerate(ids)
    )
    return Problem(
        places, tuple(draw(_items(f"w{i}", ids)) for i in range(draw(st.integers(0, 7))))
    )


crowds = st.builds(crowd, st.integers(0, (1 << 32) - 1))
"""Machines with more workers than all answers could be looked through for."""

# Values of the model


def values_of(kind: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one for each sort of type
    """Return whatever a type hint of the model allows, in small numbers."""
    origin, arguments = get_origin(kind), get_args(kind)
    plain = {
        int: st.integers(0, 1 << 62),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(max_size=4) | st.just("\udcff"),
        bool: st.booleans(),
        type(None): st.none(),
    }
    if kind in plain:
        return plain[kind]
    if origin in {Union, UnionType}:
        return st.one_of([values_of(part) for part in arguments])
    if origin is abc.Mapping:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=2)
    if origin is frozenset:
        return st.frozensets(st.integers(0, 300), max_size=6)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    if issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    hints = get_type_hints(kind)
    # A NamedTuple's are its fields, too.
    names = [f.name for f in fields(kind)] if is_dataclass(kind) else list(kind._fields)
    return st.deferred(lambda: st.builds(kind, **{name: values_of(hints[name]) for name in names}))
