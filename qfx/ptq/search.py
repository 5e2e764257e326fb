"""Search of formats: the split of a minifloat into exponent and mantissa, and the range, by the error they
cause.

Sources: S. Liu et al., "LLM-FP4: 4-Bit Floating-Point Quantized Transformers", arXiv:2310.16836, section 4.1
(search of exponent bits and of the clipping range by the error of the layer's result) and 4.2 (exponent
biases per channel); X. Wu et al., "ZeroQuant-FP", arXiv:2307.09782, section 3 (scales that are powers of two:
here they always are; within a layer they may be kept close to each other, so that one shift of a few bits
aligns them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.minifloat import Minifloat
from qfx.learn.calibrate import calibrate_biases
from qfx.learn.model import QuantizedModel
from qfx.nn.functional import cast
from qfx.nn.module import Again
from qfx.nn.observer import default_frac
from qfx.nn.quantizer import InputQuantizer, Quantizer
from qfx.nn.weighted import QuantWeighted, sizes
from qfx.ptq.calibration import covering_frac, covering_fracs, is_learned
from qfx.ptq.layerwise import Problem, Reconstruction
from qfx.ptq.matrices import objective
from qfx.ptq.ranges import expected_end
from qfx.ptq.walk import Batches, Visit, changed, copied, inputs, replace_module, walk

#: Numbers of an activation that are looked at.
_SAMPLES = 1 << 15


@dataclass(frozen=True)
class FormatSearch(Reconstruction):
    """Options of :func:`search_formats`.

    Args:
        weight, activation: search there; the network's input is an activation.
        splits: exponent bits to try in minifloats whose bias is learned, without ``specials``; all that leave
            the width as it is when ``None``; ``()`` leaves formats as they are and searches ranges only.
        clip: positions of the binary point to try beyond the one that clips nothing.
        spread: of weights with a binary point per channel: how far apart those of a layer may lie; ``None``
            for no limit.
        Others as in :class:`Reconstruction`: how errors of a layer's result are measured.
    """

    weight: bool = True
    activation: bool = True
    splits: Sequence[int] | None = None
    clip: int = 3
    spread: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip < 0 or (self.spread is not None and self.spread < 0):
            raise QfxError(f"FormatSearch: clip and spread must not be negative, found {self}")


def search_formats(
    q: QuantizedModel,
    batches: Batches,
    options: FormatSearch | None = None,
    *,
    reference: QuantizedModel | None = None,
    progress: bool = True,
) -> QuantizedModel:
    """A copy in which every weight and activation has the split and the binary points of the smallest error.

    Layer by layer: for a weight, the error of the layer's result after rounding to the nearest, summed over
    all channels for a split, per channel for a binary point. For an activation, the squared error of the
    cast of what the float network has there, and of the largest number to be expected where few were seen
    (:func:`qfx.ptq.ranges.expected_end`). Frozen binary points stay, and so do formats of other families
    than minifloats.

    Args:
        q: a calibrated prepared model.
        batches: batches of inputs, or ``(inputs, ...)`` tuples.
        options: see :class:`FormatSearch`.
        reference: see :func:`qfx.ptq.quantize`.
        progress: show a bar.

    Raises:
        QfxError: bad data, a model that is not calibrated.
    """
    options = FormatSearch() if options is None else options
    result = copied(q)
    data = inputs(result, batches)
    repeated = {id(m.module) for m in result.modules() if isinstance(m, Again)}
    for visit in walk(result, data, reference, label="search of formats", progress=progress):
        module = visit.module
        if isinstance(module, QuantWeighted) and options.weight and is_learned(module.weight_quantizer):
            _weight(visit, options)
        elif isinstance(module, Quantizer) and options.activation and is_learned(module):
            if id(module) not in repeated and module.channels == 1:
                _activation(result, visit, options)
    return changed(calibrate_biases(result))


def splits_of(fmt: Format, wanted: Sequence[int] | None) -> list[Format]:
    """A format and its siblings of the same width: other exponent bits, as many mantissa bits fewer."""
    if not isinstance(fmt, Minifloat) or fmt.specials != "none":
        return [fmt]
    bits = fmt.exponent_bits + fmt.mantissa_bits
    # No exponent bits is sign and magnitude; one behaves almost like that.
    candidates = range(min(bits, 5) + 1) if wanted is None else wanted
    found: list[Format] = [fmt]
    for exponent in candidates:
        if 0 <= exponent <= bits and exponent != fmt.exponent_bits and bits - exponent <= 10:
            found.append(replace(fmt, exponent_bits=exponent, mantissa_bits=bits - exponent, bias=None))
    return found


@torch.no_grad()
def _weight(visit: Visit, options: FormatSearch) -> None:
    layer = visit.module
    assert isinstance(layer, QuantWeighted)
    problem = Problem.of(visit, options)
    old = layer.weight_quantizer
    weight = layer.weight.detach().double()
    rows = weight.reshape(len(weight), -1)
    best: tuple[float, Format, list[int]] | None = None
    for fmt in splits_of(old.fmt, options.splits):
        samples = rows if old.channels > 1 else rows.reshape(1, -1)
        fits = covering_fracs(fmt, samples)
        known = [f for f in fits if f is not None]
        start = torch.tensor([min(known, default=default_frac(fmt)) if f is None else f for f in fits])
        errors = []
        for shift in range(-1, options.clip + 1):
            scale = torch.exp2((start + shift).double()).reshape(-1, 1).to(rows.device)
            cast_rows = cast(rows.clone(), scale, fmt).reshape(problem.weights.shape)
            errors.append(objective(cast_rows, problem.target, problem.hessian).reshape(-1))
        table = torch.stack(errors)  # (positions, rows)
        if old.channels == 1:
            table = table.sum(1, keepdim=True)
        fracs = start + table.argmin(0).cpu() - 1
        if options.spread is not None:
            fracs = fracs.clamp(max=int(fracs.min()) + options.spread)
            table = table.gather(
                0, (fracs - start + 1).clamp(0, len(table) - 1).to(table.device).unsqueeze(0)
            )
        total = float(table.min(0).values.sum())
        if best is None or total < best[0]:
            best = (total, fmt, [int(f) for f in fracs])
    assert best is not None
    _, fmt, found = best
    layer.weight_quantizer = _renewed(old, fmt, found, rows if old.channels > 1 else rows.reshape(1, -1))


@torch.no_grad()
def _activation(q: QuantizedModel, visit: Visit, options: FormatSearch) -> None:
    old = visit.module
    assert isinstance(old, Quantizer)
    # Not the quantized network's numbers: where weights have few bits these are further from the float ones
    # than any cast could bring them, and what clips most would look best because it shrinks them.
    x = torch.cat([operands[0].reshape(-1) for operands in visit.float_operands])
    expected = expected_end(x, old.fmt.signed)
    # The extremes stay in: a random sample would miss them, and clipping nothing would not be tried.
    extremes = torch.stack([x.amin(), x.amax()]).double().cpu()
    if len(x) > _SAMPLES:
        picked = torch.randint(len(x), (_SAMPLES,), generator=torch.Generator().manual_seed(0)).to(x.device)
        x = x[picked]
    x = x.double().cpu()
    if expected > 0.0:
        x = torch.cat([x, torch.tensor([expected if x.amax() >= -x.amin() else -expected]).double()])
    best: tuple[float, Format, int] | None = None
    for fmt in splits_of(old.fmt, options.splits):
        start = covering_frac(fmt, torch.cat([x, extremes]))
        if start is None:
            return
        for frac in range(start - 1, start + options.clip + 1):
            error = float((cast(x.clone(), 2.0**frac, fmt) - x).square().sum())
            if best is None or error < best[0]:
                best = (error, fmt, frac)
    assert best is not None
    new = _renewed(old, best[1], [best[2]], x.reshape(1, -1))
    if new is not old:
        replace_module(q, visit.step.target, new)
    visit.module = new


def _renewed(old: Quantizer, fmt: Format, fracs: list[int], rows: torch.Tensor) -> Quantizer:
    """The quantizer itself, or one of another format, at new binary points."""
    quantizer = old
    if fmt != old.fmt:
        if isinstance(old, InputQuantizer):
            quantizer = InputQuantizer(fmt, old.shape, old.channels)
        else:
            quantizer = Quantizer(fmt, old.channels, old.axis, old.estimator)
        quantizer.to(old.start.device)
        quantizer.train(old.training)
    quantizer.set(fracs[0] if quantizer.channels == 1 else fracs, sizes(rows.cpu()))
    return quantizer
