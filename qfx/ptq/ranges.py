"""Search of activation ranges by the error of the whole network's result.

What clipping costs is not seen in the tensor itself: a few large numbers may decide the result. So each cast
is tried alone, in the float network, at a few positions of its binary point, and the result is compared. The
idea of measuring at the output is that of Y. Nahshan et al., "Loss Aware Post-Training Quantization",
arXiv:1911.07190; there the scales are real numbers and found together, here there are a handful of positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from qfx.errors import QfxError
from qfx.learn.calibrate import calibrate_biases
from qfx.learn.model import QuantizedModel
from qfx.nn.functional import cast
from qfx.nn.module import Again
from qfx.nn.quantizer import Quantizer
from qfx.ptq.calibration import is_learned
from qfx.ptq.progress import shown
from qfx.ptq.regions import shapes_of
from qfx.ptq.walk import Batches, changed, copied, float_network, inputs

#: A range is only searched for by its effect on the result when so many numbers of the tensor were seen.
ENOUGH = 1 << 13
#: More samples than asked for are taken to see that many, up to this number.
_MOST_SAMPLES = 64


@dataclass(frozen=True)
class RangeSearch:
    """Options of :func:`search_ranges`.

    Args:
        samples: the first so many samples are used, more (at most 64) where a tensor has so few numbers that
            these would show little of its range; each cast costs two to four passes through what follows.
        reach: positions to try on either side of the present one.
    """

    samples: int = 16
    reach: int = 2

    def __post_init__(self) -> None:
        if self.samples < 1 or self.reach < 1:
            raise QfxError(f"RangeSearch: samples and reach must be at least 1, found {self}")


@torch.no_grad()
def search_ranges(
    q: QuantizedModel,
    batches: Batches,
    options: RangeSearch | None = None,
    *,
    reference: QuantizedModel | None = None,
    progress: bool = True,
) -> QuantizedModel:
    """A copy in which the binary point of every activation is where the network's result suffers least.

    From the present position, upwards and downwards as long as the squared error of the result shrinks.
    Frozen binary points and those with one per channel stay. Where few numbers of a tensor were seen, the
    largest that others may be expected to be (:func:`expected_end`) counts too: a range that clips it by more
    than the whole error of those that were seen is not taken.

    Args:
        q: a calibrated prepared model.
        batches: batches of inputs, or ``(inputs, ...)`` tuples.
        options: see :class:`RangeSearch`.
        reference: see :func:`qfx.ptq.quantize`.
        progress: show a bar.

    Raises:
        QfxError: bad data, a model that is not calibrated.
    """
    options = RangeSearch() if options is None else options
    result = copied(q)
    x = enough(result, torch.cat(inputs(result, batches)), options.samples)
    model = float_network(q if reference is None else reference)
    for _, here, error in casts_alone(result, model, x, "search of ranges", progress):
        frac = here._frac()
        assert isinstance(frac, int)
        move(here, descend(error, frac, options.reach))
    return changed(calibrate_biases(result))


def casts_alone(
    q: QuantizedModel, model: QuantizedModel, x: torch.Tensor, label: str, progress: bool
) -> Iterator[tuple[int, Quantizer, Callable[[float], float]]]:
    """Every cast of ``q`` with one binary point that is not frozen: its step, the cast, and what it does
    alone in the float network ``model``: a function from a binary point, which need not be an integer, to the
    squared error of the network's result for ``x``, infinite where too much of what was not seen would be
    clipped (:func:`search_ranges`). It holds until the next is taken.

    Raises:
        QfxError: a cast that is not calibrated.
    """
    steps = list(model._qfx_items())
    last = {i: n for n, (step, _) in enumerate(steps) for i in step.inputs}
    shared = {id(m.module) for m in q.modules() if isinstance(m, Again)}

    def run(values: dict[int, torch.Tensor], first: int) -> torch.Tensor:
        for n in range(first, len(steps)):
            step, module = steps[n]
            values[n] = module(*(values[i] for i in step.inputs)) if step.inputs else module(x)
            for i in step.inputs:
                if last[i] == n:
                    values.pop(i, None)
        return values[len(steps) - 1]

    wanted = run({}, 0)
    live: dict[int, torch.Tensor] = {}
    for n in shown(range(len(steps)), label, progress):
        step, module = steps[n]
        live[n] = module(*(live[i] for i in step.inputs)) if step.inputs else module(x)
        here = q.get_submodule(step.target)
        for i in step.inputs:
            if last[i] == n:
                live.pop(i, None)
        if not isinstance(here, Quantizer) or here.channels > 1 or not is_learned(here) or id(here) in shared:
            continue

        expected = expected_end(live[n], here.fmt.signed)

        def error(frac: float, n: int = n, here: Quantizer = here, expected: float = expected) -> float:
            values = dict(live)
            values[n] = cast(live[n].clone(), 2.0**frac, here.fmt)
            clipped = expected - float(here.fmt.integer_max) * 2.0**-frac
            if clipped > 0.0 and clipped**2 > float((values[n] - live[n]).square().sum()):
                return math.inf
            return float((run(values, n + 1) - wanted).square().sum())

        yield n, here, error


def enough(q: QuantizedModel, x: torch.Tensor, samples: int) -> torch.Tensor:
    """The first samples of ``x``: as many as asked for, or more for tensors with few numbers per sample."""
    shapes = shapes_of(q, x[:1])
    casts = [n for n, (_, module) in enumerate(q._qfx_items()) if isinstance(module, Quantizer)]
    smallest = min((math.prod(shapes[n]) for n in casts), default=ENOUGH)
    return x[: max(samples, min(_MOST_SAMPLES, math.ceil(ENOUGH / max(1, smallest))))]


def expected_end(x: torch.Tensor, signed: bool) -> float:
    """How large a number is to be expected of a tensor of which only ``x`` was seen. With thousands of them,
    what clipping costs can be seen: 0. With fewer, others exceed the largest: of ``n`` numbers with a normal
    distribution it grows with ``sqrt(log(n))``."""
    count = x.numel()
    if count >= ENOUGH or not count:
        return 0.0
    largest = float((x.abs() if signed else x).amax())
    return max(0.0, largest) * math.sqrt(math.log(ENOUGH) / math.log(max(2, count)))


def move(cast: Quantizer, frac: int) -> None:
    """Put a cast's binary point elsewhere; what it knows of its numbers stays."""
    cast.set(frac, cast.rms.tolist() if cast.gaps else None)


def descend(error: Callable[[float], float], start: int, reach: int) -> int:
    """The position of the smallest error that is reached from ``start`` without going up, at most ``reach``
    away."""
    least, best = error(start), start
    for direction in (-1, 1):
        for distance in range(1, reach + 1):
            here = error(start + direction * distance)
            if here >= least:
                break
            least, best = here, start + direction * distance
        if best != start:
            break
    return best
