"""From an ordinary torch module to the frozen integer graph: configure, prepare, calibrate, train, freeze."""

from qfx.learn.calibrate import calibrate
from qfx.learn.config import Config
from qfx.learn.freeze import freeze
from qfx.learn.groups import freeze_points, parameter_groups, quantizers
from qfx.learn.model import QuantizedModel
from qfx.learn.prepare import prepare

__all__ = [
    "Config",
    "QuantizedModel",
    "calibrate",
    "freeze",
    "freeze_points",
    "parameter_groups",
    "prepare",
    "quantizers",
]
