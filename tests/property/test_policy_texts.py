"""Properties of loading a policy: whatever the file holds, a Policy or a PolicyError."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings

from numad_py.errors import PolicyError
from numad_py.policy.load import load
from tests.property.strategies import SAMPLE, any_bytes, mutated_samples, toml_like

pytestmark = pytest.mark.filterwarnings("ignore:Possible (nested set|set ):FutureWarning")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where to write a policy; one folder for all examples."""
    return tmp_path_factory.mktemp("policy") / "p.toml"


def check(path: Path, data: bytes) -> None:
    """Load, and hold that every problem names the file and a line that it has."""
    path.write_bytes(data)
    try:
        load(path)
    except PolicyError as error:
        problems = error.problems
    else:
        return
    assert problems
    for problem in problems:
        assert problem.startswith(f"{path}:")
        line = re.match(r":(\d+):", problem.removeprefix(str(path)))
        assert line is None or 1 <= int(line[1]) <= data.count(b"\n") + 1


@settings(max_examples=200)
@given(toml_like)
@example("[placement]\nmin_remote = " + f'"{"9" * 400}TiB"\n')
@example("[migration]\nrate = " + f'"{"9" * 400}TiB/s"\n')
@example('[[rule]]\nname = "x"\ncomm = "a{99999999999999999999}"\n')
@example(f'[[rule]]\nname = "x"\ncomm = "{"(" * 5000}"\n')
@example("x = " + "9" * 5000)
@example("x = " + "[" * 5000)
@example("x = 0x" + "f" * 5000)
@example("[daemon]\nmode = 0x" + "f" * 5000)
@example("[migration]\nrate = [[0x" + "f" * 5000 + "]]")
def test_any_toml_is_a_policy_or_a_policy_error(path: Path, text: str) -> None:
    """No value of any key raises anything else."""
    check(path, text.encode())


@given(mutated_samples())
def test_a_damaged_policy_is_a_policy_or_a_policy_error(path: Path, data: bytes) -> None:
    """So does no damage to a file that was good."""
    check(path, data)


@given(any_bytes)
def test_any_bytes_are_a_policy_or_a_policy_error(path: Path, data: bytes) -> None:
    """Nor do files that were never a policy."""
    check(path, data)


def test_the_sample_is_good_to_begin_with(path: Path) -> None:
    """What is damaged above has no problem of its own."""
    path.write_bytes(SAMPLE.read_bytes())
    assert load(path).sources == (str(path),)


@pytest.mark.parametrize("odd", ["\u2028", "\x85"])
def test_only_newlines_count_as_lines(path: Path, odd: str) -> None:
    """A comment may hold what Python takes for the end of a line; the problem's line is right."""
    path.write_text(f'# {odd} {odd}\n[log]\nlevel = "{odd}"\n')
    with pytest.raises(PolicyError) as caught:
        load(path)
    assert [p.removeprefix(f"{path}:")[:13] for p in caught.value.problems] == ["3: log.level:"]


def test_true_is_no_node(path: Path) -> None:
    """To Python true is 1; to whoever wrote it, it is not node 1."""
    path.write_text('[[rule]]\nname = "x"\ncomm = "x"\nnodes = [true]\n')
    with pytest.raises(PolicyError, match="not a list of ids"):
        load(path)
