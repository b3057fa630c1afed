"""What Prometheus's text format says of a metric, without a server."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from numad_py.errors import Malformed
from numad_py.observe.exposition import read
from tests.unit.test_endpoint import ANY, HISTOGRAM


def test_only_series_with_the_labels_count() -> None:
    """And it is told where there is none."""
    found = read(HISTOGRAM, replace(ANY, labels=(("model", "a"),)), 1.0)
    assert (found.metric, found.count) == ('latency_seconds{model="a"}', 6.0)
    with pytest.raises(Malformed, match="no series of latency_seconds has model='c'"):
        read(HISTOGRAM, replace(ANY, labels=(("model", "c"),)), 1.0)


def test_a_gauge_is_read() -> None:
    """The mean of its series; a summary's quantile is one too, where it is named."""
    text = 'x_seconds{a="1"} 2.0\nx_seconds{a="2"} 4.0\nx_seconds_more 9\n'
    assert read(text, replace(ANY, metric="x_seconds"), 1.0).value == 3.0
    text = '# TYPE x summary\nx{quantile="0.5"} 1\nx{quantile="0.95"} 3\nx_sum 8\nx_count 4\n'
    named = replace(ANY, metric="x", labels=(("quantile", "0.95"),))
    assert read(text, named, 1.0).value == 3.0
    with pytest.raises(Malformed, match="is a summary; write labels"):
        read(text, replace(ANY, metric="x"), 1.0)


def test_what_the_client_library_exposes_is_read() -> None:
    """Histogram, gauge and counter as prometheus_client writes them, names with colons too."""
    registry = CollectorRegistry()
    histogram = Histogram("vllm:e2e_seconds", "x", ["model"], registry=registry, buckets=(1, 2))
    for value in (0.5, 1.5, 9.0):
        histogram.labels("m").observe(value)
    Gauge("wait_seconds", "x", registry=registry).set(0.25)
    Counter("requests", "x", registry=registry).inc()
    text = generate_latest(registry).decode()
    found = read(text, replace(ANY, metric="vllm:e2e_seconds"), 1.0)
    assert (found.buckets, found.count) == (((1.0, 1.0), (2.0, 2.0)), 3.0)
    assert read(text, replace(ANY, metric="wait_seconds"), 1.0).value == 0.25
    with pytest.raises(Malformed, match="requests_total is a counter"):
        read(text, replace(ANY, metric="requests_total"), 1.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no latency_seconds"),
        ("<html><body>latency_seconds</body></html>", "there is no latency_seconds"),
        ("latency_seconds{", "not in Prometheus's text format"),
        ("latency_seconds lots\n", "not in Prometheus's text format"),
        ('latency_seconds_bucket{le="0.1"} 3\n', "no bucket without: it is no histogram"),
        ('latency_seconds_bucket{le="+Inf"} 3\n', "has 0 buckets with a bound"),
        ("latency_seconds_bucket 3\n", "has no bound"),
        ('latency_seconds_bucket{le="wide"} 3\n', "has no bound"),
        (
            'latency_seconds_bucket{le="1"} NaN\nlatency_seconds_bucket{le="+Inf"} 3\n',
            "no numbers to go by",
        ),
        (
            'latency_seconds_bucket{le="1"} -1\nlatency_seconds_bucket{le="+Inf"} 3\n',
            "no numbers to go by",
        ),
        ("latency_seconds NaN\n", "is nan, which is no number to go by"),
        (
            "".join(f'latency_seconds_bucket{{le="{i}"}} 1\n' for i in range(600)),
            "has 600 buckets with a bound",
        ),
    ],
)
def test_what_is_no_metric_to_go_by_is_said_to_be_so(text: str, said: str) -> None:
    """Nothing of it is guessed at."""
    with pytest.raises(Malformed) as caught:
        read(text, ANY, 1.0)
    assert said in str(caught.value)
