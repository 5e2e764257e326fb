"""The combination of methods that did best in the benchmark, by the formats of a model.

Chosen by the noise of the network's result on images of their own (docs/results.md, post-training
quantization).
"""

from __future__ import annotations

from typing import Any

from qfx.formats.minifloat import Minifloat
from qfx.learn.model import QuantizedModel
from qfx.nn.quantizer import InputQuantizer, Quantizer
from qfx.nn.weighted import QuantWeighted
from qfx.ptq.equalization import Equalization
from qfx.ptq.filling import RangeFilling
from qfx.ptq.ranges import RangeSearch
from qfx.ptq.rounding import LearnedRounding
from qfx.ptq.search import FormatSearch


def best(q: QuantizedModel) -> tuple[Any, ...]:
    """Options of the methods to apply, in order, for the formats that a prepared model has.

    Equalization comes first and rounding last (the better of nearest and GPTQ, then single weights up or
    down). In between ranges are filled, which places all binary points; minifloats get their splits before,
    and those of scaled weights after. Filling costs weights some accuracy: of minifloats, whose wide range
    makes less of it, where weights have fewer bits than activations, ranges are searched instead.
    """
    modules = [module for _, module in q._qfx_items()]
    weights = [m.weight_quantizer.fmt for m in modules if isinstance(m, QuantWeighted)]
    # The network's input and result may have formats of their own.
    casts = [m.fmt for m in modules if isinstance(m, Quantizer) and not isinstance(m, InputQuantizer)]
    minifloats = [fmt.width for fmt in casts if isinstance(fmt, Minifloat)]
    rounding = LearnedRounding(steps=0)
    if not minifloats:
        return Equalization(), RangeFilling(), FormatSearch(activation=False), rounding
    if max((w.width for w in weights), default=0) < max(minifloats):
        return Equalization(), FormatSearch(), RangeSearch(samples=8), rounding
    return Equalization(), FormatSearch(), RangeFilling(), FormatSearch(activation=False), rounding
