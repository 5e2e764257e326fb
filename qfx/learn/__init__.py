"""From an ordinary torch module to the frozen integer graph: configure, prepare, calibrate, train, freeze."""

from qfx.learn.calibrate import calibrate
from qfx.learn.checkpoint import load_checkpoint, save_checkpoint
from qfx.learn.config import Config
from qfx.learn.distributed import average_points, points
from qfx.learn.freeze import freeze
from qfx.learn.front import Front, front
from qfx.learn.groups import freeze_points, parameter_groups, quantizers
from qfx.learn.model import QuantizedModel
from qfx.learn.prepare import prepare
from qfx.learn.resource import EBOPs, MeasuredCost, ResourceLoss, ResourceModel, resource_loss
from qfx.learn.width import Widths, widths

__all__ = [
    "Config",
    "EBOPs",
    "Front",
    "MeasuredCost",
    "QuantizedModel",
    "ResourceLoss",
    "ResourceModel",
    "Widths",
    "average_points",
    "calibrate",
    "freeze",
    "freeze_points",
    "front",
    "load_checkpoint",
    "parameter_groups",
    "points",
    "prepare",
    "quantizers",
    "resource_loss",
    "save_checkpoint",
    "widths",
]
