"""Readers of softmax and of the layers that normalise each sample: LayerNorm, RMSNorm, GroupNorm.

Softmax: ``m`` the largest number of a row, ``e = exp(x - m)`` from a table, ``e / sum(e)``. The sum is exact
and at least 1, since the largest element gives exactly 1; its inverse takes the leading bits of the sum.

LayerNorm of ``n`` numbers: ``d = n x - sum(x)`` is ``n`` times the distance from the mean, exactly; with
``V = sum(d**2)`` the result is ``d * sqrt(n) / sqrt(V + n**3 eps)``. RMSNorm: ``V = sum(x**2)`` and
``x * sqrt(n) / sqrt(V + n eps)``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from qfx.approx import Real
from qfx.formats.fixed import FixedPoint
from qfx.learn.layers import Node, Sketch, derived, wider
from qfx.learn.operations import Context, Expansion, Reader, Refusal, register
from qfx.learn.read_arrays import axis_of

# -- softmax -------------------------------------------------------------------------------------------------


def softmax(s: Sketch, x: Node, axis: int, name: str, allowed: torch.Tensor | None = None) -> Node:
    """The operations of a softmax along an axis (from 0, the batch apart).

    Args:
        name: of the last operation; the others hang below the sketch's prefix.
        allowed: booleans that broadcast against ``x`` without the batch: places that are not allowed get 0
            and count for nothing. ``None``: all are.
    """
    candidates = x
    if allowed is not None:
        # Far below every number that can occur; exact, so that allowed numbers stay what they are.
        low = torch.where(allowed, 0.0, -float(1 << _FAR))
        constant = s.constant(low, "mask", FixedPoint(2, -_FAR))
        candidates = s.binary("add", x, s.like(constant, x), "masked", exact=True)
    largest = s.like(s.reduce("reduce_max", candidates, (axis,), "max", exact=True), x)
    distance = s.binary("sub", largest, x, "distance", exact=True)
    # Not negative where it counts, and exp(-31) is 0 in every format: the table need not go on.
    limits = {"low": 0.0, "high": _FARTHEST}
    distance = s.put("clip", [distance], limits, s.size(x), "distance", exact=True)
    e = s.function(distance, Real("exp_negative"), "exp", format=wider(4, signed=False, integer_bits=1))
    if allowed is not None:
        keep = s.constant(allowed.float(), "keep", FixedPoint(1, 0, signed=False))
        e = s.binary("mul", e, s.like(keep, e), "kept", exact=True)
    total = s.reduce("reduce_sum", e, (axis,), "sum", exact=True)
    inverse = s.inverse_root(total, "inverse", root=1, least=1.0)
    return s.binary("mul", e, s.like(inverse, e), name)


#: Distances from the largest number beyond this are as good as infinite.
_FARTHEST = 31.0
#: A masked number is ``2**_FAR`` less than it was: beyond every activation.
_FAR = 14


def _softmax(c: Context, a: dict[str, Any]) -> Expansion:
    x = c.dynamic(a["input"])
    if a.get("dim") is None:
        raise Refusal("give dim: torch's choice of an axis is deprecated")
    s = Sketch(c)
    return s.expansion(softmax(s, x, axis_of(c, x, a["dim"]), ""))


def _softmax_module(c: Context, a: dict[str, Any]) -> Expansion:
    return _softmax(c, {"input": a["input"], "dim": a["module"].dim})


def _softmax2d_module(c: Context, a: dict[str, Any]) -> Expansion:
    return _softmax(c, {"input": a["input"], "dim": 1})


def _softmin(c: Context, a: dict[str, Any]) -> Expansion:
    x = c.dynamic(a["input"])
    dim = a["module"].dim if "module" in a else a.get("dim")
    if dim is None:
        raise Refusal("give dim: torch's choice of an axis is deprecated")
    s = Sketch(c)
    axis = axis_of(c, x, dim)
    one = s.affine(x, -torch.ones(1), torch.zeros(1), "negative", _SIGN, exact=True)
    return s.expansion(softmax(s, one, axis, ""))


_SIGN = (FixedPoint(2, 0), FixedPoint(1, 0))

# -- normalisation -------------------------------------------------------------------------------------------


def normalised(
    s: Sketch, x: Node, axes: tuple[int, ...], eps: float, centre: bool, name: str, **options: Any
) -> Node:
    """``x`` over its own root mean square along axes, less its mean first where ``centre``."""
    n = int(np.prod([s.size(x)[a] for a in axes]))
    d, scale = x, n
    if centre:
        total = s.reduce("reduce_sum", x, axes, "sum", exact=True)
        whole = (FixedPoint(n.bit_length() + 1, 0), FixedPoint(1, 0))
        times = s.affine(x, torch.tensor([float(n)]), torch.zeros(1), "times", whole, exact=True)
        d = s.binary("sub", times, s.like(total, x), "centred", format=wider(2))
        scale = n**3
    squares = s.binary("mul", d, d, "square", exact=True)
    variance = s.reduce("reduce_sum", squares, axes, "variance", exact=True)
    inverse = s.inverse_root(variance, "inverse", root=2, factor=math.sqrt(n), offset=eps * scale)
    return s.binary("mul", d, s.like(inverse, d), name, **options)


def scaled(s: Sketch, x: Node, weight: torch.Tensor | None, bias: torch.Tensor | None) -> Node:
    """Per channel; the last operation of a layer."""
    if weight is None and bias is None:
        return x
    one, zero = torch.ones(1), torch.zeros(1)
    return s.affine(x, one if weight is None else weight, zero if bias is None else bias, "")


def layer_norm(
    s: Sketch, x: Node, count: int, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float,
    centre: bool = True,
) -> Node:  # fmt: skip
    """Over the last ``count`` axes: with what is normalised as channels, so that weights are per channel."""
    size = s.size(x)
    if count > len(size):
        raise Refusal("it would normalise over the batch axis")
    lead, n = size[: len(size) - count], int(np.prod(size[len(size) - count :]))
    flat = s.reshape(x, (n,) if not lead else (int(np.prod(lead)), n))
    y = flat if not lead else s.front(flat, 1)
    affine = weight is not None or bias is not None
    options = {"format": wider(2)} if affine else {}
    y = normalised(s, y, (0,), eps, centre, "normalised" if affine else "", **options)
    y = scaled(s, y, _flat(s.context, weight), _flat(s.context, bias))
    return s.reshape(y if not lead else s.back(y, 1), size)


def _flat(c: Context, values: torch.Tensor | None) -> torch.Tensor | None:
    if values is None or values.ndim == 1:
        return values
    return derived(c, values, "flat", lambda t: t.reshape(-1))


def _norm(centre: bool) -> Reader:
    def reader(c: Context, a: dict[str, Any]) -> Expansion:
        shape = c.constant(a["normalized_shape"])
        weight, bias = (c.parameter(a.get(n)) for n in ("weight", "bias"))
        eps = c.constant(a.get("eps"))
        eps = (1e-5 if centre else torch.finfo(torch.float32).eps) if eps is None else eps
        s, count = Sketch(c), len(shape) if not isinstance(shape, int) else 1
        return s.expansion(layer_norm(s, c.dynamic(a["input"]), count, weight, bias, float(eps), centre))

    return reader


def _norm_module(centre: bool) -> Reader:
    inner = _norm(centre)

    def reader(c: Context, a: dict[str, Any]) -> Any:
        m = a["module"]
        names = ("normalized_shape", "weight", "bias", "eps")
        return inner(c, {"input": a["input"], **{n: getattr(m, n, None) for n in names}})

    return reader


def group_norm(
    s: Sketch, x: Node, groups: int, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> Node:
    """Each group of channels of a sample by itself."""
    size = s.size(x)
    flat = s.reshape(x, (groups, int(np.prod(size)) // groups))
    affine = weight is not None or bias is not None
    options = {"format": wider(2)} if affine else {}
    y = normalised(s, flat, (1,), eps, True, "normalised" if affine else "", **options)
    return scaled(s, s.reshape(y, size), weight, bias)


def _group_norm(c: Context, a: dict[str, Any]) -> Expansion:
    weight, bias = (c.parameter(a.get(n)) for n in ("weight", "bias"))
    eps = c.constant(a.get("eps"))
    s = Sketch(c)
    x, groups = c.dynamic(a["input"]), int(c.constant(a["num_groups"]))
    return s.expansion(group_norm(s, x, groups, weight, bias, 1e-5 if eps is None else float(eps)))


def _group_norm_module(c: Context, a: dict[str, Any]) -> Expansion:
    m = a["module"]
    return _group_norm(
        c, {"input": a["input"], **{n: getattr(m, n) for n in ("num_groups", "weight", "bias", "eps")}}
    )


def _instance_norm_module(c: Context, a: dict[str, Any]) -> Expansion:
    m, x, s = a["module"], c.dynamic(a["input"]), Sketch(c)
    if m.track_running_stats:
        raise Refusal("track_running_stats=True is not supported; use a BatchNorm, which computes the same")
    return s.expansion(group_norm(s, x, c.size(x)[0], m.weight, m.bias, m.eps))


_SOFTMAX = "input dim _stacklevel dtype"
register(
    {
        nn.Softmax: _softmax_module,
        nn.Softmax2d: _softmax2d_module,
        nn.Softmin: _softmin,
        nn.LayerNorm: _norm_module(True),
        nn.RMSNorm: _norm_module(False),
        nn.GroupNorm: _group_norm_module,
        nn.InstanceNorm1d: _instance_norm_module,
        nn.InstanceNorm2d: _instance_norm_module,
    },
    {
        F.softmax: (_softmax, _SOFTMAX),
        torch.softmax: (_softmax, "input dim dtype"),
        torch.special.softmax: (_softmax, "input dim dtype"),
        F.softmin: (_softmin, _SOFTMAX),
        F.layer_norm: (_norm(True), "input normalized_shape weight bias eps"),
        torch.layer_norm: (_norm(True), "input normalized_shape weight bias eps cudnn_enable"),
        F.rms_norm: (_norm(False), "input normalized_shape weight eps"),
        F.group_norm: (_group_norm, "input num_groups weight bias eps"),
    },
    {"softmax": (_softmax, "input dim dtype")},
)
