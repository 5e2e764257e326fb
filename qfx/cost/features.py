"""What the cost of a kernel grows with: numbers from its parameters, one set per kernel module.

The estimator (:mod:`qfx.cost.estimator`) fits one coefficient to each. Each feature counts bits that one LUT
(or flip-flop) serves: an adder of n bits, a row of a multiplier, a word of a memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qfx.rtl.design import Kernel

#: LUTs and DSP blocks of ``qfx_mul`` by widths of both operands and whether they are signed.
Products = Mapping[tuple[int, int, int, int], tuple[float, float]]
Features = dict[str, float]


def features(kernel: Kernel, products: Products) -> Features:
    """Features by name, for LUTs and flip-flops alike; always with ``one`` and with the ``plain`` estimate of
    :mod:`qfx.rtl.estimate` where there is no better one."""
    numbers = {k: v for k, v in kernel.parameters.items() if isinstance(v, int)}
    maker = _MAKERS.get(kernel.module)
    found = {"one": 1.0}
    if maker is not None:
        found |= maker(numbers, kernel.parameters, products)
    else:
        from qfx.rtl import estimate

        plain = estimate.of(kernel)
        found |= {"plain_lut": float(plain.lut), "plain_ff": float(plain.ff)}
    return found


def blocks(kernel: Kernel, products: Products) -> tuple[float, float]:
    """DSP blocks and block RAMs of 18 Kbit; rules, not fitted."""
    from qfx.rtl import estimate

    n, text = {k: v for k, v in kernel.parameters.items() if isinstance(v, int)}, kernel.parameters
    plain = estimate.of(kernel)
    match kernel.module:
        case "qfx_matvec" | "qfx_depthwise":
            lanes = n["PE"] * n["SIMD"] if kernel.module == "qfx_matvec" else n["P"]
            dsp = lanes * _product(n, products)[1] if n.get("KIND", 0) == 0 else 0.0
        case "qfx_affine":
            dsp = n["P"] * _scale(n, products)[1]
        case _:
            dsp = float(plain.dsp)
    if text.get("ROM_STYLE") == "distributed" and text.get("RAM_STYLE", "distributed") == "distributed":
        return dsp, 0.0
    return dsp, float(plain.bram18)


def ram(depth: int, width: int) -> float:
    """LUTs of a distributed memory with one write and one read port: RAM32M holds 6 bits by 32 words in four
    LUTs, RAM64M 3 bits by 64 words (AMD UG474)."""
    if depth <= 32:
        return 4 * math.ceil(width / 6)
    return 4 * math.ceil(width / 3) * math.ceil(depth / 64)


def rom(depth: int, width: int) -> float:
    """LUTs of a table: one per bit of up to 16 words, and as many more as it is deeper.

    A LUT holds 64 bits, but Yosys' mapping of tables that share their inputs uses about 16 of them.
    """
    return 0.0 if depth <= 1 else width * max(1.0, depth / 16)


def bits(n: int) -> int:
    """Bits of a counter of ``n`` steps."""
    return max(1, (n - 1).bit_length())


def _product(n: Mapping[str, int], products: Products) -> tuple[float, float]:
    return products_of(products, n["A_WIDTH"], n["W_WIDTH"], n["A_SIGNED"], n["W_SIGNED"])


def _scale(n: Mapping[str, int], products: Products) -> tuple[float, float]:
    return products_of(products, n["IN_WIDTH"], n["SCALE_WIDTH"], n["IN_SIGNED"], n["SCALE_SIGNED"])


def products_of(products: Products, a: int, b: int, a_signed: int, b_signed: int) -> tuple[float, float]:
    """LUTs and DSP blocks of a multiplier; measured where it was, by rule beyond."""
    for key in ((a, b, a_signed, b_signed), (b, a, b_signed, a_signed), (a, b, 0, 1), (b, a, 0, 1)):
        if key in products:
            return products[key]
    if min(a, b) <= 1:
        return float(max(a, b)), 0.0
    if min(a, b) == 2:
        return 1.5 * max(a, b), 0.0
    return 0.0, float(math.ceil(max(a, b) / 24) * math.ceil(min(a, b) / 17))


def _matvec(n: Mapping[str, int], text: Mapping[str, Any], products: Products) -> Features:
    from qfx.rtl import estimate

    pe, simd, acc = n["PE"], n["SIMD"], n["ACC_WIDTH"]
    words = n["GROUPS"] * n["NF"] * n["SF"]
    sums, count, width = 0, simd, n["A_WIDTH"] + n["W_WIDTH"]
    while count > 1:
        sums += count // 2 * (width + 1)
        count, width = (count + 1) // 2, width + 1
    adds = n["SF"] > 1 or n["HAS_BIAS"]
    found = {
        "accumulate": float(pe * acc * bool(adds)),
        "registers": float(pe * acc),
        "counters": float(bits(n["SF"]) + bits(n["NF"]) + bits(words)),
    }
    kind = n.get("KIND", 0)
    if kind == 0:
        product, dsp = _product(n, products)
        found["product" if words > 1 else "constant_product"] = pe * simd * product
        found["sum"] = float(pe * sums)
        found["dsp_product"] = pe * simd * dsp * (n["A_WIDTH"] + n["W_WIDTH"])
        found["product_bits"] = float(pe * simd * (n["A_WIDTH"] + n["W_WIDTH"]))
    else:
        plain = estimate.dot({**n, "OUT_WIDTH": acc}, simd)
        found[f"dot_lut_{kind}" if words > 1 else f"constant_dot_lut_{kind}"] = pe * float(plain.lut)
        found[f"dot_ff_{kind}"] = pe * float(plain.ff)
    if text.get("ROM_STYLE") != "block":
        found["rom"] = rom(words, pe * simd * n["W_WIDTH"])
        found["rom_rest"] = (
            rom(1 << bits(words), pe * simd * n["W_WIDTH"]) - found["rom"] if words > 1 else 0.0
        )
    found["operands"] = float(simd * n["A_WIDTH"] + (pe * simd * n["W_WIDTH"] if words > 1 else 0))
    if n["HAS_BIAS"]:
        found["bias"] = rom(n["GROUPS"] * n["NF"], pe * acc)
    if n["NF"] > 1 and n["SF"] > 1:
        found["replay"] = ram(n["SF"], simd * n["A_WIDTH"])
    return found


def _depthwise(n: Mapping[str, int], text: Mapping[str, Any], products: Products) -> Features:
    product, dsp = _product(n, products)
    words = n["GROUPS"] * n["K"]
    return {
        "product": n["P"] * product,
        "dsp_product": n["P"] * dsp * (n["A_WIDTH"] + n["W_WIDTH"]),
        "accumulate": float(n["P"] * n["ACC_WIDTH"]),
        "rom": rom(words, n["P"] * n["W_WIDTH"]) if text.get("ROM_STYLE") != "block" else 0.0,
        "bias": rom(n["GROUPS"], n["P"] * n["ACC_WIDTH"]) if n["HAS_BIAS"] else 0.0,
        "operands": float(n["P"] * (n["A_WIDTH"] + n["W_WIDTH"])),
    }


def _affine(n: Mapping[str, int], text: Mapping[str, Any], products: Products) -> Features:
    product, dsp = _scale(n, products)
    one = n["BEATS"] == 1
    return {
        "constant_product" if one else "product": n["P"] * product,
        "dsp_product": n["P"] * dsp * (n["IN_WIDTH"] + n["SCALE_WIDTH"]),
        "add": float(n["P"] * n["OUT_WIDTH"]),
        "rom": rom(n["BEATS"], n["P"] * n["SCALE_WIDTH"]) if text.get("ROM_STYLE") != "block" else 0.0,
        "bias": rom(n["BEATS"], n["P"] * n["OUT_WIDTH"]) if n["HAS_OFFSET"] else 0.0,
        "operands": float(n["P"] * (n["IN_WIDTH"] + n["SCALE_WIDTH"])),
    }


def _fifo(n: Mapping[str, int], text: Mapping[str, Any], products: Products) -> Features:
    depth, width = n["DEPTH"], n["WIDTH"]
    found = {"pointers": float(bits(depth) + (depth + 1).bit_length())}
    if n["STYLE"] == 0:
        return found | {"memory": ram(depth, width)}
    return found | {"width": float(width)}


def _window(n: Mapping[str, int], text: Mapping[str, Any], products: Products) -> Features:
    down, across = (n["KERNEL_H"] - 1) * n["DILATION_H"], (n["KERNEL_W"] - 1) * n["DILATION_W"]
    span = (down * n["IN_W"] + across) * n["BEATS"]
    fill = max(n["DEPTH"], span + n["BEATS"]).bit_length() + 1
    places = (n["PAD_LEFT"] + n["IN_W"]).bit_length() + (n["PAD_TOP"] + n["IN_H"]).bit_length()
    found = {
        "address": float(bits(n["DEPTH"])),
        "fill": float(fill),
        "places": float(places),
        "steps": float(bits(n["KERNEL_H"]) + bits(n["KERNEL_W"]) + bits(n["BEATS"])),
        "width": float(n["WIDTH"]),
        "padding": float(n["PAD_TOP"] > 0) * places,
    }
    if text.get("RAM_STYLE") != "block":
        found["memory"] = ram(n["DEPTH"], n["WIDTH"])
    return found


def _cast(n: Mapping[str, int], text: Mapping[str, Any], products: Products) -> Features:
    p = n["P"]
    wide = n["IN_WIDTH"] + (n["ALIGN_MAX"] if n["PER_CHANNEL"] else 0)
    right = min(max(n["SHIFT"], 0), wide + 2)
    kept = max(wide - right, 0) + max(-n["SHIFT"], 0)
    over = max(kept + 1 - n["OUT_WIDTH"], 0)
    shifts = n["PER_CHANNEL"] and n["BEATS"] > 1
    return {
        "result": float(p * n["OUT_WIDTH"]),
        "carry": float(p * min(kept + 1, n["OUT_WIDTH"] + 1) * (right > 0 and n["ROUNDING"] != 0)),
        "dropped": float(p * max(right - 1, 0) * (n["ROUNDING"] in (1, 3, 4, 5, 6))),
        "over": float(p * over * (n["OVERFLOW"] != 3)),
        # With one beat every lane shifts by a constant: wires.
        "shifter": float(p * wide * bits(n["ALIGN_MAX"] + 1)) if shifts else 0.0,
        "wide": float(p * wide) if n["PER_CHANNEL"] else 0.0,
        "rom": rom(n["BEATS"], p * bits(n["ALIGN_MAX"] + 1)) if shifts else 0.0,
        "index": float(bits(n["BEATS"])) if shifts else 0.0,
    }


def _lanes(n: Mapping[str, int], text: Mapping[str, Any], products: Products) -> Features:
    return {"result": float(n["P"] * n["OUT_WIDTH"])}


def _resize(n: Mapping[str, int], text: Mapping[str, Any], products: Products) -> Features:
    small, big = sorted((n["IN"], n["OUT"]))
    return {
        "count": float(bits(big // small)) if big > small else 0.0,
        "bits": float(big * n["WIDTH"]),
        "moved": float((big - small) * n["WIDTH"]),
    }


def _pool(n: Mapping[str, int], text: Mapping[str, Any], products: Products) -> Features:
    maximum = n["MODE"] == 0
    width = n["IN_WIDTH"] + (0 if maximum else bits(n["K"]))
    scaled = not maximum and n["SCALE_WIDTH"] > 2
    return {
        "maximum": float(n["P"] * width) if maximum else 0.0,
        "sum": 0.0 if maximum else float(n["P"] * width),
        "scaled": float(n["P"] * width * n["SCALE_WIDTH"]) if scaled else 0.0,
        "count": float(bits(n["K"])),
    }


def _binary(n: Mapping[str, int], text: Mapping[str, Any], products: Products) -> Features:
    if n["MODE"] == 2:
        product, _ = products_of(products, n["WIDTH0"], n["WIDTH1"], n["SIGNED0"], n["SIGNED1"])
        return {"product": n["P"] * product, "result": float(n["P"] * n["OUT_WIDTH"])}
    return {"result": float(n["P"] * n["OUT_WIDTH"])}


_MAKERS: dict[str, Callable[[Mapping[str, int], Mapping[str, Any], Products], Features]] = {
    "qfx_matvec": _matvec,
    "qfx_depthwise": _depthwise,
    "qfx_affine": _affine,
    "qfx_fifo": _fifo,
    "qfx_window": _window,
    "qfx_cast_stream": _cast,
    "qfx_relu": _lanes,
    "qfx_upsize": _resize,
    "qfx_downsize": _resize,
    "qfx_pool": _pool,
    "qfx_binary": _binary,
}
