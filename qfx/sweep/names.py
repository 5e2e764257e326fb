"""Number formats by their short names, and all formats of a family and a width."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from qfx.errors import QfxError
from qfx.formats import MXFP4, MXFP6, MXFP8, MXINT8, FixedPoint, KHot, Minifloat
from qfx.formats.base import Format

#: Families in the order in which reports list them.
FAMILIES = ("integer", "minifloat", "khot", "mx")
#: Minifloats with more exponent bits than this are left out of :func:`minifloats`.
MAX_EXPONENT = 5

_MX: dict[str, Callable[[], Format]] = {
    "MXFP4": MXFP4,
    "MXFP6_E2M3": lambda: MXFP6("e2m3"),
    "MXFP6_E3M2": lambda: MXFP6("e3m2"),
    "MXFP8_E4M3": lambda: MXFP8("e4m3"),
    "MXFP8_E5M2": lambda: MXFP8("e5m2"),
    "MXINT8": MXINT8,
}
_MX_BITS = {"MXFP4": 4, "MXFP6_E2M3": 6, "MXFP6_E3M2": 6, "MXFP8_E4M3": 8, "MXFP8_E5M2": 8, "MXINT8": 8}
_INTEGER = re.compile(r"int([1-9]\d?)")
_MINIFLOAT = re.compile(r"E(\d)M(\d\d?)")
_KHOT = re.compile(r"khot([1-9]\d?)k([1-9])")


def parse(name: str) -> Format:
    """The format of a short name, its binary point or bias left open (calibrated, then learned).

    ``int4`` is fixed point of 4 bits, ``E2M1`` a minifloat without special codes, ``khot6k2`` a K-hot number
    of 6 bits with at most 2 nonzero signed digits; ``MXFP4``, ``MXFP6_E2M3``, ``MXFP6_E3M2``, ``MXFP8_E4M3``,
    ``MXFP8_E5M2`` and ``MXINT8`` are those of OCP.

    Raises:
        QfxError: no such format.
    """
    if name in _MX:
        return _MX[name]()
    if found := _INTEGER.fullmatch(name):
        return FixedPoint(int(found[1]))
    if found := _MINIFLOAT.fullmatch(name):
        return Minifloat(int(found[1]), int(found[2]))
    if found := _KHOT.fullmatch(name):
        return KHot(int(found[1]), None, int(found[2]))
    raise QfxError(
        f"format {name!r} is unknown; use names like int4, E2M1, khot6k2, or one of {', '.join(_MX)}"
    )


def family(name: str) -> str:
    """The family of a short name: one of :data:`FAMILIES`."""
    parse(name)
    if name in _MX:
        return "mx"
    return {"i": "integer", "E": "minifloat", "k": "khot"}[name[0]]


def bits(name: str) -> int:
    """Bits of a number; the shared scale of a block is not counted."""
    return _MX_BITS[name] if name in _MX else int(parse(name).width)


def integers(widths: Iterable[int]) -> list[str]:
    """Fixed point of these widths."""
    return [f"int{width}" for width in widths]


def minifloats(widths: Iterable[int]) -> list[str]:
    """Every split of these widths into a sign, 2 to 5 exponent bits and the rest.

    With one exponent bit or none the numbers are evenly spaced: sign and magnitude of an integer.
    """
    return [
        f"E{exponent}M{width - 1 - exponent}"
        for width in widths
        for exponent in range(2, min(width - 1, MAX_EXPONENT) + 1)
    ]


def khots(widths: Iterable[int], digits: Sequence[int] = (1, 2, 3)) -> list[str]:
    """K-hot numbers of these widths, without those whose ``k`` digits reach every integer.

    An integer of ``w`` bits has at most ``w / 2`` (rounded up) nonzero canonical signed digits.
    """
    return [f"khot{width}k{k}" for width in widths for k in digits if 2 * k < width]


def mx(widths: Iterable[int]) -> list[str]:
    """The OCP formats whose elements have these widths."""
    chosen = set(widths)
    return [name for name, width in _MX_BITS.items() if width in chosen]


def formats(families: Iterable[str], widths: Iterable[int]) -> list[str]:
    """All formats of these families and widths, by family.

    Raises:
        QfxError: a family that does not exist.
    """
    makers = {"integer": integers, "minifloat": minifloats, "khot": khots, "mx": mx}
    wanted, sizes = list(families), list(widths)
    for name in wanted:
        if name not in makers:
            raise QfxError(f"family {name!r} is unknown; use {', '.join(FAMILIES)}")
    return [name for each in wanted for name in makers[each](sizes)]


def pairs(families: Iterable[str], widths: Iterable[int], *, mixed: bool = True) -> list[tuple[str, str]]:
    """Formats of weights and activations that go together, as pairs of short names.

    Minifloats and MX formats are paired with themselves. Integers, with ``mixed``, with integers of every
    width. K-hot weights multiply integer activations, of every width with ``mixed`` and of their own
    otherwise.
    """
    sizes, found = list(widths), []
    for each in families:
        for weight in formats([each], sizes):
            if each in ("minifloat", "mx"):
                found.append((weight, weight))
            else:
                found += [(weight, f"int{b}") for b in (sizes if mixed else [bits(weight)])]
    return found
