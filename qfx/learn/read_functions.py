"""Readers of activation functions that become tables: sigmoid, tanh, GELU, SiLU, exp, ..."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from qfx.approx import Real
from qfx.learn.operations import Context, Expansion, Operation, Reader, Refusal, register

_Parameters = Callable[[Context, dict[str, Any]], tuple[float, ...]]


def _function(name: str, *parameters: str) -> Reader:
    """A reader of a function whose parameters are arguments of these names."""

    def reader(c: Context, a: dict[str, Any]) -> Operation:
        values = []
        for parameter in parameters:
            if parameter not in a:
                break
            values.append(float(c.constant(a[parameter])))
        return Operation("function", [c.dynamic(a["input"])], {"function": Real(name, tuple(values))})

    return reader


def _module(name: str, *parameters: str) -> Reader:
    """A reader of a module whose parameters are attributes of these names."""

    def reader(c: Context, a: dict[str, Any]) -> Operation:
        values = tuple(float(getattr(a["module"], p)) for p in parameters)
        return Operation("function", [c.dynamic(a["input"])], {"function": Real(name, values)})

    return reader


def _gelu(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node | Expansion:
    how = c.constant(a.get("approximate", "none"))
    return _function("gelu" if how == "none" else "gelu_tanh")(c, a)


def _gelu_module(c: Context, a: dict[str, Any]) -> Operation | torch.fx.Node | Expansion:
    return _gelu(c, {"input": a["input"], "approximate": a["module"].approximate})


def _prelu(c: Context, a: dict[str, Any]) -> Operation:
    slope = c.constant(a["weight"]) if "weight" in a else a["module"].weight
    if slope.numel() != 1:
        raise Refusal("PReLU with a slope per channel is not supported; use num_parameters=1 or LeakyReLU")
    return Operation("leaky_relu", [c.dynamic(a["input"])], {"slope": float(slope.detach())})


_PLAIN = {
    "sigmoid": (nn.Sigmoid, (torch.sigmoid, F.sigmoid, torch.special.expit)),
    "tanh": (nn.Tanh, (torch.tanh, F.tanh)),
    "silu": (nn.SiLU, (F.silu,)),
    "mish": (nn.Mish, (F.mish,)),
    "softsign": (nn.Softsign, (F.softsign,)),
    "logsigmoid": (nn.LogSigmoid, (F.logsigmoid,)),
    "hardsigmoid": (nn.Hardsigmoid, (F.hardsigmoid,)),
    "hardswish": (nn.Hardswish, (F.hardswish,)),
    "selu": (nn.SELU, (F.selu, torch.selu)),
    "abs": (None, (torch.abs, torch.absolute, abs)),
    "exp": (None, (torch.exp,)),
    "log": (None, (torch.log,)),
    "sqrt": (None, (torch.sqrt,)),
    "rsqrt": (None, (torch.rsqrt,)),
    "reciprocal": (None, (torch.reciprocal,)),
    "erf": (None, (torch.erf, torch.special.erf)),
    "sin": (None, (torch.sin,)),
    "cos": (None, (torch.cos,)),
}
_METHODS = (
    "sigmoid", "tanh", "abs", "absolute", "exp", "log", "sqrt", "rsqrt", "reciprocal", "erf", "sin", "cos",
)  # fmt: skip

_modules: dict[type, Reader] = {
    nn.GELU: _gelu_module,
    nn.ELU: _module("elu", "alpha"),
    nn.CELU: _module("celu", "alpha"),
    nn.Softplus: _module("softplus", "beta", "threshold"),
    nn.PReLU: _prelu,
}
_functions: dict[Any, tuple[Reader, str]] = {
    F.gelu: (_gelu, "input approximate"),
    F.elu: (_function("elu", "alpha"), "input alpha inplace"),
    F.celu: (_function("celu", "alpha"), "input alpha inplace"),
    torch.celu: (_function("celu", "alpha"), "input alpha"),
    F.softplus: (_function("softplus", "beta", "threshold"), "input beta threshold"),
}
_methods: dict[str, tuple[Reader, str]] = {}
for _name, (_type, _targets) in _PLAIN.items():
    if _type is not None:
        _modules[_type] = _module(_name)
    for _target in _targets:
        _functions[_target] = (_function(_name), "input inplace")
for _name in _METHODS:
    _reader = _function("abs" if _name == "absolute" else _name)
    _methods[_name] = _methods[f"{_name}_"] = (_reader, "input")

register(_modules, _functions, _methods)
