"""The formats of brevitas quantizers, read from what they return and checked against what they do.

Attributes of a quantizer (rounding, range, scale) can be read, but a quantizer is assembled from parts that a
user may replace. So every activation quantizer is also run on the numbers where formats differ (ties, both
ends of the range and beyond), and must return what the format gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from brevitas.quant_tensor import IntQuantTensor, QuantTensor

from qfx.formats.base import Format
from qfx.formats.binary import Binary
from qfx.formats.fixed import MAX_WIDTH, FixedPoint
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
    if int(_bit_width(result)) == 1 and result.signed:
        return _bipolar(tensor_quant, result, frac, path)
    fmt = _integer_format(proxy, result, frac, strict=True)
    _probe(tensor_quant, result, fmt, lambda x: np.asarray(fmt.quantize(x, axis=1)))
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
    if int(_bit_width(result)) == 1 and result.signed:
        encoding: Format | None = Binary(frac)  # plus and minus one times the scale
        fmt = encoded_format(result.value.detach().double().numpy(), isinstance(frac, tuple))
    else:
        encoding, fmt = None, _integer_format(proxy, result, frac, strict=False)
    codes = codes_at(result.value.detach().double().numpy(), fmt.frac)  # type: ignore[arg-type]
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
    if not isinstance(result, QuantTensor):
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
    if not isinstance(result, IntQuantTensor):
        kind = type(result).__name__.removesuffix("QuantTensor")
        raise Refused(
            f"quantizes to {kind.lower()} numbers; supported are integers with one scale per tensor or "
            "channel"
        )
    widths = {float(w) for w in result.bit_width.reshape(-1)}
    if len(widths) != 1 or not (width := widths.pop()).is_integer() or not 1 <= width <= MAX_WIDTH:
        raise Refused(
            f"bit width {result.bit_width.tolist()}; supported is one whole number, 1 to {MAX_WIDTH}"
        )
    return width


def _points(result: Any, axis: int, channels: int) -> int | tuple[int, ...]:
    """Binary points from the scale; one, or one per channel along ``axis``."""
    _bit_width(result)
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


def _bipolar(tensor_quant: Any, result: Any, frac: int | tuple[int, ...], path: str) -> list[Step]:
    scales = np.ldexp(1.0, -np.asarray(frac)).reshape(-1)

    def expected(x: np.ndarray) -> np.ndarray:
        return np.where(x >= 0, 1.0, -1.0) * scales.reshape(1, -1, *(1,) * (x.ndim - 2))

    _probe(tensor_quant, result, FixedPoint(2, frac), expected)
    return [Step(Cast(Binary(frac)), path)]


def _probe(
    tensor_quant: Any, result: Any, fmt: FixedPoint, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Run the quantizer where formats differ and compare.

    Raises:
        Refused: it does something else than its attributes say.
    """
    low, high = fmt.code_min, fmt.code_max
    if high - low < 1 << 12:
        codes = np.arange(low - 3, high + 4)
    else:
        spread = np.random.default_rng(0).integers(low, high, 500, endpoint=True)
        codes = np.concatenate([np.arange(-8, 9), low + np.arange(-3, 4), high + np.arange(-3, 4), spread])
    # Quarters tell rounding modes apart; a float32 model cannot hold them above 20 bits, and then they are
    # other numbers of the same kind.
    steps = (codes[:, None] + np.array([-0.5, -0.25, 0.0, 0.25, 0.5])).reshape(-1)
    rank = result.value.ndim
    fracs = np.asarray(fmt.frac).reshape(-1)
    x = np.ldexp(steps[:, None], -fracs[None, :]).reshape(len(steps), len(fracs), *(1,) * (rank - 2))
    dtype = result.value.dtype
    given = torch.from_numpy(x).to(dtype)
    with torch.no_grad():
        found = tensor_quant(given)[0].double().numpy()
    wanted = expected(given.double().numpy())
    if found.shape != wanted.shape or (found != wanted).any():
        place = np.argwhere(found != wanted)[0] if found.shape == wanted.shape else ()
        example = ""
        if len(place):
            at = tuple(place)
            number = float(given.double().numpy()[at])
            example = f": {number:g} becomes {found[at]:g}, not {wanted[at]:g}"
        raise Refused(
            f"does not quantize as its attributes say ({fmt}){example}; use a quantizer of brevitas.quant"
        )
