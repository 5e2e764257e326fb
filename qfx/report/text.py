"""Numbers and names as the page writes them."""

from __future__ import annotations

import math
from datetime import datetime

NAMES = {
    "float": "Float32",
    "ptq": "Post-training quantization",
    "learned": "Learned binary points",
    "torch": "PyTorch, eval()",
    "hls": "HLS C++",
    "rtl": "Verilog",
}
SHORT_NAMES = {
    "float": "Float32",
    "ptq": "PTQ",
    "learned": "Learned",
    "torch": "PyTorch",
    "hls": "HLS",
    "rtl": "RTL",
}


def name(key: str) -> str:
    """The full name of an accuracy, an implementation or a run."""
    return NAMES.get(key, key)


def short_name(key: str) -> str:
    """The name where there is little room."""
    return SHORT_NAMES.get(key, key)


def count(value: float | None) -> str:
    """A count with thousands separators; whole numbers without decimals; an en dash for nothing."""
    if value is None:
        return "–"
    if value == int(value):
        return minus(f"{int(value):,}")
    return minus(f"{value:,.1f}")


def percent(value: float, digits: int = 1) -> str:
    """A percentage of 0..100; what is not 0 does not look like 0, and what is not 100 not like 100."""
    least = 10.0**-digits
    if 0 < value < least / 2:
        return f"< {least:.{digits}f} %"
    if 100 - least / 2 < value < 100:
        return f"> {100 - least:.{digits}f} %"
    return f"{value:.{digits}f} %"


def points(difference: float) -> str:
    """A difference of percentages, with its sign."""
    return minus(f"{difference:+.1f}")


def number(value: float) -> str:
    """A value with up to four significant digits, never in exponent notation where it can be read without."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        return minus(f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}")
    return minus(f"{value:.2e}")


def time(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds >= 90:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns")):
        if seconds * factor >= 1 or unit == "ns":
            scaled = seconds * factor
            digits = max(0, 2 - math.floor(math.log10(scaled))) if scaled > 0 else 0
            return f"{scaled:.{min(digits, 2)}f} {unit}"
    raise AssertionError


def rate(per_second: float) -> str:
    """A frequency of events with a unit prefix: ``347 k``."""
    for factor, prefix in ((1e6, "M"), (1e3, "k")):
        if per_second >= factor:
            scaled = per_second / factor
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {prefix}"
    return f"{per_second:.3g}"


def moment(iso: str) -> str:
    """An ISO 8601 moment to the minute; what is not one as it stands."""
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = found.strftime(" %Z") if found.tzinfo is not None else ""
    return found.strftime("%Y-%m-%d %H:%M") + zone


def shape(sizes: tuple[int, ...]) -> str:
    """``16×8×8``."""
    return "×".join(str(s) for s in sizes)


def plural(n: int, noun: str) -> str:
    """``1 layer``, ``2 layers``; nouns that end in -ch get -es."""
    ending = "" if n == 1 else "es" if noun.endswith(("ch", "x", "s")) else "s"
    return f"{n:,} {noun}{ending}"


def minus(text: str) -> str:
    """A real minus sign."""
    return text.replace("-", "−")
