"""The keys of [rule.guard]: what they mean, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from numad_py.policy.load import load
from numad_py.policy.schema import GuardPolicy
from tests.unit.test_policy import problems

URL = "http://127.0.0.1:8000/metrics"
RULE = '[[rule]]\nname = "x"\ncomm = "x"\n[rule.guard]\n'
GOOD = f'{RULE}url = "{URL}"\nmetric = "a:b_seconds"\n'


def guard(path: Path, text: str) -> GuardPolicy | None:
    """Return the guard of the first rule."""
    path.write_text(text)
    return load(path).rules[0].guard


def test_two_keys_are_enough(tmp_path: Path) -> None:
    """The others have defaults, and a rule without the table has no guard."""
    assert guard(tmp_path / "p.toml", GOOD) == GuardPolicy(URL, "a:b_seconds")
    assert guard(tmp_path / "p.toml", '[[rule]]\nname = "x"\ncomm = "x"\n') is None


def test_every_key_has_its_meaning(tmp_path: Path) -> None:
    """Units as elsewhere; the table belongs to the rule above it."""
    text = f"""{GOOD}
labels = {{ model = "m", engine = "0" }}
quantile = "p99.9"
worse = "50%"
window = "2min"
pause = "30min"
allow_remote = true
[[rule]]
name = "y"
comm = "y"
guard = {{ url = "http://[::1]:80/m?x=1", metric = "q", quantile = "50%" }}
"""
    assert guard(tmp_path / "p.toml", text) == GuardPolicy(
        url=URL,
        metric="a:b_seconds",
        labels=(("engine", "0"), ("model", "m")),
        quantile=0.999,
        worse=0.5,
        window_s=120.0,
        pause_s=1800.0,
        allow_remote=True,
    )
    assert load(tmp_path / "p.toml").rules[1].guard == GuardPolicy(
        "http://[::1]:80/m?x=1", "q", quantile=0.5
    )


def test_all_mistakes_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    """Each with what to write; also those that only show beside another key."""
    text = f"""\
[[rule]]
name = "x"
comm = "x"
[rule.guard]
url = "http://10.0.0.1:80/"
metrc = "a"
worse = 20
quantile = "p100"
[rule.guard.labels]
a = 1

[[rule]]
name = "y"
comm = "y"
guard = 5

[[rule]]
name = "z"
comm = "("
  [rule.guard]
  metric = "x_bucket"
  url = "{URL}"
  window = "1d"
  pause = "0s"

[[exclude]]
name = "e"
comm = "e"
[exclude.guard]
url = "{URL}"
"""
    assert problems(tmp_path / "p.toml", text) == (
        'p.toml:4: rule.guard: has no metric; write metric = "request_latency_seconds"',
        (
            "p.toml:5: rule.guard.url: 10.0.0.1 is not this machine (127.0.0.0/8, ::1 or "
            "localhost); write allow_remote = true to read it all the same"
        ),
        "p.toml:6: rule.guard.metrc: no such key (did you mean metric?)",
        'p.toml:7: rule.guard.worse: 20 is not a share; write it in percent from "0%" to "100%"',
        'p.toml:8: rule.guard.quantile: \'p100\' is not a quantile; write "p95", or "95%"',
        (
            "p.toml:9: rule.guard.labels: { a = 1 } is not a table of texts; "
            'write { model_name = "my-model" }'
        ),
        "p.toml:15: rule.guard: is a table; write [rule.guard] above its keys",
        (
            "p.toml:19: rule.comm: '(' is not a regular expression: missing ), unterminated "
            "subpattern at position 0"
        ),
        "p.toml:21: rule.guard.metric: 'x_bucket' is one series of a histogram; write \"x\"",
        (
            "p.toml:23: rule.guard.window: '1d' is out of range: 10s to 1h; the endpoint is read "
            "each 5s at most, and a window needs several readings"
        ),
        "p.toml:24: rule.guard.pause: '0s' is out of range: 1min to 1d",
        (
            "p.toml:29: exclude.guard: no such key; known: name, comm, exe, cmdline, user, unit, "
            "cgroup, container"
        ),
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://127.0.0.1/metrics", "does not begin with http://"),
        ("127.0.0.1:8000/metrics", "does not begin with http://"),
        ("file:///etc/passwd", "does not begin with http://"),
        ("http:///metrics", "is not an address"),
        ("http://localhost:0/", "is not an address"),
        ("http://localhost:99999/", "is not an address"),
        ("http://localhost:port/", "is not an address"),
        ("http://[::1/", "is not an address"),
        ("http://localhost/a b", "is not an address"),
        ("http://localhost/\\n", "is not an address"),
        ("http://localhost/#a", "is not an address"),
        ("http://localhost:{pid}/", "is not an address"),
        ("http://me:secret@localhost/", "no user or password is sent"),
        ("https://me:secret@localhost:port/", "no user or password is sent"),
        ("http://0.0.0.0:8000/", "is not this machine"),
        ("http://127.0.0.1.example.com/", "is not this machine"),
        ("http://localhost.example.com/", "is not this machine"),
        ("http://[::ffff:10.0.0.1]/", "is not this machine"),
        ("http://169.254.169.254/", "is not this machine"),
    ],
)
def test_an_address_that_is_not_read_is_refused(tmp_path: Path, url: str, said: str) -> None:
    """The secret of one is not repeated."""
    text = f'{RULE}url = "{url}"\nmetric = "a"\n'
    (problem,) = problems(tmp_path / "p.toml", text)
    assert problem.startswith("p.toml:5: rule.guard.url: ")
    assert said in problem
    assert "secret" not in problem


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1:80", "[::1]:80", "localhost", "LOCALHOST"]
)
def test_this_machine_has_several_names(tmp_path: Path, host: str) -> None:
    """All of the loopback, by number or by name."""
    found = guard(tmp_path / "p.toml", f'{RULE}url = "http://{host}/"\nmetric = "a"\n')
    assert found is not None


def test_another_machine_may_be_allowed(tmp_path: Path) -> None:
    """By saying so."""
    text = f'{RULE}url = "http://10.0.0.1/"\nmetric = "a"\nallow_remote = true\n'
    found = guard(tmp_path / "p.toml", text)
    assert found is not None
    assert found.allow_remote


@pytest.mark.parametrize("name", ["", "9a", "a b", "a{b}", "é"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    """Of a metric and of a label."""
    text = f'{RULE}url = "{URL}"\nmetric = "{name}"\nlabels = {{ "{name}" = "x" }}\n'
    metric, label = problems(tmp_path / "p.toml", text)
    assert "is not the name of a metric" in metric
    assert "is not the name of a label" in label


@pytest.mark.parametrize("window", ["1s", "9.9s"])
def test_a_window_is_long_enough_for_readings(tmp_path: Path, window: str) -> None:
    """The endpoint is read each 5 seconds at most, and it is said that this is why."""
    text = f'{GOOD}window = "{window}"\n'
    (problem,) = problems(tmp_path / "p.toml", text)
    assert problem.startswith("p.toml:7: rule.guard.window: ")
    assert "10s to 1h; the endpoint is read each 5s at most" in problem
    text = f'{GOOD}window = "10s"\n'
    assert guard(tmp_path / "p.toml", text) == GuardPolicy(URL, "a:b_seconds", window_s=10.0)


def test_the_label_of_buckets_cannot_be_chosen(tmp_path: Path) -> None:
    """With one bucket alone there is no quantile."""
    text = f'{GOOD}labels = {{ le = "0.5", model = "m" }}\n'
    (problem,) = problems(tmp_path / "p.toml", text)
    assert problem.startswith('p.toml:7: rule.guard.labels: "le" tells the buckets of a histogram')
