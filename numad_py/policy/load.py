"""TOML files -> one frozen Policy, or every problem at once."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli

from numad_py.errors import PolicyError
from numad_py.policy.keys import ARRAYS, MATCH_KEYS, TABLES, Key
from numad_py.policy.lines import line_of, lines_of_tables, syntax_error
from numad_py.policy.schema import Policy, Rule
from numad_py.policy.spelled import in_words_of_the_file

DEFAULT_PATH = "/etc/numad-py/numad-py.toml"
BUILT_IN = Path(__file__).with_name("known_servers.toml")
_LARGEST = 1 << 20
"""No policy is larger; /dev/zero is."""


@dataclass(frozen=True)
class _File:
    path: Path
    text: str
    data: Mapping[str, Any]


def defaults() -> Policy:
    """Return the policy of a machine on which nothing is configured."""
    return _with_known_servers(Policy(sources=("built-in",)))


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    privileged: bool = False,
    known_servers: bool = True,
) -> Policy:
    """Return the policy of a file and of the ``conf.d/*.toml`` beside it, by name.

    Tables are merged key by key, later files win. Rules of later files stand before those of
    earlier ones, since the first rule that matches wins.

    Args:
        path: the main file; DEFAULT_PATH where None.
        privileged: refuse files that others than their owner can write: with our rights they
            could have any process of the machine moved about.
        known_servers: False leaves the built-in rules out for those who need no rules at all.

    Raises:
        PolicyError: with all problems, each ``file:line: key: what is wrong``.
    """
    main = Path(path if path is not None else DEFAULT_PATH)
    problems: list[str] = []
    candidates = (main, *_drop_ins(main, problems))
    files = [
        file
        for candidate in candidates
        if (file := _read(candidate, problems, privileged=privileged)) is not None
    ]
    policy = Policy(sources=tuple(str(file.path) for file in files))
    for file in files:
        policy = _apply(policy, file, problems)
    names = [rule.name for rule in (*policy.rules, *policy.excludes)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        origins = [r.origin for r in (*policy.rules, *policy.excludes) if r.name == name]
        problems.append(f"{origins[-1]}: name: {name!r} is taken by {origins[0]}")
    if problems:
        raise PolicyError(_in_order(problems, candidates))
    return _with_known_servers(policy) if known_servers else policy


def runtime_dir_of(path: str) -> str:
    """Return ``daemon.runtime_dir`` of a policy that may have mistakes elsewhere.

    By it a running daemon can be told to stop whatever somebody has just typed into its policy.
    What cannot be read or is no text counts as absent: then it is the usual one.
    """
    main, unsaid = Path(path), list[str]()
    found = Policy().daemon.runtime_dir
    for candidate in (main, *_drop_ins(main, unsaid)):
        file = _read(candidate, unsaid, privileged=False)
        daemon = file.data.get("daemon") if file is not None else None
        value = daemon.get("runtime_dir") if isinstance(daemon, dict) else None
        if isinstance(value, str) and value.startswith("/"):
            found = value
    return found


def _in_order(problems: Iterable[str], files: Iterable[Path]) -> list[str]:
    """Return problems as whoever mends them goes through the files: in turn, from top to bottom."""
    heads = [re.compile(re.escape(str(path)) + r":(?:(\d+):)?") for path in files]

    def place(problem: str) -> tuple[int, int]:
        for number, head in enumerate(heads):
            if match := head.match(problem):
                return number, int(match[1] or 0)
        return len(heads), 0

    return sorted(problems, key=place)


def _drop_ins(main: Path, problems: list[str]) -> list[Path]:
    """Return the drop-ins; a link to /dev/null switches one off, as in systemd."""
    folder = main.parent / "conf.d"
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        problems.append(
            f"{folder}: cannot be read: {error.strerror}; make it readable to the service"
        )
        return []
    return [path for path in paths if path.suffix == ".toml" and not _is_null(path)]


def _is_null(path: Path) -> bool:
    try:
        return path.samefile(os.devnull)
    except OSError:
        # A link that leads nowhere: a problem of the file, which reading it will say.
        return False


def _read(path: Path, problems: list[str], *, privileged: bool) -> _File | None:
    """Return a parsed file, or None with the problem noted."""
    try:
        # Not blocking: a FIFO would be waited for until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                problems.append(f"{path}: not a file")
                return None
            if privileged and (problem := _others_can_write(os.fstat(file.fileno()))):
                problems.append(f"{path}: {problem}")
                return None
            raw = file.read(_LARGEST + 1)
    except FileNotFoundError:
        problems.append(
            f"{path}: no such file; copy config/numad-py.toml of the distribution there, "
            "or name another with --config"
        )
        return None
    except IsADirectoryError:
        problems.append(f"{path}: a directory, not a policy file")
        return None
    except OSError as error:
        problems.append(
            f"{path}: cannot be read: {error.strerror}; make it readable to the service"
        )
        return None
    return _parse(path, raw, problems)


def _parse(path: Path, raw: bytes, problems: list[str]) -> _File | None:
    if len(raw) > _LARGEST:
        problems.append(f"{path}: larger than 1 MiB: not a policy file")
        return None
    try:
        # With a byte order mark or without: editors of Windows put one.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problems.append(f"{path}:{line}: not UTF-8 text")
        return None
    if not text.strip():
        problems.append(
            f"{path}:1: the file is empty, as an interrupted write leaves it; restore it, "
            "or put a comment into it to say that every default is meant"
        )
        return None
    try:
        return _File(path, text, tomli.loads(text))
    except tomli.TOMLDecodeError as error:
        problems.append(f"{path}:{syntax_error(error, text, ARRAYS)}")
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or brackets as deep: tomli hands on what Python says.
        problems.append(f"{path}: not a policy file: {error}")
    return None


def _others_can_write(status: os.stat_result) -> str | None:
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "group or others can write it, and so steer a privileged daemon; chmod go-w"
    if status.st_uid not in {0, os.geteuid()}:
        return f"owned by uid {status.st_uid}, who could steer a privileged daemon; chown root"
    return None


def _apply(policy: Policy, file: _File, problems: list[str]) -> Policy:
    """Return the policy with a file laid over it."""

    def problem(path: tuple[str | int, ...], what: str) -> None:
        key = ".".join(str(part) for part in path if isinstance(part, str))
        problems.append(f"{file.path}:{line_of(file.text, path)}: {key}: {what}")

    for name, table in file.data.items():
        if name in TABLES:
            if not isinstance(table, dict):
                problem((name,), f"is a table; write [{name}] above its keys")
                continue
            values = _values(table, TABLES[name][1], (name,), problem)
            changed: dict[str, Any] = {name: replace(getattr(policy, name), **values)}
            policy = replace(policy, **changed)
        elif name in ARRAYS:
            rules = _rules(file, name, table, problem)
            field = "rules" if name == "rule" else "excludes"
            changed = {field: (*rules, *getattr(policy, field))}
            policy = replace(policy, **changed)
        else:
            problem((name,), "no such table" + _did_you_mean(name, (*TABLES, *ARRAYS)))
    return policy


def _rules(file: _File, name: str, tables: object, problem: Any) -> list[Rule]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problem((name,), f"is a list of tables; write [[{name}]] above each")
        return []
    rules = []
    lines = lines_of_tables(file.text, name)
    for i, table in enumerate(tables):
        values = _values(table, ARRAYS[name], (name, i), problem)
        line = lines[i] if len(lines) == len(tables) else line_of(file.text, (name, i))
        if "name" not in table:
            problem((name, i), 'has no name; write name = "my-server"')
        elif not MATCH_KEYS.keys() & table.keys():
            wanted = ", ".join(MATCH_KEYS)
            problem((name, i), f"would match every process; give at least one of {wanted}")
        elif "name" in values:
            rules.append(Rule(**{"origin": f"{file.path}:{line}", **values}))
    return rules


def _values(
    table: Mapping[str, object],
    keys: Mapping[str, Key],
    path: tuple[str | int, ...],
    problem: Any,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = keys.get(name)
        if key is None:
            problem((*path, name), "no such key" + _did_you_mean(name, keys))
            continue
        if key.keys is not None:
            inner = _inner(value, key, (*path, name), problem)
            if inner is None:
                continue
            value = inner  # noqa: PLW2901 - from here on it is what the parser takes
        try:
            values[key.field] = key.parse(value)
        except ValueError as error:
            problem((*path, name), in_words_of_the_file(str(error), value))
    return values


def _inner(
    value: object, key: Key, path: tuple[str | int, ...], problem: Any
) -> dict[str, Any] | None:
    """Return the values of a table within a table; None where they are not all good."""
    keys = key.keys or {}
    if not isinstance(value, dict):
        name = ".".join(part for part in path if isinstance(part, str))
        problem(path, f"is a table; write [{name}] above its keys")
        return None
    values = _values(value, keys, path, problem)
    missing = [(name, example) for name, example in key.needed if name not in value]
    for name, example in missing:
        problem(path, f"has no {name}; write {name} = {example}")
    against = list(key.contradictions(values)) if key.contradictions else []
    for name, what in against:
        problem((*path, name), what)
    return values if not missing and not against and len(values) == len(value) else None


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else f"; known: {', '.join(known)}"


def _with_known_servers(policy: Policy) -> Policy:
    if not policy.discovery.known_servers:
        return policy
    problems: list[str] = []
    file = _read(BUILT_IN, problems, privileged=False)
    built_in = _apply(Policy(), file, problems) if file is not None else Policy()
    if problems:
        raise PolicyError(problems)
    taken = {rule.name for rule in (*policy.rules, *policy.excludes)}
    # A rule of the file's own replaces the built-in one of that name.
    return replace(
        policy,
        rules=(
            *policy.rules,
            *(replace(r, origin="built-in") for r in built_in.rules if r.name not in taken),
        ),
        excludes=(
            *policy.excludes,
            *(replace(r, origin="built-in") for r in built_in.excludes if r.name not in taken),
        ),
    )
