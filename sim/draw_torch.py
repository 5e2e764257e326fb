"""Random torch modules for the fuzzer, described by plain data so that a failing one can be saved, shrunk and
built again.

A description is a dictionary: `input` (shape without the batch axis), `steps` (operators in order, each with
`inputs`: the numbers of earlier results, 0 being the network's input), `config` (formats), `seed`. Every
spelling that `qfx.prepare` takes occurs: modules, functions, operators, methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.errors import QfxError
from qfx.formats.data import from_data
from qfx.formats.rounding import OVERFLOW, ROUNDING
from qfx.ptq.regions import regions, scale
from qfx.ptq.walk import changed
from qfx.sim import draw_torch_layers
from qfx.sim.draw_formats import BLOCK, draw_arguments

if TYPE_CHECKING:
    from qfx.graph import Graph
    from qfx.learn import QuantizedModel

Rng = np.random.Generator
Description = dict[str, Any]

_MODES = ("none", "function", "method")
_MAX_ELEMENTS = 300
#: What stands in for formats that cannot be had.
_PLAIN = {"frac": None, "signed": True, "rounding": "RND_CONV", "overflow": "SAT"}
#: Bits of the integers that an input's minifloats may stand for.
_WORD = 62


class Drawn(nn.Module):
    """The module of a description."""

    def __init__(self, description: Description) -> None:
        super().__init__()
        self.steps = [dict(step) for step in description["steps"]]
        generator = torch.Generator().manual_seed(int(description["seed"]))
        modules = {}
        for number, step in enumerate(self.steps):
            module = _module(step)
            if module is not None:
                modules[f"{step['op']}{number + 1}"] = module
        self.layers = nn.ModuleDict(modules)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    assert module.running_mean is not None and module.running_var is not None
                    module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
                    module.running_var.copy_(0.2 + torch.rand(module.num_features, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for number, step in enumerate(self.steps):
            name = f"{step['op']}{number + 1}"
            operands = [values[i] for i in step["inputs"]]
            values.append(self.layers[name](*operands) if name in self.layers else _apply(step, operands))
        return values[-1]


def draw_module(
    rng: Rng, *, every_format: bool = False, every_layer: bool = False, hardware: bool = False
) -> Description:
    """A random description; its module runs in float on a batch of its input shape. With ``every_format`` not
    only fixed point, with ``every_layer`` also functions, norms, attention and the like; for ``hardware``
    without blocks that take in a whole sample."""
    rank = int(rng.choice([0, 1, 2], p=[0.25, 0.2, 0.55]))
    shape: tuple[int, ...] = (int(rng.integers(1, 13)),)
    if rank:
        shape = (int(rng.integers(1, 5)), *(int(n) for n in rng.integers(3, 9, rank)))
    description: Description = {"input": list(shape), "steps": [], "seed": int(rng.integers(2**31))}
    shapes = [shape]
    if every_layer and rng.random() < 0.1:
        ids, first = draw_torch_layers.draw_ids(rng)
        description |= {"input": list(ids), "ids": first["rows"], "steps": [first]}
        shapes = [ids, (*ids, first["width"])]
    for _ in range(int(rng.integers(2, 8))):
        layer = every_layer and rng.random() < 0.5
        for step in [draw_torch_layers.draw_layer(rng, shapes)] if layer else _draw_steps(rng, shapes):
            grown = _try(description, step)
            if grown is None:
                break
            description["steps"].append(step)
            shapes.append(grown)
    if not any(step["op"] in ("linear", "conv") for step in description["steps"]):
        # A network without weights has nothing to train.
        size = int(np.prod(shapes[-1]))
        tail: list[dict[str, Any]] = (
            [{"op": "flatten", "inputs": [len(shapes) - 1], "how": "none"}] if len(shapes[-1]) > 1 else []
        )
        tail.append(
            {"op": "linear", "inputs": [len(shapes) - 1 + len(tail)], "in": size, "out": 3, "bias": True}
        )
        description["steps"] += tail
    description["config"] = _draw_config(rng, every_format)
    # Decided by what was drawn already, so that all other draws stay what they were.
    description["scaled"] = description["seed"] % 2 == 1
    _amend(description, hardware)
    return description


def _amend(description: Description, hardware: bool) -> None:
    """Replace formats that QFX refuses by documented limits, with no number drawn: one bit behind results
    that are never negative, inputs that would need more bits than a word has, and in hardware blocks of all
    activations of a sample."""
    formats = description["config"]["formats"]
    if formats["activation"].get("kind") == "binary":
        try:
            prepare(description)
        except QfxError:
            formats["activation"] = {**_PLAIN, "width": 4}
    if formats["input"].get("kind") == "minifloat":
        bits = from_data(formats["input"], frozen=False).integer_max.bit_length()
        if bits > _WORD:
            formats["input"] = {**_PLAIN, "width": 8}
    here = formats["activation"]
    # An embedding makes a place of every number of the input.
    places = len(description["input"]) > 1 or description.get("ids") is not None
    if hardware and places and here.get("size", BLOCK) is None:
        formats["activation"] = {**here, "size": BLOCK}


def train(description: Description) -> QuantizedModel:
    """Prepare, calibrate and train the module of a description for two steps: all from its seed."""
    torch.manual_seed(int(description["seed"]))
    shape = description["input"]
    # Values of the size of the first sample decide the input format.
    rows = description.get("ids")
    data = torch.randint(0, rows, (24, *shape)) if rows else torch.randn(24, *shape) * 2
    q = prepare(description)
    qfx.calibrate(q, [data], progress=False)
    q.train()
    optimizer = torch.optim.SGD(q.parameters(), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        out = q(data)
        loss = F.mse_loss(out, torch.randn(out.shape))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(q.parameters(), 5.0)
        optimizer.step()
    q.eval()
    if description.get("scaled"):
        _scale_channels(q, description)
    return q


@torch.no_grad()
def _scale_channels(q: QuantizedModel, description: Description) -> None:
    """Move random factors between layers, through ReLU6 too: its bound is then one per channel, on either
    side of what the cast behind can hold."""
    generator = torch.Generator().manual_seed(int(description["seed"]))
    for region in regions(q, _zeros(description), "scaled"):
        exponents = 4.0 * torch.rand(region.channels, generator=generator, dtype=torch.float64) - 2.0
        scale(region, torch.exp2(exponents))
    changed(q)


def prepare(description: Description) -> QuantizedModel:
    """The prepared, untrained model of a description."""
    module = Drawn(description).eval()
    example = _zeros(description)
    return qfx.prepare(module, example, config(description["config"]))


def _zeros(description: Description) -> torch.Tensor:
    dtype = torch.long if "ids" in description else torch.float32
    return torch.zeros(2, *description["input"], dtype=dtype)


def freeze(q: QuantizedModel) -> Graph:
    """The graph, which knows its torch model."""
    return qfx.freeze(q)


def config(data: dict[str, Any]) -> qfx.Config:
    """A configuration from plain data."""
    formats: dict[str, Any] = {
        name: from_data(value, frozen=False) for name, value in data["formats"].items()
    }
    output: Any = formats.pop("output", None) or data["output"]
    return qfx.Config(
        **formats,
        output=output,
        per_channel=data["per_channel"],
        batch_norm=data["batch_norm"],
        unsigned=data["unsigned"],
    )


# -- drawing
# -----------------------------------------------------------------------------------------------------------


def _draw_config(rng: Rng, every_format: bool) -> dict[str, Any]:
    def fmt(widths: Sequence[int], fixed: float, *, modes: bool = True) -> dict[str, Any]:
        width = int(rng.choice(widths))
        signed = True
        rounding = str(rng.choice(list(ROUNDING))) if modes else "RND_CONV"
        overflow = str(rng.choice([m for m in OVERFLOW if width > 1 or m != "SAT_SYM"])) if modes else "SAT"
        frac = int(rng.integers(-1, width + 3)) if rng.random() < fixed else None
        return {"width": width, "frac": frac, "signed": signed, "rounding": rounding, "overflow": overflow}

    formats = {
        "weight": fmt([2, 3, 4, 5, 6, 8], 0.1),
        "activation": fmt([2, 3, 4, 5, 6, 8, 10], 0.1),
        "input": fmt([3, 4, 6, 8, 10, 12], 0.4),
        "bias": fmt([4, 8, 12, 16], 0.1),
        "scale": fmt([4, 6, 8], 0.1),
    }
    if every_format:
        for name, share in (("weight", 0.7), ("activation", 0.6), ("scale", 0.4), ("input", 0.2)):
            if rng.random() < share:
                points = ("minifloat", "khot", "binary")
                formats[name] = draw_arguments(
                    rng, **({"kinds": points} if name in ("scale", "input") else {})
                )
    output = None
    if rng.random() < 0.3:
        formats["output"] = fmt([4, 8, 12], 0.3)
    elif rng.random() < 0.3:
        output = "exact"
    return {
        "formats": formats,
        "output": output,
        "per_channel": bool(rng.random() < 0.4),
        "batch_norm": str(rng.choice(["fold", "keep"])),
        "unsigned": bool(rng.random() < 0.7),
    }


def _draw_steps(rng: Rng, shapes: list[tuple[int, ...]]) -> list[dict[str, Any]]:
    """One operator on the last result, or a weighted layer with what usually follows it."""
    last, shape = len(shapes) - 1, shapes[-1]
    rank = len(shape) - 1
    names = [
        "relu",
        "relu6",
        "hardtanh",
        "leaky_relu",
        "binary",
        "constant",
        "concat",
        "reshape",
        "dropout",
        "identity",
    ]
    weights = [1.0, 0.5, 0.6, 0.8, 2.0, 0.8, 1.0, 0.5, 0.3, 0.3]
    names.append("linear" if rank == 0 else "conv")
    weights.append(5.0)
    if rank == 0:
        names.append("batch_norm")
        weights.append(0.7)
    else:
        names += ["batch_norm", "max_pool", "avg_pool", "adaptive_pool", "mean", "permute", "flatten"]
        weights += [0.7, 1.0, 0.8, 0.5, 0.4, 0.4, 0.6]
    op = str(rng.choice(names, p=np.asarray(weights) / sum(weights)))
    step: dict[str, Any] = {"op": op, "inputs": [last], "how": str(rng.choice(_MODES))}
    if op == "linear":
        step |= {"in": shape[0], "out": int(rng.integers(1, 13)), "bias": bool(rng.random() < 0.7)}
        return [step, *_after_weights(rng, last + 1, step["out"], 0)]
    if op == "conv":
        step |= _draw_conv(rng, shape)
        return [step, *_after_weights(rng, last + 1, step["out"], rank)]
    if op == "batch_norm":
        step |= {"channels": shape[0], "rank": rank}
    elif op in ("max_pool", "avg_pool"):
        kernel = [int(min(n, k)) for n, k in zip(shape[1:], rng.integers(1, 4, rank), strict=True)]
        step |= {
            "kernel": kernel,
            "stride": [int(k) if rng.random() < 0.6 else int(rng.integers(1, 3)) for k in kernel],
            "padding": [int(rng.integers(0, k // 2 + 1)) for k in kernel],
        }
    elif op == "adaptive_pool":
        sizes = [[d for d in range(1, n + 1) if n % d == 0] for n in shape[1:]]
        step |= {"size": [int(rng.choice(options)) for options in sizes]}
    elif op == "hardtanh":
        step |= {
            "low": float(rng.choice([-1.0, -0.5, 0.0, -2.0])),
            "high": float(rng.choice([1.0, 0.75, 2.0])),
        }
    elif op == "leaky_relu":
        step |= {"slope": float(rng.choice([0.125, 0.25, 0.1, 0.01]))}
    elif op == "binary":
        others = [i for i in range(len(shapes)) if shapes[i] == shape and i != last]
        kind = str(rng.choice(["add", "add", "add", "sub", "mul"]))
        step |= {"op": kind, "inputs": [last, int(rng.choice(others)) if others else last]}
        rng.shuffle(step["inputs"])
    elif op == "constant":
        step |= {
            "op": str(rng.choice(["add_constant", "mul_constant"])),
            "value": float(rng.choice([0.5, 2.0, -1.0, 0.3])),
        }
    elif op == "concat":
        others = [i for i in range(len(shapes)) if shapes[i][1:] == shape[1:]]
        step |= {"inputs": [last, *(int(i) for i in rng.choice(others, int(rng.integers(1, 3))))]}
    elif op == "reshape":
        size = int(np.prod(shape))
        pairs = [(a, size // a) for a in range(1, size + 1) if size % a == 0]
        step |= {"shape": list(pairs[int(rng.integers(len(pairs)))])}
    elif op == "mean":
        step |= {"rank": rank}
    elif op == "permute":
        step |= {"axes": [int(a) for a in rng.permutation(rank + 1)]}
    return [step]


def _draw_conv(rng: Rng, shape: tuple[int, ...]) -> dict[str, Any]:
    channels, rank = shape[0], len(shape) - 1
    groups = int(rng.choice([1, 1, 1, channels, *(g for g in range(2, channels) if channels % g == 0)]))
    kernel = [int(k) for k in rng.integers(1, 4, rank)]
    dilation = [int(d) for d in rng.choice([1, 1, 1, 2], rank)]
    return {
        "in": channels,
        "out": groups * int(rng.integers(1, max(1, 6 // groups) + 1)),
        "kernel": kernel,
        "stride": [int(s) for s in rng.choice([1, 1, 1, 2, 3], rank)],
        "padding": [int(rng.integers(0, d * (k - 1) + 1)) for k, d in zip(kernel, dilation, strict=True)],
        "dilation": dilation,
        "groups": groups,
        "bias": bool(rng.random() < 0.6),
        "rank": rank,
    }


def _after_weights(rng: Rng, number: int, channels: int, rank: int) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if rng.random() < 0.4:
        steps.append(
            {"op": "batch_norm", "inputs": [number], "how": "none", "channels": channels, "rank": rank}
        )
    if rng.random() < 0.5:
        steps.append({"op": "relu", "inputs": [number + len(steps)], "how": str(rng.choice(_MODES))})
    return steps


def _try(description: Description, step: dict[str, Any]) -> tuple[int, ...] | None:
    """The shape of one more step's result; ``None`` when it does not fit or becomes too large."""
    module = Drawn({**description, "steps": [*description["steps"], step]}).eval()
    try:
        with torch.no_grad():
            result = module(_zeros(description))
    except (RuntimeError, ValueError, IndexError):
        return None
    shape = tuple(result.shape[1:])
    return shape if 1 <= len(shape) <= 3 and 1 <= int(np.prod(shape)) <= _MAX_ELEMENTS else None


# -- building
# ----------------------------------------------------------------------------------------------------------


def _module(step: dict[str, Any]) -> nn.Module | None:
    """The submodule of a step, for operators spelled as modules."""
    op = step["op"]
    if op in draw_torch_layers.KINDS:
        return draw_torch_layers.layer_module(step)
    if op == "linear":
        return nn.Linear(step["in"], step["out"], bias=step["bias"])
    if op == "conv":
        kind = nn.Conv1d if step["rank"] == 1 else nn.Conv2d
        geometry: dict[str, Any] = {name: tuple(step[name]) for name in ("stride", "padding", "dilation")}
        return kind(
            step["in"],
            step["out"],
            tuple(step["kernel"]),
            groups=step["groups"],
            bias=step["bias"],
            **geometry,
        )
    if op == "batch_norm":
        return nn.BatchNorm2d(step["channels"]) if step["rank"] == 2 else nn.BatchNorm1d(step["channels"])
    if op == "dropout":
        return nn.Dropout(0.1)
    if op == "identity":
        return nn.Identity()
    if step["how"] != "none":
        return None
    if op == "relu":
        return nn.ReLU()
    if op == "relu6":
        return nn.ReLU6()
    if op == "hardtanh":
        return nn.Hardtanh(step["low"], step["high"])
    if op == "leaky_relu":
        return nn.LeakyReLU(step["slope"])
    if op == "flatten":
        return nn.Flatten()
    if op in ("max_pool", "avg_pool"):
        kinds = {
            ("max_pool", 1): nn.MaxPool1d, ("max_pool", 2): nn.MaxPool2d,
            ("avg_pool", 1): nn.AvgPool1d, ("avg_pool", 2): nn.AvgPool2d,
        }  # fmt: skip
        geometry = {"stride": tuple(step["stride"]), "padding": tuple(step["padding"])}
        return kinds[op, len(step["kernel"])](tuple(step["kernel"]), **geometry)
    if op == "adaptive_pool":
        return (nn.AdaptiveAvgPool1d if len(step["size"]) == 1 else nn.AdaptiveAvgPool2d)(tuple(step["size"]))
    return None


def _apply(step: dict[str, Any], operands: list[torch.Tensor]) -> torch.Tensor:
    """A step spelled as a function, a method or an operator."""
    op, how, x = step["op"], step["how"], operands[0]
    method = how == "method"
    if op in draw_torch_layers.KINDS:
        return draw_torch_layers.apply_layer(step, operands)
    if op == "relu":
        return x.relu() if method else F.relu(x)
    if op == "relu6":
        return F.relu6(x)
    if op == "hardtanh":
        return (
            torch.clamp(x, step["low"], step["high"]) if method else F.hardtanh(x, step["low"], step["high"])
        )
    if op == "leaky_relu":
        return F.leaky_relu(x, step["slope"])
    if op in ("add", "sub", "mul"):
        if method:
            return getattr(x, op)(operands[1])
        if how == "function":
            return getattr(torch, op)(x, operands[1])
        return x + operands[1] if op == "add" else x - operands[1] if op == "sub" else x * operands[1]
    if op == "add_constant":
        return x.add(step["value"]) if method else x + step["value"]
    if op == "mul_constant":
        return x.mul(step["value"]) if method else step["value"] * x
    if op == "concat":
        return torch.cat(operands, dim=1) if how == "function" else torch.cat(operands, 1)
    if op == "reshape":
        return (
            torch.reshape(x, (-1, *step["shape"]))
            if how == "function"
            else x.reshape(x.size(0), *step["shape"])
        )
    if op == "flatten":
        return x.flatten(1) if method else torch.flatten(x, 1)
    if op == "permute":
        axes = (0, *(a + 1 for a in step["axes"]))
        return x.permute(axes) if method else torch.permute(x, axes)
    if op == "mean":
        axes = tuple(range(2, step["rank"] + 2))
        return x.mean(list(axes)) if method else torch.mean(x, axes)
    if op in ("max_pool", "avg_pool"):
        function = getattr(F, f"{op}{len(step['kernel'])}d")
        return function(x, tuple(step["kernel"]), tuple(step["stride"]), tuple(step["padding"]))
    if op == "adaptive_pool":
        function = F.adaptive_avg_pool1d if len(step["size"]) == 1 else F.adaptive_avg_pool2d
        return function(x, tuple(step["size"]))
    raise ValueError(f"unknown operator {op!r}")
