"""Trainable quantizers, and the quantized operators that a prepared model is made of.

Models are made of these by :func:`qfx.prepare`; they can also be used by hand.
"""

from qfx.nn.affine import QuantAffine, QuantBatchNorm
from qfx.nn.bound import Bound, exact_dtype
from qfx.nn.elementwise import QuantBinary, QuantClip, QuantConcat, QuantLeakyReLU, QuantReLU
from qfx.nn.estimators import ESTIMATORS
from qfx.nn.module import Exact, QuantModule
from qfx.nn.pool import QuantAvgPool, QuantMaxPool
from qfx.nn.quantizer import InputQuantizer, Quantizer
from qfx.nn.shape import QuantReshape, QuantTranspose
from qfx.nn.weighted import QuantConv, QuantLinear

__all__ = [
    "ESTIMATORS",
    "Bound",
    "Exact",
    "InputQuantizer",
    "QuantAffine",
    "QuantAvgPool",
    "QuantBatchNorm",
    "QuantBinary",
    "QuantClip",
    "QuantConcat",
    "QuantConv",
    "QuantLeakyReLU",
    "QuantLinear",
    "QuantMaxPool",
    "QuantModule",
    "QuantReLU",
    "QuantReshape",
    "QuantTranspose",
    "Quantizer",
    "exact_dtype",
]
