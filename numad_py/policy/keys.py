"""Every key of the policy file: its parser, its limits and the field it fills."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from numad_py.model.cpulist import parse_list
from numad_py.policy import guard, schema
from numad_py.policy.schema import GIB, MIB
from numad_py.policy.units import parse_bytes, parse_duration, parse_rate, parse_share

_LAST_PORT = 65535

E = TypeVar("E", bound=Enum)
Parser = Callable[[object], Any]


@dataclass(frozen=True)
class Key:
    """One key of a table."""

    field: str
    parse: Parser
    """Of a table within a table: takes the values of its keys, by field."""
    keys: Mapping[str, Key] | None = None
    """Those of a table within a table."""
    needed: tuple[tuple[str, str], ...] = ()
    """Of these, those that must be given, each with an example."""
    contradictions: Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]] | None = None
    """Takes what is good of its values; tells keys that are bad beside others, and why."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        msg = f"{value!r} is not a text in quotes"
        raise ValueError(msg)  # noqa: TRY004 - every bad value is a ValueError here
    return value


def _path(value: object) -> str:
    text = _text(value)
    if not text.startswith("/"):
        msg = f"{text!r} is not an absolute path"
        raise ValueError(msg)
    return text


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        msg = f"{value!r} is neither true nor false"
        raise ValueError(msg)  # noqa: TRY004
    return value


def _one_of(kind: type[E]) -> Parser:
    def parse(value: object) -> E:
        try:
            return kind(value)
        except ValueError:
            allowed = ", ".join(f'"{member.value}"' for member in kind)
            msg = f"{value!r} is not one of {allowed}"
            raise ValueError(msg) from None

    return parse


def _within(parse: Parser, low: float, high: float, words: str) -> Parser:
    def check(value: object) -> Any:
        result = parse(value)
        if not low <= result <= high:
            msg = f"{value!r} is out of range: {words}"
            raise ValueError(msg)
        return result

    return check


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{value!r} is not a whole number"
        raise ValueError(msg)  # noqa: TRY004
    return value


def _level(value: object) -> str:
    allowed = ("debug", "info", "warning", "error")
    if value not in allowed:
        msg = f"{value!r} is not one of " + ", ".join(f'"{word}"' for word in allowed)
        raise ValueError(msg)
    return str(value)


def _chunk(value: object) -> int:
    size: int = _within(parse_bytes, 1 << 16, GIB, "64KiB to 1GiB")(value)
    if size % 4096:
        msg = f"{value!r} is not a multiple of 4KiB"
        raise ValueError(msg)
    return size


def _rate(value: object) -> int | None:
    rate = parse_rate(value)
    if rate is not None and rate < MIB:
        msg = f'{value!r} is out of range: 1MiB/s or more, or "unlimited"'
        raise ValueError(msg)
    return rate


def split_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    good = port.isascii() and port.isdigit() and 0 < int(port) <= _LAST_PORT
    if not colon or not bare or not good:
        msg = (
            f'{text!r} is not an address; write "127.0.0.1:10465" or "[::1]:10465", or "" for none'
        )
        raise ValueError(msg)
    return bare, int(port)


def _listen(value: object) -> str:
    text = _text(value)
    if text:
        split_listen(text)
    return text


def _ids(value: object) -> frozenset[int]:
    """Return ids of ``[0, 1]`` or ``"0-1"``."""
    if isinstance(value, str):
        return parse_list(value)
    if isinstance(value, list) and all(type(i) is int and i >= 0 for i in value):
        return frozenset(value)
    msg = f'{value!r} is not a list of ids; write [0, 1] or "0-1"'
    raise ValueError(msg)


def _some_ids(value: object) -> frozenset[int]:
    ids = _ids(value)
    if not ids:
        msg = "names no node"
        raise ValueError(msg)
    return ids


def _spread(value: object) -> str | None:
    if isinstance(value, bool):
        return "rule" if value else None
    if value != "cgroup":
        msg = f'true (the workers of the rule) or "cgroup" (those of one cgroup), not {value!r}'
        raise ValueError(msg)
    return "cgroup"


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    texts = tuple(_text(item) for item in values)
    if not texts or not all(texts):
        msg = "an empty pattern matches nothing; leave the key out"
        raise ValueError(msg)
    return texts


def _patterns(value: object) -> tuple[re.Pattern[str], ...]:
    patterns = []
    for text in _texts(value):
        try:
            patterns.append(re.compile(text))
        except (re.error, OverflowError, RecursionError) as error:
            msg = f"{text!r} is not a regular expression: {error}"
            raise ValueError(msg) from None
    return tuple(patterns)


def _name(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,62}", text):
        msg = f"{text!r} is not a name: small letters, digits, and _ . - after the first"
        raise ValueError(msg)
    return text


TABLES: dict[str, tuple[type, dict[str, Key]]] = {
    "daemon": (
        schema.DaemonPolicy,
        {
            "mode": Key("mode", _one_of(schema.Mode)),
            "interval": Key("interval_s", _within(parse_duration, 0.1, 3600, "100ms to 1h")),
            "on_stop": Key("on_stop", _one_of(schema.OnStop)),
            "state_dir": Key("state_dir", _path),
            "runtime_dir": Key("runtime_dir", _path),
        },
    ),
    "log": (
        schema.LogPolicy,
        {
            "level": Key("level", _level),
            "format": Key("format", _one_of(schema.LogFormat)),
        },
    ),
    "metrics": (
        schema.MetricsPolicy,
        {
            "listen": Key("listen", _listen),
            "max_workers": Key("max_workers", _within(_whole, 1, 1024, "1 to 1024")),
        },
    ),
    "discovery": (schema.DiscoveryPolicy, {"known_servers": Key("known_servers", _flag)}),
    "scan": (
        schema.ScanPolicy,
        {
            "interval": Key("interval_s", _within(parse_duration, 0.1, 86400, "100ms to 1d")),
            "longest_hold": Key("longest_hold_s", _within(parse_duration, 0, 3600, "0s to 1h")),
            "cpu_share": Key("cpu_share", _within(parse_share, 0.0001, 1, "0.01% to 100%")),
        },
    ),
    "placement": (
        schema.PlacementPolicy,
        {
            "min_locality": Key("min_locality", parse_share),
            "min_remote": Key("min_remote_bytes", parse_bytes),
            "headroom": Key("headroom", _within(parse_share, 0, 0.9, "0% to 90%")),
            "cooldown": Key("cooldown_s", _within(parse_duration, 0, 86400, "0s to 1d")),
            "smt_share": Key("smt_share", _within(parse_share, 0, 1, "0% to 100%")),
            "settle": Key("settle_s", _within(parse_duration, 0, 3600, "0s to 1h")),
            "loading_limit": Key("loading_limit_s", _within(parse_duration, 0, 86400, "0s to 1d")),
            "no_way_back": Key("no_way_back_s", _within(parse_duration, 0, 86400, "0s to 1d")),
            "moved_per_cycle": Key(
                "moved_per_cycle_bytes", _within(parse_bytes, 1 << 20, 1 << 50, "1MiB to 1PiB")
            ),
            "reserved_cpus": Key("reserved_cpus", _ids),
            "follow_devices": Key("follow_devices", _flag),
            "reserve": Key("reserve_s", _within(parse_duration, 0, 3600, "0s to 1h")),
        },
    ),
    "migration": (
        schema.MigrationPolicy,
        {
            "method": Key("method", _one_of(schema.Method)),
            "longest_chunk": Key(
                "longest_chunk_s", _within(parse_duration, 0.001, 60, "1ms to 1min")
            ),
            "chunk": Key("chunk_bytes", _chunk),
            "rate": Key("rate_bytes_per_s", _rate),
            "duty": Key("duty", _within(parse_share, 0.01, 1, "1% to 100%")),
            "cpu_pressure": Key("cpu_pressure", parse_share),
            "memory_pressure": Key("memory_pressure", parse_share),
            "migrate_pages_limit": Key("migrate_pages_limit_bytes", parse_bytes),
            "autonuma": Key("autonuma", _one_of(schema.AutoNuma)),
            "hugetlb": Key("hugetlb", _one_of(schema.HugeTlb)),
        },
    ),
}
"""Tables of the file, each with the dataclass it fills."""

MATCH_KEYS: dict[str, Key] = {
    "comm": Key("comm", _patterns),
    "exe": Key("exe", _patterns),
    "cmdline": Key("cmdline", _patterns),
    "user": Key("user", _texts),
    "unit": Key("unit", _texts),
    "cgroup": Key("cgroup", _texts),
    "container": Key("container", _texts),
}
EXCLUDE_KEYS: dict[str, Key] = {"name": Key("name", _name), **MATCH_KEYS}
GUARD_KEYS: dict[str, Key] = {
    "url": Key("url", guard.parse_url),
    "metric": Key("metric", guard.parse_metric),
    "labels": Key("labels", guard.parse_labels),
    "quantile": Key("quantile", guard.parse_quantile),
    "worse": Key("worse", parse_share),
    "window": Key("window_s", guard.parse_window),
    "pause": Key("pause_s", _within(parse_duration, 60, 86400, "1min to 1d")),
    "allow_remote": Key("allow_remote", _flag),
}
"""``[rule.guard]``."""
RULE_KEYS: dict[str, Key] = {
    **EXCLUDE_KEYS,
    "nodes": Key("nodes", _some_ids),
    "spread": Key("spread", _spread),
    "shared": Key("shared", _one_of(schema.SharedPages)),
    "files": Key("files", _flag),
    "guard": Key(
        "guard",
        guard.make,
        keys=GUARD_KEYS,
        contradictions=guard.contradictions,
        needed=(("url", guard.EXAMPLE), ("metric", '"request_latency_seconds"')),
    ),
}
ARRAYS: dict[str, dict[str, Key]] = {"rule": RULE_KEYS, "exclude": EXCLUDE_KEYS}
"""Arrays of tables."""
