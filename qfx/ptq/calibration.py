"""Calibration: where the range of a format is put, by one of four rules.

Sources: max, percentile and entropy: S. Migacz, "8-bit Inference with TensorRT", GTC 2017; H. Wu et al.,
"Integer Quantization for Deep Learning Inference", arXiv:2004.09602, section 3.3. Mean squared error: the
same as :func:`qfx.calibrate`. Here a range is a power of two times that of the format, so that few candidates
are left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.learn.calibrate import Chooser, calibrate_biases, observe
from qfx.learn.model import QuantizedModel
from qfx.nn.functional import cast
from qfx.nn.observer import best_frac, default_frac
from qfx.nn.quantizer import Quantizer
from qfx.nn.weighted import QuantWeighted, place
from qfx.ptq.walk import Batches, changed, copied, inputs

METHODS = ("max", "percentile", "mse", "entropy")
#: Bins of the histogram whose entropy is compared, and positions beyond the one that clips nothing: TensorRT,
#: too, tries no range below a sixteenth. (A range of a single bin keeps its distribution, of course.)
_BINS = 2048
_POSITIONS = 4


@dataclass(frozen=True)
class Calibration:
    """Options of :func:`calibrate`.

    Args:
        activation: ``"max"``: nothing that was seen is clipped. ``"percentile"``: at most ``100 -
            percentile`` per cent of the numbers are. ``"mse"``: the smallest squared error. ``"entropy"``:
            the smallest Kullback-Leibler divergence of the distribution after the cast from the one before.
        weight: likewise, for weights.
        percentile: between 0 and 100.

    Whether there is one range per tensor or per output channel is said by the config (``per_channel``).
    """

    activation: str = "mse"
    weight: str = "mse"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        for name, value in (("activation", self.activation), ("weight", self.weight)):
            if value not in METHODS:
                raise QfxError(f"Calibration: unknown {name} {value!r}; known are {', '.join(METHODS)}")
        if not 0 < self.percentile <= 100:
            raise QfxError(f"Calibration: percentile must lie in (0, 100], found {self.percentile}")


def calibrate(
    q: QuantizedModel,
    batches: Batches,
    options: Calibration | None = None,
    *,
    reference: QuantizedModel | None = None,
    progress: bool = True,
) -> QuantizedModel:
    """A copy with every binary point that is not frozen put by a rule.

    Args:
        q: a prepared model, calibrated or not.
        batches: batches of inputs, or ``(inputs, ...)`` tuples.
        options: the rules.
        reference: not used.
        progress: show a bar.

    Raises:
        QfxError: bad data.
    """
    options = Calibration() if options is None else options
    result = copied(q)
    data = inputs(result, batches)
    for step, module in result._qfx_items():
        module.check(step.path)
        module.calibrate_weight()
        if isinstance(module, QuantWeighted) and options.weight != "mse":  # that it has by now
            place_weight(module, chooser(options.weight, options.percentile))
    observe(result, data, progress, chooser(options.activation, options.percentile))
    return changed(calibrate_biases(result))


def chooser(method: str, percentile: float = 99.99) -> Chooser:
    """The rule of a name: from a format and samples (float64, one axis) to a binary point, or ``None`` when
    all samples are 0."""
    if method == "mse":
        return best_frac
    if method == "entropy":
        return entropy_frac
    if method == "max":
        return widest_frac
    share = percentile / 100

    def choose(fmt: Format, samples: torch.Tensor) -> int | None:
        return covering_frac(fmt, samples, share)

    return choose


@torch.no_grad()
def place_weight(layer: QuantWeighted, choose: Chooser) -> None:
    """Put the binary points of a layer's weight by a rule, unless they are frozen."""
    quantizer = layer.weight_quantizer
    if quantizer.frozen or not quantizer.fmt.has_point:
        return
    rows = layer.weight.detach().double().cpu().reshape(quantizer.channels, -1)
    if choose is widest_frac:
        fracs = covering_fracs(quantizer.fmt, rows)
    else:
        fracs = [choose(quantizer.fmt, row) for row in rows]
    place(quantizer, [default_frac(quantizer.fmt) if f is None else f for f in fracs], rows)


def covering_frac(fmt: Format, samples: torch.Tensor, share: float = 1.0) -> int | None:
    """The largest binary point at which a share of the samples lies inside the range.

    A sample is inside when it is rounded, not clipped: up to half a step beyond the largest number.
    """
    samples = samples[torch.isfinite(samples)]
    if samples.numel() == 0 or not bool(samples.any()):
        return None
    low, high = fmt.pass_range
    if not fmt.signed:
        samples = samples[samples >= 0]  # the others become 0 wherever the range is
    # From where on each sample is clipped: never, for zeros.
    room = torch.full_like(samples, math.inf)
    above, below = samples > 0, samples < 0
    room[above] = high / samples[above]
    room[below] = low / samples[below]
    finite = room[torch.isfinite(room)].sort().values
    if not len(finite):
        return None
    limit = float(finite[min(int((1.0 - share) * len(room)), len(finite) - 1)])
    frac = math.floor(math.log2(limit))
    # At exactly half a step rounding may go up: the bound itself is outside.
    return frac - 1 if 2.0**frac == limit else frac


def widest_frac(fmt: Format, samples: torch.Tensor) -> int | None:
    """The largest binary point that clips nothing."""
    return covering_frac(fmt, samples)


def covering_fracs(fmt: Format, rows: torch.Tensor) -> list[int | None]:
    """:func:`widest_frac` of every row, float64 ``(channels, n)``, all rows at once; finite numbers."""
    low, high = fmt.pass_range
    room = torch.full((len(rows),), math.inf, dtype=torch.float64)
    most, least = rows.amax(1).double().cpu(), rows.amin(1).double().cpu()
    room[most > 0] = high / most[most > 0]
    if fmt.signed:
        below = least < 0
        room[below] = torch.minimum(room[below], low / least[below])
    found: list[int | None] = []
    for limit in room.tolist():
        frac = math.floor(math.log2(limit)) if math.isfinite(limit) else None
        found.append(frac - 1 if frac is not None and 2.0**frac == limit else frac)
    return found


def entropy_frac(fmt: Format, samples: torch.Tensor) -> int | None:
    """The binary point that keeps the most of the distribution: the smallest Kullback-Leibler divergence.

    As in TensorRT: a histogram; what lies beyond the range is added to the last bin inside; the numbers that
    are cast to the same number share their bins evenly, among those that are not empty. Zeros are left out:
    they are exact at every position, and the many behind a ReLU, shared with what is cast to 0 beside them,
    would favour the smallest range there is.
    """
    samples = samples[torch.isfinite(samples) & (samples != 0)]
    widest = covering_frac(fmt, samples)
    if widest is None:
        return None
    low, high = float(samples.min()), float(samples.max())
    if low == high:
        return best_frac(fmt, samples)
    counts = torch.histc(samples, _BINS, low, high)
    width = (high - low) / _BINS
    centres = low + width * (torch.arange(_BINS, dtype=samples.dtype) + 0.5)
    divergences = {}
    for frac in range(widest, widest + _POSITIONS + 1):
        divergences[frac] = _divergence(fmt, frac, centres, counts)
    return min(divergences, key=lambda f: (divergences[f], f))


def _divergence(fmt: Format, frac: int, centres: torch.Tensor, counts: torch.Tensor) -> float:
    low, high = (end * 2.0**-frac for end in fmt.pass_range)
    inside = (centres >= low) & (centres <= high)
    if not bool(inside.any()):
        return math.inf
    first, last = int(inside.nonzero()[0]), int(inside.nonzero()[-1])
    kept = counts[first : last + 1]
    before = kept.clone()
    before[0] += counts[:first].sum()
    before[-1] += counts[last + 1 :].sum()
    _, cells = torch.unique(cast(centres[first : last + 1].clone(), 2.0**frac, fmt), return_inverse=True)
    full = (kept > 0).to(kept.dtype)
    sums = torch.zeros(int(cells.max()) + 1, dtype=kept.dtype)
    shares = sums.clone().index_add_(0, cells, full).clamp(min=1.0)
    after = (sums.index_add_(0, cells, kept) / shares)[cells] * full
    if not bool(after.any()):
        return math.inf
    p, r = before / before.sum(), after / after.sum()
    here = p > 0
    # A bin that only holds what was clipped has no mass after the cast: as if it had a thousandth of a
    # sample.
    return float((p[here] * (p[here] / r[here].clamp(min=1e-3 / float(counts.sum()))).log()).sum())


def is_learned(quantizer: Quantizer) -> bool:
    """Whether calibration may place a quantizer."""
    return quantizer.fmt.has_point and not quantizer.frozen
