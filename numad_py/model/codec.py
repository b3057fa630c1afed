"""Frozen values as plain JSON and back, by their type hints.

==========================  ==================================================
in Python                   in JSON
==========================  ==================================================
dataclass                   object by field; a field that has its default is left out
NamedTuple, tuple           array
``frozenset[int]``          the kernel's list, ``"0-3,8"``
other frozenset             array, in order
Enum                        its value
Mapping                     object; a key of several parts is joined by commas
``re.Pattern[str]``         its text
``X | None``                what X is, or null
==========================  ==================================================

A coder is put together once a type; types that hold themselves are not for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache, lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from numad_py.errors import Malformed
from numad_py.model.cpulist import format_list, parse_list

T = TypeVar("T")
_Coder = Callable[[Any], Any]

MOST_LISTS = 4096
"""So many different sets of ids are remembered with their texts: threads have the same masks."""


_MISSING = "is missing"


class _Odd(Exception):  # noqa: N818 - becomes Malformed when its path is known
    """Something is not what its type says."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str] = []


def encode(value: object) -> Any:
    """Return a frozen dataclass as plain JSON values."""
    kind: Any = type(value)
    return _encoder(kind)(value)


def decode(kind: type[T], data: object) -> T:
    """Return the value that was encoded.

    Keys that no field has are left alone: a newer version wrote them. A key that is missing takes
    the field's default.

    Raises:
        Malformed: a key without default is missing, or a value has the wrong type; names its path.
    """
    wanted: Any = kind
    try:
        value: T = _decoder(wanted)(data)
    except _Odd as odd:
        path = ".".join(reversed(odd.path))
        msg = f"{path}: {odd.what}" if path else odd.what
        raise Malformed(msg) from None
    return value


# To JSON


@cache
def _encoder(kind: Any) -> _Coder:  # noqa: PLR0911 - one for each line of the table
    if kind in _PLAIN:
        return _same
    if (inner := _optional(kind)) is not None:
        return _or_none(_encoder(inner))
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Mapping:
        return _mapping_encoder(_key_encoder(arguments[0]), _encoder(arguments[1]))
    if origin is frozenset:
        return _list_text if arguments == (int,) else _set_encoder(_encoder(arguments[0]))
    if origin is tuple and arguments[-1] is Ellipsis:
        return _array_encoder(_encoder(arguments[0]))
    if origin is re.Pattern:
        return _pattern_text
    if issubclass(origin or kind, Enum):
        return _enum_value
    if is_dataclass(kind):
        return _object_encoder(kind)
    return _record_encoder(tuple(_encoder(part) for part in _parts(kind)))


def _object_encoder(kind: Any) -> _Coder:
    hints = get_type_hints(kind)
    plan = [(f.name, _encoder(hints[f.name]), _default(f)) for f in fields(kind) if f.init]

    def to_json(value: Any) -> dict[str, Any]:
        data = {}
        for name, to_part, default in plan:
            part = getattr(value, name)
            if part is not default and part != default:
                data[name] = to_part(part)
        return data

    return to_json


def _mapping_encoder(to_key: _Coder, to_value: _Coder) -> _Coder:
    return lambda mapping: {to_key(key): to_value(value) for key, value in mapping.items()}


def _key_encoder(kind: Any) -> _Coder:
    if kind is str:
        return _same
    if kind is int:
        return str
    if issubclass(get_origin(kind) or kind, Enum):
        return _enum_value
    return lambda key: ",".join(map(str, tuple(key)))


def _array_encoder(to_item: _Coder) -> _Coder:
    return list if to_item is _same else lambda items: [to_item(item) for item in items]


def _set_encoder(to_item: _Coder) -> _Coder:
    return lambda items: sorted(to_item(item) for item in items)


def _record_encoder(to_parts: tuple[_Coder, ...]) -> _Coder:
    if all(to_part is _same for to_part in to_parts):
        return list
    return lambda record: [to(part) for to, part in zip(to_parts, record, strict=True)]


def _or_none(coder: _Coder) -> _Coder:
    return _same if coder is _same else lambda value: None if value is None else coder(value)


def _same(value: Any) -> Any:
    return value


def _enum_value(value: Any) -> Any:
    return value.value


def _pattern_text(pattern: Any) -> Any:
    return pattern.pattern


@lru_cache(maxsize=MOST_LISTS)
def _list_text(ids: frozenset[int]) -> str:
    return format_list(ids)


# From JSON


@cache
def _decoder(kind: Any) -> _Coder:  # noqa: PLR0911 - one for each line of the table
    if kind is float:
        return _float
    if kind in _PLAIN:
        return _plain_decoder(kind)
    if (inner := _optional(kind)) is not None:
        coder = _decoder(inner)
        return lambda data: None if data is None else coder(data)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Mapping:
        return _mapping_decoder(_key_decoder(arguments[0]), _decoder(arguments[1]))
    if origin is frozenset:
        return _ids if arguments == (int,) else _array_decoder(frozenset, _decoder(arguments[0]))
    if origin is tuple and arguments[-1] is Ellipsis:
        return _array_decoder(tuple, _decoder(arguments[0]))
    if origin is re.Pattern:
        return _pattern
    if issubclass(origin or kind, Enum):
        return _enum_decoder(kind)
    if is_dataclass(kind):
        return _object_decoder(kind)
    return _record_decoder(kind, tuple(_decoder(part) for part in _parts(kind)))


def _object_decoder(kind: Any) -> _Coder:
    hints = get_type_hints(kind)
    plan = [
        (f.name, _decoder(hints[f.name]), _default(f) is MISSING) for f in fields(kind) if f.init
    ]

    def from_json(data: Any) -> Any:
        if type(data) is not dict:
            raise _wrong(data, f"an object, a {kind.__name__}")
        values, name = {}, ""
        try:
            for name, from_part, needed in plan:
                if name in data:
                    values[name] = from_part(data[name])
                elif needed:
                    raise _Odd(_MISSING)  # noqa: TRY301 - gets its path below
        except _Odd as odd:
            odd.path.append(name)
            raise
        return kind(**values)

    return from_json


def _mapping_decoder(from_key: _Coder, from_value: _Coder) -> _Coder:
    def from_json(data: Any) -> dict[Any, Any]:
        if type(data) is not dict:
            raise _wrong(data, "an object")
        values, key = {}, ""
        try:
            for key, value in data.items():
                values[from_key(key)] = from_value(value)
        except _Odd as odd:
            odd.path.append(key)
            raise
        return values

    return from_json


def _key_decoder(kind: Any) -> _Coder:
    if kind is str:
        return _same
    if kind is int:
        return _int_key
    origin = get_origin(kind) or kind
    if issubclass(origin, Enum):
        return _enum_decoder(kind)
    parts = _parts(kind)
    if set(parts) != {int}:
        msg = f"{kind} is no key of a mapping that can be encoded"
        raise TypeError(msg)
    build = tuple if origin is tuple else kind._make

    def from_text(text: str) -> Any:
        numbers = [_int_key(part) for part in text.split(",")]
        if len(numbers) != len(parts):
            raise _wrong(text, f"{len(parts)} numbers")
        return build(numbers)

    return from_text


def _array_decoder(build: Callable[[list[Any]], Any], from_item: _Coder) -> _Coder:
    def from_json(data: Any) -> Any:
        if type(data) is not list:
            raise _wrong(data, "an array")
        items: list[Any] = []
        try:
            for item in data:
                items.append(from_item(item))  # noqa: PERF401 - their number is the path
        except _Odd as odd:
            odd.path.append(str(len(items)))
            raise
        return build(items)

    return from_json


def _record_decoder(kind: Any, from_parts: tuple[_Coder, ...]) -> _Coder:
    build = tuple if get_origin(kind) is tuple else kind._make

    def from_json(data: Any) -> Any:
        if type(data) is not list or len(data) != len(from_parts):
            raise _wrong(data, f"an array of {len(from_parts)}")
        return build([of(part) for of, part in zip(from_parts, data, strict=True)])

    return from_json


def _plain_decoder(kind: type) -> _Coder:
    def from_json(data: Any) -> Any:
        # True is an int for isinstance, and no number of anything.
        if type(data) is not kind:
            raise _wrong(data, _PLAIN[kind])
        return data

    return from_json


def _enum_decoder(kind: Any) -> _Coder:
    by_value = {member.value: member for member in kind}

    def from_json(data: Any) -> Any:
        member = by_value.get(data) if isinstance(data, str) else None
        if member is None:
            raise _wrong(data, f"one of {', '.join(by_value)}")
        return member

    return from_json


def _float(data: Any) -> float:
    if type(data) is float:
        return data
    if type(data) is not int or abs(data) > 1 << 1000:
        raise _wrong(data, _PLAIN[float])
    return float(data)


def _int_key(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _wrong(text, "a whole number") from None


def _ids(data: Any) -> frozenset[int]:
    if type(data) is not str:
        raise _wrong(data, 'a list of ids such as "0-3,8"')
    try:
        return _parsed(data)
    except ValueError as error:
        raise _Odd(str(error)) from None


@lru_cache(maxsize=MOST_LISTS)
def _parsed(text: str) -> frozenset[int]:
    return parse_list(text)


def _pattern(data: Any) -> re.Pattern[str]:
    try:
        return re.compile(data)
    except (re.error, TypeError, RecursionError, OverflowError):
        raise _wrong(data, "a regular expression") from None


# Types

_PLAIN: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
}


def _optional(kind: Any) -> Any:
    """Return X of ``X | None``; None for any other type."""
    if get_origin(kind) not in {Union, UnionType}:
        return None
    inner = [part for part in get_args(kind) if part is not NoneType]
    if len(inner) != 1:
        msg = f"{kind} says not which of its types a value is"
        raise TypeError(msg)
    return inner[0]


def _parts(kind: Any) -> tuple[Any, ...]:
    """Return the types of a tuple's or a NamedTuple's parts."""
    if get_origin(kind) is tuple:
        return get_args(kind)
    if hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return tuple(hints[name] for name in kind._fields)
    msg = f"{kind} cannot be encoded"
    raise TypeError(msg)


def _default(field: Any) -> Any:
    """Return a field's default; MISSING where it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _wrong(data: object, wanted: str) -> _Odd:
    shown = repr(data)
    return _Odd(f"{shown[:60]}{'...' if len(shown) > 60 else ''} is not {wanted}")  # noqa: PLR2004
