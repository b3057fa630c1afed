"""What is said of a policy that is no TOML, above all where it gives a key or a table twice."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import tomli

from numad_py.errors import PolicyError
from numad_py.policy.lines import syntax_error
from numad_py.policy.load import load
from numad_py.policy.schema import Mode

RULE = "[[rule]]\nname = 'a'\ncomm = 'a'\n"


def said(folder: Path, text: str) -> str:
    """Return the one problem of a policy, less its path."""
    path = folder / "p.toml"
    path.write_bytes(text.encode())
    with pytest.raises(PolicyError) as caught:
        load(path)
    (problem,) = caught.value.problems
    return problem.removeprefix(f"{path}:")


@pytest.mark.parametrize(
    ("text", "line", "second"),
    [
        ("[daemon]\nmode = 'act'\n\nmode = 'observe'\n", 4, "mode = 'observe'"),
        ("[daemon]\r\nmode = 'act'\r\nmode = 'act' # again\r\n", 3, "mode = 'act' # again"),
        ("daemon.mode = 'act'\ndaemon.mode = 'act'", 2, "daemon.mode = 'act'"),
        ("[daemon]\nmode = 'act'\n[log]\n[daemon]\n", 4, "[daemon]"),
        ('[log]\nlevel = \'a\'\nlevel = """\nb\n"""\n', 3, 'level = """'),
        ("[placement]\nx = [\n  0,\n]\nx = [\n  [\n  1],\n]\n", 5, "x = ["),
        (f"{RULE}guard = {{ url = 'a', url = 'b' }}\n", 4, "guard = { url = 'a', url = 'b' }"),
        (f"{RULE}comm = '{'x' * 99}'\n", 4, f"comm = '{'x' * 52}..."),
    ],
)
def test_what_is_given_twice_is_shown_where_it_stands_again(
    tmp_path: Path, text: str, line: int, second: str
) -> None:
    """And what to do."""
    told = f"{line}: given twice, the second time here: {second}; keep one of the two"
    assert said(tmp_path, text) == told


@pytest.mark.parametrize("text", [f"{RULE}[rule]\n", "[rule]\nname = 'a'\n\n[\"rule\"]\n"])
def test_a_second_rule_is_no_rule_too_many(tmp_path: Path, text: str) -> None:
    """Nobody is told to throw one away: a list of tables takes double brackets."""
    told = "4: there may be several tables rule: write [[rule]] above each"
    assert said(tmp_path, text) == told


@pytest.mark.parametrize(
    "text",
    [
        "daemon = { mode = 'act' }\ndaemon.mode = 'act'\n",
        "daemon = 1\n[daemon]\n",
        "[daemon]\nmode = 'act'\nmode = 'act\n",
        "[daemon]\nmode = 'act'\nmode\n",
        "[daemon]\nmode = 'act'\n[log] level = 'info'\n",
    ],
)
def test_what_is_no_toml_for_another_reason_is_said_by_the_parser(
    tmp_path: Path, text: str
) -> None:
    """Also where the key is there before."""
    assert re.match(r"\d+: not TOML: ", said(tmp_path, text))


@pytest.mark.filterwarnings("ignore:Free-form arguments:DeprecationWarning")
@pytest.mark.parametrize(
    ("said_by_it", "line"),
    [
        ("Cannot overwrite a value (at line 2, column 3)", 2),
        ('Expected "\'" (at end of document)', 3),
        ("Duplicate inline table key 'line 7' (at line 2, column 9)", 2),
    ],
)
def test_the_line_is_told_by_the_message_where_the_parser_is_old(
    said_by_it: str, line: int
) -> None:
    """Before tomli 2.2; the end of the document is its last line."""
    error = tomli.TOMLDecodeError(said_by_it)
    assert syntax_error(error, "a = 1\nb = 2\nc = '").startswith(f"{line}: ")


def test_lines_that_end_as_in_windows_are_counted_as_others(tmp_path: Path) -> None:
    """The line of a key is its own, and not the first for want of a beginning that parses."""
    told = said(tmp_path, "[daemon]\r\nmode = 'act'\r\nintervall = '5s'\r\n[log]\r\n")
    assert told.startswith("3: daemon.intervall: no such key")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """Editors of Windows begin a file with one; lines and keys are as without it."""
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xef\xbb\xbf[daemon]\r\nmode = 'observe'\r\n")
    assert load(path).daemon.mode is Mode.OBSERVE
    assert said(tmp_path, "\ufeff[daemon]\nmoed = 'act'\n").startswith("2: daemon.moed: no such")
    path.write_bytes(b"\xef\xbb\xbf\n\xff")
    with pytest.raises(PolicyError, match=r"p\.toml:2: not UTF-8"):
        load(path)


def test_a_line_of_blanks_takes_no_time(tmp_path: Path) -> None:
    """Looking for where a value begins must not try each blank with each other."""
    text = '[daemon]\nmode = "act"\nmode = """\n' + " " * 200_000 + '\n"""\n'
    began_s = time.monotonic()
    assert said(tmp_path, text).startswith("3: given twice")
    assert time.monotonic() - began_s < 5
