"""The manual pages, held against the parser, the keys and the sample policy."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

from numad_py import errors
from numad_py.cli import build_parser
from numad_py.errors import NumadError
from numad_py.model.plan import Reason
from numad_py.policy.keys import ARRAYS, EXCLUDE_KEYS, GUARD_KEYS, RULE_KEYS, TABLES
from numad_py.policy.load import defaults, load
from numad_py.policy.schema import GuardPolicy

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "config/numad-py.toml"
PAGE_FILES = (ROOT / "packaging/man/numad-py.8", ROOT / "packaging/man/numad-py.toml.5")
PROGRAM, POLICY = PAGES = tuple(path.read_text() for path in PAGE_FILES)

MACRO = re.compile(r"[A-Z][a-z]")
"""Macros of mdoc(7) that mark words have two letters."""
COMMAND = re.compile(r"^(?:\.Ql |[#$] )(?:sudo )?numad-py (.+)$", re.MULTILINE)
"""What a page tells its reader to type."""


def sections(page: str, macro: str) -> dict[str, str]:
    """Return the text below each heading, up to the next heading of any kind."""
    parts = re.split(r"^\.(Sh|Ss) (.+)\n", page, flags=re.MULTILINE)
    headings = zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    return {title.removesuffix(r"\&"): text for kind, title, text in headings if kind == macro}


def marked(page: str, macro: str) -> set[str]:
    """Return the words that a page marks with a macro, wherever in a line it stands."""
    found = set()
    for line in page.splitlines():
        current = ""
        for word in line[1:].split() if line.startswith(".") else ():
            if MACRO.fullmatch(word):
                current = word
            elif current == macro and word not in {",", ".", ":", ";", "|"}:
                found.add(word)
    return found


def tags(text: str, macro: str) -> list[str]:
    """Return what stands behind ``.It`` and a macro, as it is printed."""
    lines = re.findall(rf"^\.It {macro} (.+)$", text, re.MULTILINE)
    return [line.replace(r"\(dq", '"') for line in lines]


def examples(page: str) -> dict[str, str]:
    """Return the policy files that a page shows, by the name in their first line."""
    shown = re.findall(r"^\.Bd [^\n]*\n(.+?)^\.Ed$", page, re.MULTILINE | re.DOTALL)
    named = ((re.match(r"# /\S+/(\S+\.toml)\n", text), text) for text in shown)
    return {match[1]: text.replace(r"\e", "\\") for match, text in named if match}


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each verb."""
    (found,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the options of a parser, in every spelling."""
    return {name for action in parser._actions for name in action.option_strings}


def every_option() -> set[str]:
    """Return the options of the program and of all its verbs."""
    return options(build_parser()).union(*map(options, verbs().values()))


def usage(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Return what may stand behind a verb, as a synopsis has it."""
    for action in parser._actions:
        name = "".join(action.option_strings[-1:])
        if name == "--help":
            continue
        value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
        yield f"{name} {value}{' ...' if action.nargs == '*' else ''}".strip()


def synopsis() -> dict[str, set[str]]:
    """Return the same as ``usage`` by verb, from the page."""
    found = {}
    for entry in sections(PROGRAM, "Sh")["SYNOPSIS"].split(".Nm numad-py\n"):
        lines = entry.splitlines()
        if lines and lines[0].startswith(".Cm "):
            words = (line.removeprefix(".Op ").removeprefix(".") for line in lines[1:])
            verb = lines[0].removeprefix(".Cm ")
            found[verb] = {word.replace("Fl ", "-").replace("Ar ", "") for word in words}
    return found


def test_the_synopsis_is_what_the_parser_takes() -> None:
    """Every verb stands there with exactly the options and operands that it has."""
    assert synopsis() == {verb: set(usage(parser)) for verb, parser in verbs().items()}


def test_every_verb_and_every_option_is_explained() -> None:
    """Each verb has its paragraph, and each option one for all verbs that take it."""
    assert set(tags(sections(PROGRAM, "Sh")["VERBS"], "Cm")) == set(verbs())
    explained = "\n".join(f".It Fl {tag}" for tag in tags(sections(PROGRAM, "Sh")["OPTIONS"], "Fl"))
    assert {f"-{word}" for word in marked(explained, "Fl")} == every_option()


def test_no_page_names_a_verb_or_an_option_that_is_not_there() -> None:
    """What is marked as a verb is one, and what is marked as an option is one of some verb."""
    for page in PAGES:
        assert marked(page, "Cm") <= set(verbs())
        assert {f"-{word}" for word in marked(page, "Fl")} <= every_option()


def test_every_command_that_a_page_shows_can_be_typed() -> None:
    """The parser takes each line of the examples."""
    shown = [command.rstrip(" ,.:;") for page in PAGES for command in COMMAND.findall(page)]
    assert len(shown) > 10
    for command in shown:
        build_parser().parse_args(shlex.split(command))


def test_the_exit_codes_are_those_of_the_errors() -> None:
    """Every code that a failure can give is listed, besides success and Ctrl-C."""
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, NumadError)]
    listed = re.findall(r"^\.It (\d+)$", sections(PROGRAM, "Sh")["EXIT STATUS"], re.MULTILINE)
    assert {int(code) for code in listed} == {0, 130, *(kind.exit_code for kind in kinds)}


def test_every_reason_is_explained() -> None:
    """Whatever status and plan give as a reason can be looked up."""
    listed = tags(sections(PROGRAM, "Ss")["Verdicts and reasons"], "Sy")
    assert set(listed) == {reason.value for reason in Reason}


def test_every_table_and_key_stands_there_with_its_default() -> None:
    """The page has the tables and keys of the code, with the defaults of the sample policy."""
    below = sections(POLICY, "Ss")
    page = {
        table: tomli.loads("\n".join(tags(below[f"[{table}]"], "Ic")))
        for table in (title.strip("[]") for title in below if title.startswith("["))
        if table in TABLES
    }
    assert page == tomli.loads(SAMPLE.read_text())
    assert {table: set(keys) for table, (_, keys) in TABLES.items()} == {
        table: set(values) for table, values in page.items()
    }


def test_every_key_of_rules_stands_there() -> None:
    """Rules and excludes are explained together; excludes lack some keys, and those say so."""
    text = sections(POLICY, "Ss")["[[rule]] and [[exclude]]"]
    assert tags(text, "Ic") == list(RULE_KEYS)
    assert RULE_KEYS.keys() - EXCLUDE_KEYS.keys() == {
        *("nodes", "spread", "shared", "files", "guard")
    }
    for key in RULE_KEYS.keys() - EXCLUDE_KEYS.keys():
        assert re.search(rf"^\.It Ic {key}\n.*; for a rule only\.$", text, re.MULTILINE), key


def test_every_key_of_a_guard_stands_there_with_its_default() -> None:
    """The page, the sample and the code name the same keys, with the same defaults."""
    listed = tags(sections(POLICY, "Ss")["[rule.guard]"], "Ic")
    assert [tag.split(" = ")[0] for tag in listed] == list(GUARD_KEYS)
    given = tomli.loads("\n".join(tag for tag in listed if " = " in tag))
    guard = GuardPolicy("http://localhost/", "x")
    for name, value in given.items():
        assert GUARD_KEYS[name].parse(value) == getattr(guard, GUARD_KEYS[name].field), name
    sample = SAMPLE.read_text().partition("# [rule.guard]")[2].partition("#\n")[0]
    text = "\n".join(line.removeprefix("# ") for line in sample.splitlines()[1:])
    shown = tomli.loads(text)
    assert list(shown) == list(GUARD_KEYS)
    assert given.items() <= shown.items()


def test_no_page_names_a_key_that_is_not_there() -> None:
    """A key is named with its table, a key of a rule alone, and a table in its brackets."""
    known = {*RULE_KEYS, *(f"[{table}]" for table in TABLES), *(f"[[{name}]]" for name in ARRAYS)}
    known |= {f"{table}.{key}" for table, (_, keys) in TABLES.items() for key in keys}
    known |= {"[rule.guard]", *GUARD_KEYS}
    for page in PAGES:
        # The tags are keys with their values, and held against the sample elsewhere.
        text = re.sub(r"^\.It Ic \S+ = .*$", "", page, flags=re.MULTILINE)
        assert marked(text, "Ic") <= known


def test_the_built_in_rules_are_listed() -> None:
    """Whoever wants to replace one finds its name."""
    listed = marked(sections(POLICY, "Ss")["[discovery]"], "Sy")
    assert listed == {rule.name for rule in defaults().rules}


def test_the_policies_that_the_pages_show_are_good(tmp_path: Path) -> None:
    """All of them together in conf.d load, and come out as the pages say."""
    (tmp_path / "conf.d").mkdir()
    shown = {name: text for page in PAGES for name, text in examples(page).items()}
    for name, text in shown.items():
        (tmp_path / "conf.d" / name).write_text(text)
    main = tmp_path / "numad-py.toml"
    shutil.copy(SAMPLE, main)
    policy = load(main)
    assert len(policy.sources) == len(shown) + 1 == 6
    names = [rule.name for rule in policy.rules]
    assert names[:4] == ["ollama", "my-server-0", "my-server-1", "my-server"]
    assert names.count("ollama") == 1
    assert [rule.name for rule in policy.excludes] == ["benchmarks", "canary"]
    assert policy.migration.rate_bytes_per_s == 256 << 20


@pytest.mark.parametrize("path", PAGE_FILES, ids=lambda path: path.name)
@pytest.mark.parametrize(
    "command", [("mandoc", "-Tlint", "-Wwarning"), ("groff", "-ww", "-mdoc", "-Tutf8", "-z")]
)
def test_the_formatters_have_nothing_to_say(command: tuple[str, ...], path: Path) -> None:
    """Neither formatter warns of anything in a page."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([*command, path], capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout + done.stderr == ""
