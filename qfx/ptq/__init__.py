"""Post-training quantization: methods that make a quantized network of a float one with a little data.

Each method is a function from a prepared model to a new one, ``method(q, batches, options)``, and can be used
alone; :func:`quantize` applies a list of them.
"""

from qfx.ptq.batch_norm import BatchNorm, reestimate_batch_norm
from qfx.ptq.best import best
from qfx.ptq.bias_correction import BiasCorrection, correct_bias
from qfx.ptq.calibration import Calibration, calibrate
from qfx.ptq.equalization import Equalization, equalize
from qfx.ptq.filling import RangeFilling, fill_ranges
from qfx.ptq.gptq import GPTQ, gptq
from qfx.ptq.quantize import DEFAULT, METHODS, Method, quantize
from qfx.ptq.ranges import RangeSearch, search_ranges
from qfx.ptq.rounding import LearnedRounding, learn_rounding
from qfx.ptq.search import FormatSearch, search_formats
from qfx.ptq.smooth import ActivationEqualization, equalize_activations

__all__ = [
    "DEFAULT",
    "GPTQ",
    "METHODS",
    "ActivationEqualization",
    "BatchNorm",
    "BiasCorrection",
    "Calibration",
    "Equalization",
    "FormatSearch",
    "LearnedRounding",
    "Method",
    "RangeFilling",
    "RangeSearch",
    "best",
    "calibrate",
    "correct_bias",
    "equalize",
    "equalize_activations",
    "fill_ranges",
    "gptq",
    "learn_rounding",
    "quantize",
    "reestimate_batch_norm",
    "search_formats",
    "search_ranges",
]
