"""The formats of brevitas quantizers, read from what they return and checked against what they do.

Attributes of a quantizer (rounding, range, scale) can be read, but a quantizer is assembled from parts that a
user may replace. So every activation quantizer is also run on the numbers where formats differ (ties, both
ends of the range and beyond), and must return what the format gives.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from brevitas.quant_tensor import FloatQuantTensor, IntQuantTensor, QuantTensor

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.binary import Binary
from qfx.formats.fixed import MAX_WIDTH, FixedPoint
from qfx.formats.minifloat import Minifloat
from qfx.graph.ops import Cast
from qfx.interop.assemble import Step
from qfx.interop.dyadic import codes_at, encoded_format, per_channel_constant, power_of_two
from qfx.interop.problems import Refused

ROUNDING = {"ROUND": "RND_CONV", "FLOOR": "TRN", "ROUND_TO_ZERO": "TRN_ZERO"}
_FIXED = "use one of brevitas.quant.fixed_point, or restrict_scaling_type='power_of_two'"


def activation(proxy: Any, result: Any, channels: int, path: str) -> list[Step]:
    """The operators that an activation quantizer is, from one result of it; ``channels`` of its operand.

    Raises:
        Refused: it cannot be represented.
    """
    tensor_quant = proxy.fused_activation_quant_proxy.tensor_quant
    frac = _points(result, 1, channels)
    fmt: Format
    if isinstance(result, FloatQuantTensor):
        fmt = _minifloat(proxy, result, frac)
    elif int(_bit_width(result)) == 1 and result.signed:
        fmt = Binary(frac)
    else:
        fmt = _integer_format(proxy, result, frac, strict=True)
    _probe(tensor_quant, result, fmt)
    return [Step(Cast(fmt), path)]


def truncation(proxy: Any, operand: Any, result: Any, channels: int, path: str) -> tuple[list[Step], int]:
    """The cast of a truncating quantizer, and the binary point of the grid that its operand must lie on."""
    frac = _points(result, 1, channels)
    before = _points(operand, 1, channels)
    return [Step(Cast(_integer_format(proxy, result, frac, strict=True)), path)], int(np.min(before))


def weight(proxy: Any, result: Any) -> tuple[np.ndarray, FixedPoint, Format | None]:
    """Codes (int64), format and encoding of a quantized weight; one binary point, or one per output channel.

    Raises:
        Refused: it cannot be represented.
    """
    if not isinstance(result, QuantTensor):
        raise Refused("the weights are not quantized; give it a weight_quant with a power-of-two scale")
    frac = _points(result, 0, int(result.value.shape[0]))
    values = result.value.detach().double().numpy()
    encoding: Format | None = None
    if isinstance(result, FloatQuantTensor):
        encoding = _minifloat(proxy, result, frac)
    elif int(_bit_width(result)) == 1 and result.signed:
        encoding = Binary(frac)
    if encoding is not None:
        fmt = encoded_format(values, encoding.per_channel)
    else:
        fmt = _integer_format(proxy, result, frac, strict=False)
    codes = codes_at(values, fmt.frac)  # type: ignore[arg-type]
    _check_range(codes, fmt)
    return codes, fmt, encoding


def bias(proxy: Any, result: Any, least: tuple[int, ...]) -> tuple[np.ndarray, FixedPoint]:
    """Codes (int64) and format of a bias of one value per output channel.

    Args:
        least: binary points of the products; an unquantized bias gets these, or finer ones where it needs
            them to be exact.

    Raises:
        Refused: it cannot be represented.
    """
    if not isinstance(result, IntQuantTensor):
        return per_channel_constant(result.detach().double().numpy(), least)
    frac = _points(result, 0, int(result.value.shape[0]))
    fmt = _integer_format(proxy, result, frac, strict=False)
    codes = codes_at(result.value.detach().double().numpy(), frac)
    _check_range(codes, fmt)
    return codes, fmt


def _check_range(codes: np.ndarray, fmt: FixedPoint) -> None:
    if codes.min() < fmt.code_min or codes.max() > fmt.code_max:
        raise Refused(f"its integers {codes.min()}..{codes.max()} are outside {fmt}")


def _bit_width(result: Any) -> float:
    widths = {float(w) for w in result.bit_width.reshape(-1)}
    if len(widths) != 1 or not (width := widths.pop()).is_integer() or not 1 <= width <= MAX_WIDTH:
        raise Refused(
            f"bit width {result.bit_width.tolist()}; supported is one whole number, 1 to {MAX_WIDTH}"
        )
    return width


def _points(result: Any, axis: int, channels: int) -> int | tuple[int, ...]:
    """Binary points from the scale; one, or one per channel along ``axis``."""
    if not isinstance(result, IntQuantTensor | FloatQuantTensor):
        kind = type(result).__name__.removesuffix("QuantTensor")
        raise Refused(f"{kind} scales are not supported; use one per tensor or one per channel")
    zero = result.zero_point
    if bool((zero != 0).any()):
        raise Refused(
            f"zero point {float(zero[zero != 0].reshape(-1)[0]):g}; use a symmetric quantizer, whose zero "
            "point is 0"
        )
    scales = result.scale.detach().double().cpu()
    exponents = [power_of_two(float(s)) for s in scales.reshape(-1)]
    if None in exponents:
        first = float(scales.reshape(-1)[exponents.index(None)])
        raise Refused(f"scale {first:.9g} is not a power of two; {_FIXED}")
    fracs = [-e for e in exponents if e is not None]
    if len(set(fracs)) == 1:
        return fracs[0]
    place = axis if scales.ndim == result.value.ndim else 0
    if scales.numel() != channels or scales.shape[place] != channels:
        raise Refused(
            f"scales of shape {tuple(scales.shape)} for {channels} channels; one per tensor or one per "
            "channel is supported"
        )
    return tuple(fracs)


def _integer_format(proxy: Any, result: Any, frac: int | tuple[int, ...], strict: bool) -> FixedPoint:
    """The format of an integer quantizer. Constants are rounded already, so that their rounding mode does
    not matter: ``strict`` is for activations."""
    name = str(proxy.rounding_mode).upper().rpartition(".")[2]
    rounding = ROUNDING.get(name)
    if rounding is None and (strict or name == "STOCHASTIC_ROUND"):
        raise Refused(f"rounding {name}; supported are {', '.join(ROUNDING)}")
    width, signed, narrow = int(_bit_width(result)), bool(result.signed), bool(proxy.is_narrow_range)
    if narrow and not signed and strict:
        raise Refused(f"an unsigned narrow range, 0 to {2**width - 2}; use narrow_range=False")
    if narrow and signed and width == 1:
        raise Refused("a signed narrow range of 1 bit holds nothing but 0; use 2 bits")
    return FixedPoint(width, frac, signed, rounding or "RND_CONV", "SAT_SYM" if narrow and signed else "SAT")


def _minifloat(proxy: Any, result: Any, frac: int | tuple[int, ...]) -> Minifloat:
    """The format of a minifloat quantizer; its scale becomes part of the exponent bias."""
    name = str(proxy.rounding_mode).upper().rpartition(".")[2]
    if name != "ROUND":
        raise Refused(
            f"rounding {name} of minifloats; supported is ROUND (brevitas takes exponents from a float32 "
            "logarithm, which others are not exact with)"
        )
    if not result.saturating:
        raise Refused("a minifloat that does not saturate; infinity and NaN have no place in the graph")
    numbers = [float(t) for t in (result.exponent_bit_width, result.mantissa_bit_width, result.exponent_bias)]
    if not all(n.is_integer() for n in numbers):
        raise Refused(f"exponent bits, mantissa bits and bias {numbers}; whole numbers are supported")
    specials = "ieee" if result.inf_values else "fn" if result.nan_values else "none"
    try:
        exponent_bits, mantissa_bits, bias = (int(n) for n in numbers)
        base = Minifloat(exponent_bits, mantissa_bits, bias, bool(result.signed), specials)
    except QfxError as error:
        raise Refused(str(error)) from error
    up = base.frac
    return base.with_frac([up + f for f in frac] if isinstance(frac, tuple) else up + frac)


def _probe(tensor_quant: Any, result: Any, fmt: Format) -> None:
    """Run the quantizer where formats differ and compare.

    Raises:
        Refused: it does something else than its attributes say.
    """
    numbers = _integers_to_try(fmt)
    # Quarters of the distance to the next number tell rounding modes apart. A float32 model cannot hold them
    # above 20 bits, and then they are other numbers of the same kind.
    gaps = np.diff(numbers, append=2 * numbers[-1] - numbers[-2])
    steps = (numbers[:, None] + gaps[:, None] * np.array([0.0, 0.25, 0.5, 0.75])).reshape(-1)
    steps = np.concatenate([steps, [-1e12, 1e12]])
    fracs = np.reshape(fmt.frac, -1)  # type: ignore[attr-defined]
    rank = result.value.ndim
    x = np.ldexp(steps[:, None], -fracs[None, :]).reshape(len(steps), len(fracs), *(1,) * (rank - 2))
    given = torch.from_numpy(x).to(result.value.dtype)
    with torch.no_grad():
        found = tensor_quant(given)[0].double().numpy()
    wanted = np.asarray(fmt.quantize(given.double().numpy(), axis=1))
    if found.shape == wanted.shape and (found == wanted).all():
        return
    example = ""
    if found.shape == wanted.shape:
        at = tuple(np.argwhere(found != wanted)[0])
        number = float(given.double().numpy()[at])
        example = f": {number:g} becomes {found[at]:g}, not {wanted[at]:g}"
    raise Refused(
        f"does not quantize as its attributes say ({fmt}){example}; use a quantizer of brevitas.quant"
    )


def _integers_to_try(fmt: Format) -> np.ndarray:
    """Ascending numbers of a format in units of its finest grid, and some beyond its ends."""
    if isinstance(fmt, Minifloat):
        numbers = np.ldexp(replace(fmt, bias=0).values(), fmt.mantissa_bits - 1)
        top = numbers[-1] - numbers[-2]
        return np.concatenate(
            [numbers[0] - top * np.array([2, 1]), numbers, numbers[-1] + top * np.arange(1, 4)]
        )
    low, high = fmt.integer_min, fmt.integer_max
    if high - low < 1 << 12:
        return np.arange(low - 3, high + 4).astype(np.float64)
    spread = np.random.default_rng(0).integers(low, high, 500, endpoint=True)
    edges = [np.arange(-8, 9), low + np.arange(-3, 4), high + np.arange(-3, 4)]
    return np.unique(np.concatenate([*edges, spread])).astype(np.float64)
