"""The quantizers of QONNX as formats, and applied to constants."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.binary import Binary
from qfx.formats.data import from_data
from qfx.formats.fixed import MAX_WIDTH, FixedPoint
from qfx.formats.minifloat import Minifloat
from qfx.interop.dyadic import codes_at, encoded_format, power_of_two
from qfx.interop.problems import Refused
from qfx.interop.qonnx_constants import Constant
from qfx.interop.qonnx_file import Attributes, metadata
from qfx.interop.qonnx_spelling import (
    ENCODING_KEY,
    FORMAT_KEY,
    FROM_QONNX,
    spelled_format,
)


def points(scale: Constant, shape: tuple[int, ...]) -> tuple[int | tuple[int, ...], int]:
    """Binary points from a scale, and the axis that they run along; ``shape`` of what is quantized.

    Raises:
        Refused: a scale that is not a power of two, or differs along several axes.
    """
    values = np.asarray(scale.values, dtype=np.float64)
    exponents = [power_of_two(float(s)) for s in values.reshape(-1)]
    if None in exponents or not exponents:
        found = float(values.reshape(-1)[exponents.index(None)]) if exponents else "missing"
        raise Refused(f"scale {found} is not a power of two; the graph has binary points only")
    fracs = tuple(-e for e in exponents if e is not None)
    full = (1,) * (len(shape) - values.ndim) + values.shape
    along = [axis for axis, size in enumerate(full) if size != 1]
    if values.ndim and values.ndim == len(shape) and not along and 1 in shape[:2]:
        along = [shape.index(1)]  # one channel with a scale of its own
    if values.ndim == 0 or not along:
        return fracs[0], 0
    if len(along) != 1 or len(full) != len(shape) or full[along[0]] != shape[along[0]]:
        raise Refused(
            f"scales of shape {values.shape} for a tensor of shape {shape}; one per tensor or channel"
        )
    return fracs, along[0]


def integer_format(
    attributes: Attributes, bits: float, frac: int | tuple[int, ...], constant: bool
) -> FixedPoint:
    """The format of a ``Quant`` or ``Trunc``: its attributes, the bit width and the binary points.

    Raises:
        Refused: no fixed-point format does the same.
    """
    signed = attributes.flag("signed", True)
    narrow = attributes.flag("narrow", False)
    name = attributes.text("rounding_mode", "ROUND").upper()
    if name not in FROM_QONNX:
        raise Refused(f"rounding mode {name[:40]!r}; supported are {', '.join(sorted(FROM_QONNX))}")
    if bits != int(bits) or not 1 <= bits <= MAX_WIDTH:
        raise Refused(f"bit width {bits:g}; supported are 1 to {MAX_WIDTH}, whole")
    if narrow and not signed and not constant:
        raise Refused(
            f"an unsigned narrow range, 0 to {2 ** int(bits) - 2}; the graph has none, use narrow=0"
        )
    overflow = "SAT_SYM" if narrow and signed else "SAT"
    return FixedPoint(int(bits), frac, signed, FROM_QONNX[name], overflow)


def quantized(x: Constant, fmt: FixedPoint, axis: int, narrow: bool) -> Constant:
    """A constant after ``Quant``."""
    codes = np.asarray(fmt.encode(x.values, axis=axis))
    if narrow and not fmt.signed:
        codes = np.minimum(codes, fmt.code_max - 1)
    return Constant(np.asarray(fmt.decode(codes, axis=axis)), fmt, axis)


def sign_constant(x: Constant, frac: int | tuple[int, ...], axis: int) -> Constant:
    """A constant after ``BipolarQuant``: plus or minus the scale."""
    fmt = Binary(frac)
    return _encoded(x, fmt, axis)


def minifloat(
    attributes: Attributes, scale: Constant, numbers: dict[str, float], shape: tuple[int, ...]
) -> tuple[Minifloat, int]:
    """The format of a ``FloatQuant`` and its channel axis; ``numbers`` are ``exponent_bits``,
    ``mantissa_bits``, ``exponent_bias`` and ``max``.

    Raises:
        Refused: no minifloat does the same.
    """
    if attributes.text("rounding_mode", "ROUND").upper() not in ("ROUND", "HALF_EVEN"):
        raise Refused("minifloats are read with rounding mode ROUND only; others are not exact in qonnx")
    if not attributes.flag("saturation", True) or not attributes.flag("has_subnormal", True):
        raise Refused("only saturating minifloats with subnormal numbers are supported")
    flags = attributes.flag("has_inf", False), attributes.flag("has_nan", False)
    attributes.expect("signed", "integer", 1)
    frac, axis = points(scale, shape)
    whole = {name: int(value) for name, value in numbers.items() if name != "max"}
    if any(whole[name] != numbers[name] for name in whole):
        raise Refused(f"{numbers}: bits and bias must be whole numbers")
    base = Minifloat(whole["exponent_bits"], whole["mantissa_bits"], whole["exponent_bias"])
    likely = {(False, False): "none", (False, True): "fn", (True, True): "ieee"}.get(flags, "none")
    for specials in (likely, "none", "fn", "ieee"):
        try:
            fmt = replace(base, specials=specials)
        except QfxError:
            continue
        if fmt.max == min(numbers["max"], base.max):
            up = fmt.frac
            fracs = frac if isinstance(frac, tuple) else None
            return fmt.with_frac([up + f for f in fracs] if fracs else up + frac), axis
    raise Refused(f"its largest number {numbers['max']:g} is not that of a minifloat with these bits")


def float_quantized(x: Constant, fmt: Minifloat, axis: int) -> Constant:
    """A constant after ``FloatQuant``."""
    return _encoded(x, fmt, axis)


def _encoded(x: Constant, fmt: Format, axis: int) -> Constant:
    values = np.asarray(fmt.quantize(x.values, axis=axis), dtype=np.float64)
    first = np.moveaxis(values, axis, 0) if fmt.per_channel else values
    return Constant(values, encoded_format(first, fmt.per_channel), axis, fmt)


# -- hints ---------------------------------------------------------------------------------------------------


def hinted(node: Any, key: str) -> Format | None:
    """A format from the metadata of a node; ``None`` when it has none.

    Raises:
        Refused: it is not a format.
    """
    text = metadata(node).get(key)
    if text is None:
        return None
    try:
        return from_data(json.loads(text))
    except (ValueError, TypeError, QfxError, RecursionError) as error:
        raise Refused(f"metadata {key}: {error}") from error


def hinted_cast(node: Any, said: FixedPoint, difference: tuple[bool, bool]) -> FixedPoint:
    """The format of a cast: what the node says, or the hint, as long as it gives the same results."""
    hint = hinted(node, FORMAT_KEY)
    if hint is None:
        return said
    try:
        same = isinstance(hint, FixedPoint) and spelled_format(hint, *difference) == said
    except Refused:
        same = False
    if not same:
        raise Refused(f"metadata {FORMAT_KEY} says {hint}, the node {said}; remove the metadata")
    assert isinstance(hint, FixedPoint)
    return hint


def hinted_constant(node: Any, found: Constant) -> Constant:
    """A constant with the format and encoding of the hints; its values stay."""
    hint, encoding = hinted(node, FORMAT_KEY), hinted(node, ENCODING_KEY)
    if hint is not None:
        if not isinstance(hint, FixedPoint):
            raise Refused(f"metadata {FORMAT_KEY} says {hint}; constants have fixed-point formats")
        frac = hint.frac
        assert frac is not None
        moved = np.moveaxis(found.values, found.axis, 0) if found.values.ndim else found.values
        codes = codes_at(moved, frac)
        if codes.size and not hint.signed and codes.min() < 0:
            raise Refused(f"metadata {FORMAT_KEY} says {hint}, and there are negative numbers")
        found = replace(found, format=hint)
    return found if encoding is None else replace(found, encoding=encoding)
