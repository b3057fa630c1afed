"""The keys of ``[rule.guard]``: what they may say."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from numad_py.model.guard import LEAST_BETWEEN_S
from numad_py.policy.schema import GuardPolicy
from numad_py.policy.units import parse_duration, parse_share

EXAMPLE = '"http://127.0.0.1:8000/metrics"'
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
"""Names of metrics and labels, as Prometheus has them; those of labels without colons."""
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,4})?)", re.ASCII)
_SHORTEST_S = 2 * LEAST_BETWEEN_S
_LONGEST_S = 3600.0
_SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def make(values: Any) -> GuardPolicy:
    """Return a guard with these values by field."""
    return GuardPolicy(**values)


def contradictions(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield keys whose values are bad beside others, and what is wrong with them."""
    host = urlsplit(values.get("url", EXAMPLE.strip('"'))).hostname or ""
    if not values.get("allow_remote", False) and not is_local(host):
        what = f"{host} is not this machine (127.0.0.0/8, ::1 or localhost)"
        yield "url", f"{what}; write allow_remote = true to read it all the same"


def is_local(host: str) -> bool:
    """Say whether a host is this machine, by an address that no other can have."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_url(value: object) -> str:
    """Return the address of an endpoint.

    Raises:
        ValueError: it is none that is read here.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value):
        msg = f"{value!r} is not an address; write {EXAMPLE}"
        raise ValueError(msg)
    if re.match(r"[^/?#]*//[^/?#]*@", value):
        msg = "no user or password is sent; leave out what stands before the @"
        raise ValueError(msg)
    parts = _split(value)
    if parts.scheme != "http":
        msg = f"{value!r} does not begin with http://, and nothing else is read; write {EXAMPLE}"
        raise ValueError(msg)
    if not parts.hostname or parts.fragment or "{" in value:
        msg = f"{value!r} is not an address; write {EXAMPLE}"
        raise ValueError(msg)
    return value


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        good = parts.port != 0
    except ValueError:
        good = False
    if not good:
        msg = f"{text!r} is not an address; write {EXAMPLE}"
        raise ValueError(msg)
    return parts


def parse_metric(value: object) -> str:
    """Return the name of a metric.

    Raises:
        ValueError: it is none, or that of one series of a histogram.
    """
    if not isinstance(value, str) or not _METRIC.fullmatch(value):
        msg = f'{value!r} is not the name of a metric; write "request_latency_seconds"'
        raise ValueError(msg)
    if _SUFFIX.search(value):
        msg = f'{value!r} is one series of a histogram; write "{_SUFFIX.sub("", value)}"'
        raise ValueError(msg)
    return value


def parse_labels(value: object) -> tuple[tuple[str, str], ...]:
    """Return labels and values, sorted.

    Raises:
        ValueError: it is no table of texts, or names the label of a histogram's buckets.
    """
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        msg = f'{value!r} is not a table of texts; write {{ model_name = "my-model" }}'
        raise ValueError(msg)
    for name in value:
        if not _METRIC.fullmatch(name) or ":" in name:
            msg = f"{name!r} is not the name of a label"
            raise ValueError(msg)
    if "le" in value:
        msg = '"le" tells the buckets of a histogram apart, and all of them count; leave it out'
        raise ValueError(msg)
    return tuple(sorted(value.items()))


def parse_window(value: object) -> float:
    """Return seconds of a window.

    Raises:
        ValueError: it is no duration, or none that is long enough for two readings to lie in it.
    """
    seconds = parse_duration(value)
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        msg = (
            f"{value!r} is out of range: {_SHORTEST_S:.0f}s to 1h; the endpoint is read each "
            f"{LEAST_BETWEEN_S:.0f}s at most, and a window needs several readings"
        )
        raise ValueError(msg)
    return seconds


def parse_quantile(value: object) -> float:
    """Return a quantile as a share, 0..1 without the ends.

    >>> parse_quantile("p99")
    0.99
    """
    share = 0.0
    if isinstance(value, str) and (match := _PERCENTILE.fullmatch(value)):
        share = round(float(match[1]) / 100, 8)
    elif isinstance(value, str) and value.endswith("%"):
        share = parse_share(value)
    if not 0 < share < 1:
        msg = f'{value!r} is not a quantile; write "p95", or "95%"'
        raise ValueError(msg)
    return share
