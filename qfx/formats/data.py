"""Number formats as plain data, for graph files (docs/graph.md, section 4)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from qfx.formats.base import Format
from qfx.formats.binary import Binary
from qfx.formats.block import Block
from qfx.formats.fixed import FixedPoint
from qfx.formats.khot import KHot
from qfx.formats.minifloat import Minifloat

#: The name in files of every format.
KINDS: dict[str, type[Format]] = {
    "fixed": FixedPoint,
    "minifloat": Minifloat,
    "khot": KHot,
    "binary": Binary,
    "block": Block,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


def to_data(fmt: Format) -> dict[str, Any]:
    """A format as what JSON can hold: its kind and the arguments of its constructor."""
    return {"kind": _NAMES[type(fmt)], **{name: _plain(getattr(fmt, name)) for name in _arguments(type(fmt))}}


def from_data(value: Any, *, frozen: bool = True) -> Format:
    """The format that :func:`to_data` wrote. Files of version 1 hold fixed-point formats without a kind.

    Args:
        value: what was read.
        frozen: refuse a format whose binary point is open.

    Raises:
        ValueError, QfxError: not such data; the constructor's checks apply.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a format must be an object, found {value!r}")
    name = value.get("kind", "fixed")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"unknown number format {name!r}; known: {', '.join(KINDS)}")
    expected = _arguments(kind)
    found = {key: entry for key, entry in value.items() if key != "kind"}
    if set(found) != set(expected):
        raise ValueError(f"{name} format: expected the entries {sorted(expected)}, found {sorted(found)}")
    arguments = {key: _restored(entry) for key, entry in found.items()}
    for key, entry in arguments.items():
        if expected[key] == "bool" and not isinstance(entry, bool):
            raise ValueError(f"{key} must be true or false, found {entry!r}")
    fmt = kind(**arguments)
    if frozen and fmt.has_point and fmt.learned:
        raise ValueError("a frozen format needs its binary point")
    return fmt


def _arguments(kind: type[Format]) -> dict[str, str]:
    return {f.name: str(f.type) for f in fields(kind) if f.init}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, Format):
        return to_data(value)
    return list(value) if isinstance(value, tuple) else value


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return from_data(value)
    return tuple(value) if isinstance(value, list) else value
