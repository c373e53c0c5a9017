"""Turn JSON into dataclasses, checking the type of every field: a file may be damaged, or made by somebody else."""

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")
MOST = 2**63


def checked(kind: type[Kind], values: object) -> Kind:
    """Return a dataclass made of a JSON object that has exactly its fields.

    A field is str, bool, int (0 or more), float (finite), a dataclass (one that is made already stays), a tuple of
    one of these, or None. Raises TypeError for another type, ValueError for a value out of range, KeyError for a
    missing or unknown field.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{kind.__name__} is {type(values).__name__}")
    hints = get_type_hints(kind)
    if set(values) != set(hints):
        raise KeyError(f"{kind.__name__} has the fields {sorted(map(str, values))}, not {sorted(hints)}")
    return kind(**{name: _value(name, hint, values[name]) for name, hint in hints.items()})


def _value(name: str, hint: Any, value: object) -> object:
    if get_origin(hint) is UnionType:
        [inner] = (each for each in get_args(hint) if each is not NoneType)
        return None if value is None else _value(name, inner, value)
    if get_origin(hint) is tuple:
        return tuple(_value(name, get_args(hint)[0], each) for each in _typed(name, list, value))
    if is_dataclass(hint):
        return value if type(value) is hint else checked(cast("type[object]", hint), value)
    if hint is float:
        return _finite(name, value)
    found = _typed(name, hint, value)
    if hint is int and not 0 <= found < MOST:
        raise ValueError(f"{name} is {found}")
    if hint is str:
        found.encode("utf-8", "surrogateescape")  # the photo folder may have a name that is not UTF-8
    return found


def _finite(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is not a number")
    return value


def _typed(name: str, kind: Any, value: object) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{name} is {type(value).__name__}, not {kind.__name__}")
    return value
