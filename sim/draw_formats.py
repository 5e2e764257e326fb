"""Random number formats with gaps for the fuzzer: minifloats, K-hot numbers, one bit, blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from qfx.formats import FixedPoint, Format
from qfx.formats.data import from_data
from qfx.formats.rounding import ROUNDING

Rng = np.random.Generator

#: How often each kind is drawn; narrow ones are the common ones.
_KINDS = {"minifloat": 0.45, "khot": 0.25, "binary": 0.1, "block": 0.2}

#: The size of blocks in hardware that were drawn without one.
BLOCK = 4


def draw_arguments(rng: Rng, *, kinds: tuple[str, ...] = tuple(_KINDS)) -> dict[str, Any]:
    """A format as plain data (:mod:`qfx.formats.data`), its binary point left open."""
    shares = np.asarray([_KINDS[kind] for kind in kinds])
    kind = str(rng.choice(kinds, p=shares / shares.sum()))
    if kind == "minifloat":
        return {"kind": kind, **_minifloat(rng)}
    if kind == "khot":
        width = int(rng.integers(2, 11))
        return {
            "kind": kind,
            "width": width,
            "frac": None,
            "k": int(rng.integers(1, 5)),
            "digits": str(rng.choice(["csd", "binary"])),
            "signed": True,
        }
    if kind == "binary":
        return {"kind": kind, "frac": None}
    element = _minifloat(rng, most=4) if rng.random() < 0.6 else None
    if element is not None:
        mantissa, exponent = element["mantissa_bits"], element["exponent_bits"]
        bias = 2 ** (exponent - 1) - 1 if exponent else 0
        data: dict[str, Any] = {"kind": "minifloat", **element, "signed": True, "bias": bias}
        if exponent == 0 and mantissa == 0:
            data["mantissa_bits"] = 1
    else:
        width = int(rng.integers(2, 9))
        data = {
            "kind": "fixed", "width": width, "frac": width - 2, "signed": True,
            "rounding": str(rng.choice(list(ROUNDING))), "overflow": str(rng.choice(["SAT", "SAT_SYM"])),
        }  # fmt: skip
    size = rng.choice([1, 2, 3, 4, 32, 0])
    return {"kind": kind, "element": data, "size": int(size) or None, "exponent_bits": 8}


def draw_gapped(rng: Rng, needed: int, channels: int) -> Format:
    """A format whose range holds numbers of about ``needed`` integer bits, give or take a few; for casts and
    constants of graphs."""
    fmt = from_data(draw_arguments(rng), frozen=False)
    if not fmt.has_point:
        return fmt
    top = fmt.integer_max.bit_length() - needed + int(rng.integers(-2, 3))
    point: Any = int(np.clip(top, -40, 60))
    if channels > 1 and rng.random() < 0.25:
        point = tuple(int(p) for p in point + rng.integers(-2, 3, channels))
    return fmt.with_frac(point)


def constants(fmt: Format, values: np.ndarray) -> tuple[np.ndarray, FixedPoint] | None:
    """Numbers of a format as int64 codes with the narrowest fixed-point format that holds them; ``None`` when
    that takes more than 40 bits."""
    numbers = np.asarray(fmt.quantize(values, axis=0), dtype=np.float64)
    mantissa, exponent = np.frexp(numbers[numbers != 0])
    if not len(mantissa):
        return np.zeros(values.shape, dtype=np.int64), FixedPoint(1, 0)
    lowest = 53 - exponent.astype(np.int64)
    # Trailing zero bits of each 53-bit significand.
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    zeros = np.log2((whole & -whole).astype(np.float64)).astype(np.int64)
    frac = int((lowest - zeros).max())
    codes = np.ldexp(numbers, frac)
    largest = int(np.abs(codes).max())
    if largest.bit_length() > 40:
        return None
    return codes.astype(np.int64), FixedPoint(largest.bit_length() + 1, frac)


def _minifloat(rng: Rng, most: int = 8) -> dict[str, Any]:
    exponent = int(
        rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8][: most + 1]) if rng.random() < 0.2 else rng.integers(1, 5)
    )
    mantissa = int(rng.integers(0, 11) if rng.random() < 0.1 else rng.integers(0, 5))
    if exponent == 0 or (exponent == 1 and mantissa == 0):
        mantissa = max(mantissa, 1)
    specials = "none"
    if exponent >= 2 and mantissa >= 1:
        specials = str(rng.choice(["none", "fn", "ieee"], p=[0.7, 0.15, 0.15]))
    return {
        "exponent_bits": exponent,
        "mantissa_bits": mantissa,
        "bias": None,
        "signed": bool(rng.random() < 0.85),
        "specials": specials,
        "rounding": str(rng.choice(list(ROUNDING))) if rng.random() < 0.5 else "RND_CONV",
        "overflow": "SAT",
    }
