"""How QONNX spells the casts of the graph; shared by export and import.

QONNX (Pappalardo et al., "QONNX: Representing Arbitrary-Precision Quantized Neural Networks", 2022, and its
operator pages) quantizes with ``Quant(x, scale, zero point, bits)``: divide by the scale, clamp to the range
of ``bits``, round, multiply back. With a scale of ``2**-frac`` and zero point 0 that is a cast to
``FixedPoint``.
"""

from __future__ import annotations

import numpy as np

from qfx.formats.fixed import FixedPoint
from qfx.formats.minifloat import Minifloat
from qfx.formats.rounding import shift_round
from qfx.graph.tensor import Tensor
from qfx.interop.problems import Refused

DOMAIN = "qonnx.custom_op.general"
DOMAIN_VERSION = 2
#: Domains under which the same operators have been written.
DOMAINS = (DOMAIN, "onnx.brevitas", "finn.custom_op.general")

#: Keys of what ONNX has no place for, in a node's ``metadata_props``. None of them changes a result.
PATH_KEY = "qfx.path"
FORMAT_KEY = "qfx.format"
ENCODING_KEY = "qfx.encoding"

#: Numbers are float32 in the file: their exponents must stay normal.
LARGEST_EXPONENT = 100

#: How qonnx calls the rounding modes of the graph. It has none for ties towards plus or minus infinity.
TO_QONNX = {
    "RND_CONV": "ROUND",
    "TRN": "FLOOR",
    "TRN_ZERO": "DOWN",
    "RND_INF": "HALF_UP",
    "RND_ZERO": "HALF_DOWN",
}
FROM_QONNX = {name: mode for mode, name in TO_QONNX.items()} | {
    "HALF_EVEN": "RND_CONV",
    "ROUND_TO_ZERO": "TRN_ZERO",  # brevitas writes this
}


def spelled_format(fmt: FixedPoint, rounds: bool, overflows: bool) -> FixedPoint:
    """The format that a ``Quant`` node says in place of ``fmt``: the same, but with modes that QONNX has
    where the mode makes no difference.

    Args:
        rounds: whether any number is rounded.
        overflows: whether any number lies outside the range.

    Raises:
        Refused: a mode that QONNX does not have makes a difference.
    """
    rounding, overflow = fmt.rounding, fmt.overflow
    if rounding not in TO_QONNX:
        if rounds:
            raise Refused(f"rounding {rounding} has no name in QONNX; it has those of {', '.join(TO_QONNX)}")
        rounding = "RND_CONV"
    if overflow == "SAT_SYM" and not fmt.signed:
        overflow = "SAT"  # the same range; QONNX's narrow unsigned range is another one
    if overflow not in ("SAT", "SAT_SYM"):
        if overflows:
            raise Refused(f"overflow {overflow} cannot be said in QONNX, which saturates (SAT, SAT_SYM)")
        overflow = "SAT"
    return FixedPoint(fmt.width, fmt.frac, fmt.signed, rounding, overflow)


def makes_a_difference(x: Tensor, fmt: FixedPoint, exact: bool = True) -> tuple[bool, bool]:
    """Whether a cast of ``x`` rounds, and whether it meets numbers outside the range of ``fmt``.

    Raises:
        Refused: with ``exact``, a cast that qonnx computes otherwise in float32.
    """
    shifts = [p - f for p, f in zip(x.fracs, fmt.fracs(x.channels), strict=True)]
    if exact and fmt.rounding == "RND_INF" and x.magnitude >= 1 << 23:
        # HALF_UP adds one half in float32, which rounds just below a tie.
        raise Refused("rounding RND_INF of more than 23 bits is not exact in qonnx; use RND_CONV")
    ends = [
        int(shift_round(np.array([int(end)], dtype=object), shift, fmt.rounding)[0][0])
        for low, high, shift in zip(x.low, x.high, shifts, strict=True)
        for end in (low, high)
    ]
    return max(shifts) > 0, min(ends) < fmt.code_min or max(ends) > fmt.code_max


def check_minifloat(fmt: Minifloat) -> None:
    """Refuse minifloats that ``FloatQuant`` does not compute exactly.

    qonnx takes the exponent of a number from a float32 logarithm, which may be one too high just below a
    power of two. Rounding to nearest gives the power of two anyway; other modes do not.

    Raises:
        Refused: it is one of those.
    """
    if fmt.rounding != "RND_CONV":
        raise Refused(f"rounding {fmt.rounding} of minifloats is not exact in qonnx; use RND_CONV")
    if not fmt.signed:
        raise Refused("FloatQuant has no unsigned minifloats; use a signed one")
    if fmt.exponent_bits == 0:
        raise Refused("FloatQuant needs at least one exponent bit; use FixedPoint")
    if fmt.mantissa_bits == 0:
        raise Refused("FloatQuant rounds ties without mantissa bits up, the graph to the even exponent")
    if np.max(fmt.frac) > LARGEST_EXPONENT or np.max(fmt.max) >= 2.0**LARGEST_EXPONENT:
        raise Refused(f"{fmt} has numbers that float32 does not hold; use fewer exponent bits")
    if fmt.overflow != "SAT":
        raise Refused(f"overflow {fmt.overflow}; infinity and NaN have no place in the graph")
