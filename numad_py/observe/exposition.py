"""One metric out of a Prometheus exposition; text in, a reading out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample  # noqa: TC002 - as above

from numad_py.errors import Malformed
from numad_py.model.guard import GuardReading
from numad_py.policy.schema import GuardPolicy

MOST_BUCKETS = 512
"""A histogram of more is no latency."""
_MOST_TOLD = 80
"""Characters of somebody else's words."""
_UNKNOWN = "unknown"
_COUNTER = "counter"
_SUMMARY = "summary"


def read(text: str, policy: GuardPolicy, at_s: float) -> GuardReading:
    """Return what an exposition says of a metric.

    Args:
        text: the format that Prometheus calls text, version 0.0.4.
        policy: which metric, and what labels its series must have.
        at_s: time since boot at which it was read.

    Raises:
        Malformed: the metric is not there, or is none to go by; says what to write.
    """
    kind, samples = _parse(text, policy.metric)
    if kind == _COUNTER:
        msg = f"{policy.metric} is a counter; write the name of a histogram or a gauge"
        raise Malformed(msg)
    wanted = [s for s in samples if _has(s.labels, policy.labels)]
    if samples and not wanted:
        labels = ", ".join(f"{name}={value!r}" for name, value in policy.labels)
        msg = f"no series of {policy.metric} has {labels}; write labels that are there"
        raise Malformed(msg)
    histogram = f"{policy.metric}_bucket"
    buckets = [s for s in wanted if s.name == histogram]
    if buckets:
        return _histogram(buckets, policy, at_s)
    values = [s for s in wanted if s.name == policy.metric]
    if not values:
        msg = f"there is no {policy.metric}; write a histogram or a gauge that is there"
        raise Malformed(msg)
    return _gauge(values, kind, policy, at_s)


def _parse(text: str, metric: str) -> tuple[str, list[Sample]]:
    """Return the type and the samples of one metric; of the rest of the text nothing is parsed."""
    line = re.compile(rf"(?:# TYPE )?{re.escape(metric)}(?:_bucket|_sum|_count)?(?:[ \t{{]|$)")
    own = "".join(f"{part}\n" for part in text.split("\n") if line.match(part))
    kind, samples = _UNKNOWN, []
    try:
        for family in text_string_to_metric_families(own):
            kind = family.type if family.type != _UNKNOWN else kind
            samples += family.samples
    except Exception as error:  # noqa: BLE001 - the library parses what anybody's server answers
        stumbled = repr(str(error)[:_MOST_TOLD])
        msg = f"what it says of {metric} is not in Prometheus's text format: {stumbled}"
        raise Malformed(msg) from None
    return kind, samples


def _has(labels: Mapping[str, str], wanted: Iterable[tuple[str, str]]) -> bool:
    return all(labels.get(name) == value for name, value in wanted)


def _histogram(samples: Iterable[Sample], policy: GuardPolicy, at_s: float) -> GuardReading:
    """Return the sum of all series, bucket by bucket."""
    total: dict[float, float] = {}
    for sample in samples:
        try:
            bound = float(sample.labels["le"])
        except (KeyError, ValueError):
            msg = f"a bucket of {policy.metric} has no bound: it is no histogram"
            raise Malformed(msg) from None
        total[bound] = total.get(bound, 0.0) + sample.value
    count = total.pop(math.inf, None)
    if count is None or not total or len(total) > MOST_BUCKETS:
        msg = (
            f"{policy.metric} has {len(total)} buckets with a bound, and "
            f"{'no' if count is None else 'one'} bucket without: it is no histogram to go by"
        )
        raise Malformed(msg)
    figures = (count, *total, *total.values())
    if not all(math.isfinite(figure) for figure in figures) or min(count, *total.values()) < 0:
        msg = f"{policy.metric} has buckets that are no numbers to go by"
        raise Malformed(msg)
    buckets = tuple(sorted(total.items()))
    return GuardReading(at_s, _named(policy), buckets=buckets, count=count)


def _gauge(samples: Iterable[Sample], kind: str, policy: GuardPolicy, at_s: float) -> GuardReading:
    """Return the mean of all series."""
    labels = dict(policy.labels)
    if kind == _SUMMARY and "quantile" not in labels:
        msg = f'{policy.metric} is a summary; write labels = {{ quantile = "0.95" }}, or another'
        raise Malformed(msg)
    values = [sample.value for sample in samples]
    if not all(math.isfinite(value) for value in values):
        msg = f"{policy.metric} is {values[0]:g}, which is no number to go by"
        raise Malformed(msg)
    return GuardReading(at_s, _named(policy), value=math.fsum(values) / len(values))


def _named(policy: GuardPolicy) -> str:
    labels = ",".join(_escaped(policy.labels))
    return f"{policy.metric}{{{labels}}}" if labels else policy.metric


def _escaped(labels: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in labels:
        plain = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        yield f'{name}="{plain}"'
