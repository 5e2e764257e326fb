"""Dataclasses to JSON values and back, every value checked on the way in."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from qfx.errors import QfxError


def encode(value: Any, where: str = "build") -> Any:
    """JSON values of dataclasses, tuples, mappings and numbers.

    Raises:
        QfxError: a number that is NaN or infinite (JSON has none), or something that is not plain data.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: encode(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | str):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a numpy or torch number
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise QfxError(
            f"{where} is {value}; a build holds finite numbers, and None for what was not measured"
        )
    if isinstance(value, int | float):
        return value
    raise QfxError(f"{where} is {type(value).__name__}; a build holds plain data only")


def decode(kind: Any, value: Any, where: str = "build") -> Any:
    """The value of type ``kind`` (a type hint) that :func:`encode` made ``value`` from.

    Raises:
        QfxError: a value of another type, or a key that is missing or unknown; the message names the place.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return decode(kind, value, where)
    if origin is tuple:
        _check(isinstance(value, list), where, "a list", value)
        return tuple(decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict or kind is dict:
        _check(isinstance(value, dict), where, "an object", value)
        return {key: decode(arguments[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, value, where)
    if kind is float:
        _check(isinstance(value, int | float) and not isinstance(value, bool), where, "a number", value)
        return float(value)
    if kind is int:
        _check(isinstance(value, int) and not isinstance(value, bool), where, "an integer", value)
        return value
    _check(isinstance(value, kind), where, {str: "text", bool: "true or false"}[kind], value)
    return value


def _decode_dataclass(kind: type, value: Any, where: str) -> Any:
    _check(isinstance(value, dict), where, "an object", value)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise QfxError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise QfxError(f"{where}: {name!r} is missing")
    return kind(**{name: decode(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _check(right: bool, where: str, expected: str, found: Any) -> None:
    if not right:
        text = repr(found)
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        raise QfxError(f"{where}: expected {expected}, found {shown}")
