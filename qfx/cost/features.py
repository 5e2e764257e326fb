"""What the cost of a kernel grows with: numbers from its parameters, one set per kernel module.

The estimator (:mod:`qfx.cost.estimator`) fits one coefficient to each. Each feature counts bits that one LUT
(or flip-flop) serves: an adder of n bits, a row of a multiplier, a word of a memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qfx.cost.contents import APART, expected

if TYPE_CHECKING:
    from qfx.rtl.design import Kernel

#: LUTs and DSP blocks of ``qfx_mul`` by widths of both operands and whether they are signed.
Products = Mapping[tuple[int, int, int, int], tuple[float, float]]
Features = dict[str, float]


def features(kernel: Kernel, products: Products, contents: Mapping[str, float] | None = None) -> Features:
    """Features by name, for LUTs and flip-flops alike; always with ``one`` and with the ``plain`` estimate of
    :func:`qfx.rtl.estimate.structure` where there is no better one.

    Args:
        contents: of the memories, :func:`qfx.cost.contents.of`; what is missing is that of random words.
    """
    numbers = {k: v for k, v in kernel.parameters.items() if isinstance(v, int)}
    maker = _MAKERS.get(kernel.module)
    found = {"one": 1.0}
    if maker is not None:
        found |= maker(numbers, kernel.parameters, products, contents or {})
    else:
        from qfx.rtl import estimate

        plain = estimate.structure(kernel)
        found |= {"plain_lut": float(plain.lut), "plain_ff": float(plain.ff)}
    return found


def blocks(kernel: Kernel, products: Products) -> tuple[float, float]:
    """DSP blocks and block RAMs of 18 Kbit; rules, not fitted."""
    from qfx.rtl import estimate

    n, text = {k: v for k, v in kernel.parameters.items() if isinstance(v, int)}, kernel.parameters
    plain = estimate.structure(kernel)
    match kernel.module:
        case "qfx_matvec" | "qfx_depthwise":
            lanes = n["PE"] * n["SIMD"] if kernel.module == "qfx_matvec" else n["P"]
            dsp = lanes * _blocks_of(n, products, "A", "W")
        case "qfx_affine":
            dsp = n["P"] * _blocks_of(n, products, "IN", "SCALE")
        case "qfx_matmul":
            dsp = n["PE"] * n["SIMD"] * _blocks_of(n, products, "A", "B")
        case _:
            dsp = float(plain.dsp)
    if text.get("ROM_STYLE") == "distributed" and text.get("RAM_STYLE", "distributed") == "distributed":
        return dsp, 0.0
    bram18 = float(plain.bram18)
    memory = written(kernel.module, n)
    if memory is not None:
        depth, width, ports = memory
        style = str(text.get("RAM_STYLE", "auto"))
        # What the estimate from the structure does not know of.
        if in_block(depth, width, style, ports):
            known = estimate.memory(depth, width, rom=False, style=style).bram18
            bram18 += 0.0 if known else float(estimate.block_rams(depth, width))
    return dsp, bram18


def written(module: str, n: Mapping[str, int]) -> tuple[int, int, int] | None:
    """Words, bits and ports of the memory of a kernel that is written, where a tool may choose what it is
    made of."""
    if module == "qfx_matvec" and n["NF"] > 1 and n["SF"] > 1:
        return n["SF"], n["SIMD"] * n["A_WIDTH"], 1
    if module == "qfx_window":
        return n["DEPTH"], n["WIDTH"], 2
    if module == "qfx_reorder":
        return 2 << bits(n["LENGTH"]), n["WIDTH"], 2
    return None


def in_block(depth: int, width: int, style: str, ports: int) -> bool:
    """Whether a memory that is written is in block RAM.

    Left to itself, Yosys puts 258 words of 8 bits and 53 of 48 with one write and one read port in look-up
    tables, 148 of 16 and 512 of 5 in block RAM; with one port for both 512 of 6 and 256 of 16 in look-up
    tables, 432 of 8 in block RAM.
    """
    if style != "auto":
        return style == "block"
    return depth > 64 and depth * width > 2200 if ports == 2 else depth > 256 and depth * width > 3072


def _blocks_of(n: Mapping[str, int], products: Products, a: str, w: str) -> float:
    """DSP blocks of one multiplier; weights in minifloat codes are integers when they get there."""
    width, kind = n[f"{w}_WIDTH"], n.get("KIND", 0)
    if kind == 5:
        width += (1 << n["W_EXP"]) - 1 - n["W_EXP"]
    if kind not in (0, 5):
        return 0.0
    return products_of(products, n[f"{a}_WIDTH"], width, n[f"{a}_SIGNED"], n[f"{w}_SIGNED"])[1]


def ram(depth: int, width: int, *, style: str = "distributed", ports: int = 2) -> float:
    """LUTs of a memory that is written; none where it is in block RAM.

    Four LUTs hold 32 words by 6 bits or 64 words by 3 bits with one write and one read port, 32 words by 8
    bits or 64 words by 4 bits with one port for both (AMD UG474).
    """
    if in_block(depth, width, style, ports):
        return 0.0
    if depth <= 32:
        return 4 * math.ceil(width / (6 if ports == 2 else 8))
    pieces = math.ceil(depth / 64)
    # The words of several pieces meet in multiplexers of four; each piece has a write enable.
    select = width * math.ceil((pieces - 1) / 3) + (pieces if pieces > 1 else 0)
    return 4 * math.ceil(width / (3 if ports == 2 else 4)) * pieces + select


def rom(contents: Mapping[str, float], name: str, depth: int, width: int) -> dict[str, float]:
    """``lut``, ``live``, ``ff`` of a ROM: what its words have, or random ones."""
    random = expected(depth, width) if f"{name}_lut" not in contents else {}
    return {key: contents.get(f"{name}_{key}", random.get(key, 0.0)) for key in ("lut", "live", "ff")}


def bits(n: int) -> int:
    """Bits of a counter of ``n`` steps."""
    return max(1, (n - 1).bit_length())


def products_of(products: Products, a: int, b: int, a_signed: int, b_signed: int) -> tuple[float, float]:
    """LUTs and DSP blocks of a multiplier; measured where it was, by rule beyond."""
    for key in ((a, b, a_signed, b_signed), (b, a, b_signed, a_signed), (a, b, 0, 1), (b, a, 0, 1)):
        if key in products:
            return products[key]
    # Beyond what is measured qfx_mul is a `*`: a DSP block, but for a factor that is 0 or -1.
    if min(a, b) <= 1 and (a_signed if a < b else b_signed):
        return float(max(a, b)), 0.0
    return 0.0, float(math.ceil(max(a, b) / 24) * math.ceil(min(a, b) / 17))


def _matvec(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    words = n["GROUPS"] * n["NF"] * n["SF"]
    found = _multiply(n, products, contents, "weight", n["PE"], n["SIMD"], words, text)
    found["counters"] = float(bits(n["SF"]) + bits(n["NF"]) + bits(words))
    if n["HAS_BIAS"]:
        found |= _added(contents, "bias", n["GROUPS"] * n["NF"], n["PE"] * n["ACC_WIDTH"])
    if n["NF"] > 1 and n["SF"] > 1:
        style = str(text.get("RAM_STYLE", "auto"))
        found["replay"] = ram(n["SF"], n["SIMD"] * n["A_WIDTH"], style=style, ports=1)
        found["operand_mux"] = float(n["SIMD"] * n["A_WIDTH"])
    if n.get("BLOCK"):
        lanes = n["PE"] * (n["SIMD"] // n["BLOCK"])
        # Two bits of a shift to a look-up table.
        found["block_shift"] = float(lanes * n["ACC_WIDTH"] * math.ceil(n["SCALE_WIDTH"] / 2))
        found["block_sum"] = float(lanes * n["ACC_WIDTH"])
        scales = rom(contents, "scales", max(1, words // n["HOLD"]), lanes * n["SCALE_WIDTH"])
        found |= {"scale_rom": scales["lut"], "scale_registers": scales["ff"]}
    return found


def _depthwise(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    words = n["GROUPS"] * n["K"]
    found = _multiply(n, products, contents, "weight", n["P"], 1, words, text)
    found["counters"] = float(bits(n["K"]) + bits(words))
    if n["HAS_BIAS"]:
        found |= _added(contents, "bias", n["GROUPS"], n["P"] * n["ACC_WIDTH"])
    return found


def _affine(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    names = {"IN_WIDTH": "A_WIDTH", "IN_SIGNED": "A_SIGNED", "SCALE_WIDTH": "W_WIDTH"}
    names |= {"SCALE_SIGNED": "W_SIGNED", "OUT_WIDTH": "ACC_WIDTH", "HAS_OFFSET": "HAS_BIAS"}
    n = {names.get(name, name): value for name, value in n.items()}
    found = _multiply(n, products, contents, "scale", n["P"], 1, n["BEATS"], text)
    found["counters"] = float(bits(n["BEATS"]))
    if n["HAS_BIAS"]:
        found |= _added(contents, "offset", n["BEATS"], n["P"] * n["ACC_WIDTH"])
    return found


def _multiply(
    n: Mapping[str, int],
    products: Products,
    contents: Mapping[str, float],
    name: str,
    rows: int,
    pairs: int,
    words: int,
    text: Mapping[str, Any],
) -> Features:
    """``rows`` dot products of ``pairs`` with weights of a memory ``name``, and their accumulators."""
    from qfx.rtl import estimate

    a, w, acc, kind = n["A_WIDTH"], n["W_WIDTH"], n["ACC_WIDTH"], n.get("KIND", 0)
    lanes = rows * pairs
    block = n.get("BLOCK", 0) or pairs
    stored = lanes * w
    held = rom(contents, name, words, stored) if text.get("ROM_STYLE") != "block" else {}
    live = held.get("live", 1.0) if words > 1 else 1.0
    found: Features = {}
    if kind in (5, 6):
        # A table for each bit of the integers that minifloat codes stand for.
        w += (1 << n["W_EXP"]) - 1 - n["W_EXP"]
        found["decode"] = float(lanes * w)
        kind -= 5
    dsp = 0.0
    if kind in (0, 1):
        lut, dsp = products_of(products, a, w, n["A_SIGNED"], n["W_SIGNED"]) if kind == 0 else (
            float(estimate.booth(a, n["A_SIGNED"], w, n["W_SIGNED"])), 0.0,
        )  # fmt: skip
        how = "dsp" if dsp else "booth" if kind else "table"
        adders = lanes / block * _tree(block, a + w)
        # Multipliers that are wide enough are DSP blocks for constants too.
        if words == 1 and not dsp:
            nonzero = contents.get(f"{name}_nonzero", 0.9 * lanes)
            digits = contents.get(f"{name}_digits", (w + 1) / 3 * lanes)
            found["constant_adders"] = max(0.0, digits - nonzero) * (a + 1)
            found["constant_sum"] = adders * nonzero / lanes
            found["constant_bits"] = nonzero * (a + w)
        else:
            found[f"product_{how}"] = lanes * lut * live
            if dsp:
                found["sum_dsp"] = float(lanes / block * _tree(block, a + w, inside=True))
            else:
                found["sum"] = float(adders)
            found["sum_bits_dsp" if dsp else "sum_bits"] = float(adders + lanes * (a + w))
    else:
        plain = estimate.dot({**n, "OUT_WIDTH": acc}, block)
        constant = "" if words > 1 else "constant_"
        found[f"{constant}dot_lut_{kind}"] = lanes / block * float(plain.lut)
        found[f"{constant}dot_ff_{kind}"] = lanes / block * float(plain.ff)
    # A DSP block has registers for its operands, and an accumulator.
    inside = bool(dsp) and pairs == 1
    adds = n.get("SF", n.get("K", 1)) > 1 or n["HAS_BIAS"]
    found["accumulate_dsp" if inside else "accumulate"] = float(rows * acc * bool(adds))
    found["registers_dsp" if inside else "registers"] = float(rows * acc)
    found["operands_dsp" if dsp else "operands"] = float(pairs * a * (rows if pairs == 1 else 1))
    if held and words > 1:
        found["rom" if words <= APART or text.get("ROM_STYLE") != "distributed" else "table"] = held["lut"]
        found["word_dsp" if dsp else "word"] = held["ff"]
    found["stages"] = float(bits(pairs) if pairs > 1 else 0)
    return found


def _tree(count: int, width: int, inside: bool = False) -> int:
    """Bits of the adders of a tree of ``count`` numbers.

    Args:
        inside: the numbers are products of DSP blocks, each of which adds one other number to its own: only
            sums of two sums take look-up tables.
    """
    total, products = 0, count if inside else 0
    while count > 1:
        pairs, alone = divmod(count, 2)
        # All numbers are products, or the last one is: it had no partner so far.
        taken = pairs if products == count else products * (1 - alone)
        total += (pairs - taken) * (width + 1)
        products = alone if products else 0
        count, width = pairs + alone, width + 1
    return total


def _added(contents: Mapping[str, float], name: str, depth: int, width: int) -> Features:
    """What is added to sums, from a memory."""
    held = rom(contents, name, depth, width)
    return {"bias": held["lut"], "bias_word": held["ff"], "bias_bits": width * held["live"]}


def _fifo(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    depth, width = n["DEPTH"], n["WIDTH"]
    found = {"address": float(bits(depth)), "count": float(depth.bit_length())}
    if n["STYLE"] == 0:
        return found | {"memory": ram(depth, width)}
    return found | {"width": float(width)}


def _window(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
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
    found["memory"] = ram(n["DEPTH"], n["WIDTH"], style=str(text.get("RAM_STYLE", "auto")))
    return found


def _cast(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    p = n["P"]
    wide = n["IN_WIDTH"] + (n["ALIGN_MAX"] if n["PER_CHANNEL"] else 0)
    right = min(max(n["SHIFT"], 0), wide + 2)
    kept = max(wide - right, 0) + max(-n["SHIFT"], 0)
    over = max(kept + 1 - n["OUT_WIDTH"], 0)
    shifts = n["PER_CHANNEL"] and n["BEATS"] > 1
    amounts = p * bits(n["ALIGN_MAX"] + 1)
    held = rom(contents, "align", n["BEATS"], amounts)
    return {
        "result": float(p * n["OUT_WIDTH"]),
        "carry": float(p * min(kept + 1, n["OUT_WIDTH"] + 1) * (right > 0 and n["ROUNDING"] != 0)),
        "dropped": float(p * max(right - 1, 0) * (n["ROUNDING"] in (1, 3, 4, 5, 6))),
        "over": float(p * over * (n["OVERFLOW"] != 3)),
        # With one beat every lane shifts by a constant: wires.
        "shifter": wide * held["live"] * amounts if shifts else 0.0,
        "wide": float(p * wide) if n["PER_CHANNEL"] else 0.0,
        "rom": held["lut"] if shifts else 0.0,
        "index": float(bits(n["BEATS"])) if shifts else 0.0,
    }


def _cast_minifloat(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    p, right = n["P"], min(max(n["SHIFT"], 0), n["IN_WIDTH"] + 2)
    wide = max(n["IN_WIDTH"] + max(-n["SHIFT"], 0), right) + 1
    return {
        "result": float(p * n["OUT_WIDTH"]),
        # Where the leading one decides whether a place is kept.
        "places": float(p * max(n["OUT_WIDTH"] - n["PRECISION"], 0)),
        "dropped": float(p * max(right - 1, 0)),
        "over": float(p * max(wide - right - n["OUT_WIDTH"], 0) * n["SATURATE"]),
        "wide": float(p * wide),
    }


def _encode_minifloat(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    return {
        "wide": float(n["P"] * n["IN_WIDTH"]),
        "negated": float(n["P"] * n["IN_WIDTH"] * n["IN_SIGNED"]),
        "result": float(n["P"] * (n["EXP"] + n["MAN"] + n["IN_SIGNED"])),
    }


def _lanes(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    return {"result": float(n["P"] * n["OUT_WIDTH"])}


def _resize(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    small, big = sorted((n["IN"], n["OUT"]))
    return {
        "count": float(bits(big // small)) if big > small else 0.0,
        "bits": float(big * n["WIDTH"]),
        "moved": float((big - small) * n["WIDTH"]),
    }


def _pool(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    maximum = n["MODE"] != 1
    width = n["IN_WIDTH"] + (0 if maximum else bits(n["K"]))
    scaled = not maximum and n["SCALE_WIDTH"] > 2
    return {
        "maximum": float(n["P"] * width) if maximum else 0.0,
        "sum": 0.0 if maximum else float(n["P"] * width),
        "scaled": float(n["P"] * width * n["SCALE_WIDTH"]) if scaled else 0.0,
        "count": float(bits(n["K"])),
    }


def _binary(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    if n["MODE"] == 2:
        product, _ = products_of(products, n["WIDTH0"], n["WIDTH1"], n["SIGNED0"], n["SIGNED1"])
        return {"product" if product else "product_dsp": float(n["P"] * (product or n["OUT_WIDTH"]))}
    return {"result": float(n["P"] * n["OUT_WIDTH"])}


def _reorder(
    n: Mapping[str, int], text: Mapping[str, Any], products: Products, contents: Mapping[str, float]
) -> Features:
    address = bits(n["LENGTH"])
    memory = ram(2 << address, n["WIDTH"], style=str(text.get("RAM_STYLE", "auto")))
    return {"address": float(address), "memory": memory, "width": float(n["WIDTH"]) if memory else 0.0}


_Maker = Callable[[Mapping[str, int], Mapping[str, Any], Products, Mapping[str, float]], Features]
_MAKERS: dict[str, _Maker] = {
    "qfx_matvec": _matvec,
    "qfx_depthwise": _depthwise,
    "qfx_affine": _affine,
    "qfx_fifo": _fifo,
    "qfx_window": _window,
    "qfx_cast_stream": _cast,
    "qfx_cast_minifloat": _cast_minifloat,
    "qfx_encode_minifloat": _encode_minifloat,
    "qfx_relu": _lanes,
    "qfx_upsize": _resize,
    "qfx_downsize": _resize,
    "qfx_pool": _pool,
    "qfx_binary": _binary,
    "qfx_reorder": _reorder,
}
