"""Random layers for torch modules that only torch and the interpreter have (docs/layers.md): described by
plain data, like those of :mod:`qfx.sim.draw_torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

Rng = np.random.Generator
Step = dict[str, Any]

_FUNCTIONS: dict[str, tuple[Callable[..., torch.Tensor], type[nn.Module] | None]] = {
    "sigmoid": (torch.sigmoid, nn.Sigmoid), "tanh": (torch.tanh, nn.Tanh), "gelu": (F.gelu, nn.GELU),
    "silu": (F.silu, nn.SiLU), "mish": (F.mish, nn.Mish), "softsign": (F.softsign, nn.Softsign),
    "softplus": (F.softplus, nn.Softplus), "logsigmoid": (F.logsigmoid, nn.LogSigmoid),
    "hardsigmoid": (F.hardsigmoid, nn.Hardsigmoid), "hardswish": (F.hardswish, nn.Hardswish),
    "elu": (F.elu, nn.ELU), "celu": (F.celu, nn.CELU), "selu": (F.selu, nn.SELU), "abs": (torch.abs, None),
    "exp": (lambda x: torch.exp(x.clamp(max=4.0)), None), "erf": (torch.erf, None), "sin": (torch.sin, None),
    "cos": (torch.cos, None),
    "reciprocal": (lambda x: torch.reciprocal(x.abs() + 0.5), None),
    "rsqrt": (lambda x: torch.rsqrt(x.square() + 0.5), None),
    "sqrt": (lambda x: torch.sqrt(x.abs() + 0.25), None),
    "log": (lambda x: torch.log(x.abs() + 0.5), None),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), None),
}  # fmt: skip

#: Operators drawn here, and how often, by the least and the most axes that they take.
_KINDS: dict[str, tuple[float, int, int]] = {
    "function": (4.0, 1, 3), "softmax": (1.5, 1, 3), "layer_norm": (1.0, 1, 3), "rms_norm": (0.5, 1, 3),
    "group_norm": (0.6, 2, 3), "tokens": (2.0, 2, 3), "attention": (1.2, 2, 2),
    "product_attention": (1.0, 2, 3), "recurrent": (1.2, 2, 2), "conv_transpose": (1.0, 2, 3),
    "upsample": (0.7, 2, 3), "parts": (1.0, 1, 3), "pick": (0.7, 2, 3), "stack": (0.6, 1, 2),
    "join": (0.6, 2, 3), "gram": (0.8, 2, 3), "mean_over": (0.8, 1, 3), "largest": (0.5, 2, 3),
    "centre": (0.6, 2, 3), "parameter": (1.0, 1, 3), "quotient": (0.4, 1, 3), "encoder": (0.4, 2, 2),
}  # fmt: skip
KINDS = frozenset({*_KINDS, "embedding"})


def draw_ids(rng: Rng) -> tuple[tuple[int, ...], Step]:
    """An input of whole numbers and the embedding that reads it."""
    shape = tuple(int(n) for n in rng.integers(1, 6, int(rng.integers(1, 3))))
    rows = int(rng.integers(2, 20))
    step = {"op": "embedding", "inputs": [0], "how": "none", "rows": rows, "width": int(rng.integers(1, 7))}
    return shape, step


def draw_layer(rng: Rng, shapes: list[tuple[int, ...]]) -> Step:
    """One layer on the last result; `shapes` are those of all results."""
    shape = shapes[-1]
    rank = len(shape)
    names = [n for n, (_, least, most) in _KINDS.items() if least <= rank <= most]
    shares = np.asarray([_KINDS[n][0] for n in names])
    op = str(rng.choice(names, p=shares / shares.sum()))
    step: Step = {"op": op, "inputs": [len(shapes) - 1], "how": str(rng.choice(["none", "function"]))}
    axis = int(rng.integers(1, rank + 1))
    last = shape[-1]
    if op == "function":
        step["function"] = str(rng.choice(list(_FUNCTIONS)))
    elif op == "softmax":
        step["dim"] = int(rng.choice([axis, axis - rank - 1]))
    elif op in ("layer_norm", "rms_norm"):
        step |= {"shape": list(shape[-int(rng.integers(1, rank + 1)) :]), "affine": bool(rng.random() < 0.7)}
    elif op == "group_norm":
        divisors = [d for d in range(1, shape[0] + 1) if shape[0] % d == 0]
        step |= {
            "groups": int(rng.choice(divisors)),
            "channels": shape[0],
            "affine": bool(rng.random() < 0.7),
        }
    elif op == "tokens":
        step |= {"in": last, "out": int(rng.integers(1, 9)), "bias": bool(rng.random() < 0.7)}
    elif op in ("attention", "encoder"):
        heads = int(rng.choice([h for h in range(1, last + 1) if last % h == 0]))
        step |= {
            "width": last,
            "heads": heads,
            "bias": bool(rng.random() < 0.7),
            "keys": 0,
            "tokens": shape[0],
        }
        if op == "attention" and rng.random() < 0.4:
            step["keys"] = int(rng.integers(1, shape[0] + 1))
        step["mask"] = str(rng.choice(["none", "causal", "numbers"]))
        step |= {"first": bool(rng.random() < 0.5), "activation": str(rng.choice(["relu", "gelu"]))}
    elif op == "product_attention":
        step |= {"mask": str(rng.choice(["none", "causal", "numbers"])), "tokens": shape[-2]}
    elif op == "recurrent":
        step |= {
            "kind": str(rng.choice(["lstm", "gru", "rnn"])), "in": last, "hidden": int(rng.integers(1, 5)),
            "layers": int(rng.choice([1, 1, 2])), "both": bool(rng.random() < 0.25),
            "take": str(rng.choice(["sequence", "last", "state"])), "bias": bool(rng.random() < 0.8),
        }  # fmt: skip
    elif op == "conv_transpose":
        groups = int(rng.choice([g for g in range(1, shape[0] + 1) if shape[0] % g == 0]))
        kernel = [int(k) for k in rng.integers(1, 4, rank - 1)]
        stride = [int(s) for s in rng.choice([1, 2, 2, 3], rank - 1)]
        step |= {
            "in": shape[0], "out": groups * int(rng.integers(1, 3)), "groups": groups, "kernel": kernel,
            "stride": stride, "padding": [int(rng.integers(0, k)) for k in kernel],
            "behind": [int(rng.integers(0, s)) for s in stride], "bias": bool(rng.random() < 0.6),
        }  # fmt: skip
    elif op == "upsample":
        step["factor"] = int(rng.integers(2, 4))
    elif op == "parts":
        step |= {
            "dim": axis,
            "count": int(rng.integers(1, 4)),
            "spelled": str(rng.choice(["chunk", "split"])),
        }
        equal = shape[axis - 1] % min(step["count"], shape[axis - 1]) == 0
        step |= {
            "join": str(rng.choice(["first", "add", "mul"])) if equal else "first",
            "size": shape[axis - 1],
        }
    elif op == "pick":
        step |= {"axis": axis, "index": int(rng.integers(-shape[axis - 1], shape[axis - 1]))}
    elif op in ("stack", "join"):
        same = [i for i, s in enumerate(shapes) if s == shape]
        step["inputs"] = [len(shapes) - 1, int(rng.choice(same))]
        step["dim"] = axis + int(op == "stack" and rng.random() < 0.5)
    elif op == "gram":
        step["order"] = str(rng.choice(["left", "right"]))
    elif op in ("mean_over", "largest"):
        step |= {"dim": axis, "keep": rank == 1 or bool(rng.random() < 0.5), "sum": bool(rng.random() < 0.4)}
    elif op == "centre":
        step |= {"dim": axis, "kind": str(rng.choice(["sub", "mul", "add"]))}
    elif op == "parameter":
        whole = [n if rng.random() < 0.6 else 1 for n in shape]
        step |= {"shape": whole, "kind": str(rng.choice(["sub", "mul", "add"]))}
    return step


class _Recurrent(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[step["kind"]]
        self.layer = kind(
            step["in"], step["hidden"], step["layers"], bias=step["bias"], batch_first=True,
            bidirectional=step["both"],
        )  # fmt: skip
        self.take = step["take"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, state = self.layer(x)
        if self.take == "sequence":
            return out
        if self.take == "last":
            return out[:, -1]
        return (state[0] if isinstance(self.layer, nn.LSTM) else state)[-1]


class _Attention(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        tokens = step["tokens"]
        self.layer = nn.MultiheadAttention(step["width"], step["heads"], bias=step["bias"], batch_first=True)
        self.keys = step["keys"]
        mask = _mask(step["mask"], tokens, self.keys or tokens)
        self.register_buffer("mask", ~mask if mask is not None and mask.dtype == torch.bool else mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x[:, : self.keys] if self.keys else x
        return self.layer(x, y, y, need_weights=False, attn_mask=self.mask)[0]


def _mask(kind: str, queries: int, keys: int) -> torch.Tensor | None:
    if kind == "none":
        return None
    allowed = torch.ones(queries, keys, dtype=torch.bool).tril()
    if kind == "causal":
        return allowed
    generator = torch.Generator().manual_seed(queries * 17 + keys)
    return torch.randn(queries, keys, generator=generator).masked_fill(~allowed, -torch.inf)


class _Constant(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1, *step["shape"]))
        self.kind = step["kind"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "mul":
            return x * self.value
        return x + self.value if self.kind == "add" else x - self.value


def layer_module(step: Step) -> nn.Module | None:
    """The submodule of a step, for layers spelled as modules."""
    op = step["op"]
    if op == "embedding":
        return nn.Embedding(step["rows"], step["width"])
    if op == "function":
        kind = _FUNCTIONS[step["function"]][1]
        return kind() if kind is not None and step["how"] == "none" else None
    if op == "softmax":
        return nn.Softmax(step["dim"]) if step["how"] == "none" else None
    if op == "layer_norm":
        return nn.LayerNorm(step["shape"], elementwise_affine=step["affine"])
    if op == "rms_norm":
        return nn.RMSNorm(step["shape"], elementwise_affine=step["affine"])
    if op == "group_norm":
        return nn.GroupNorm(step["groups"], step["channels"], affine=step["affine"])
    if op == "tokens":
        return nn.Linear(step["in"], step["out"], bias=step["bias"])
    if op == "attention":
        return _Attention(step)
    if op == "encoder":
        return nn.TransformerEncoderLayer(
            step["width"], step["heads"], 2 * step["width"], batch_first=True, norm_first=step["first"],
            activation=step["activation"], bias=step["bias"],
        )  # fmt: skip
    if op == "recurrent":
        return _Recurrent(step)
    if op == "parameter":
        return _Constant(step)
    if op == "conv_transpose":
        kind = nn.ConvTranspose1d if len(step["kernel"]) == 1 else nn.ConvTranspose2d
        return kind(
            step["in"], step["out"], tuple(step["kernel"]), tuple(step["stride"]), tuple(step["padding"]),
            tuple(step["behind"]), step["groups"], step["bias"],
        )  # fmt: skip
    if op == "upsample" and step["how"] == "none":
        return nn.Upsample(scale_factor=step["factor"])
    return None


def apply_layer(step: Step, operands: list[torch.Tensor]) -> torch.Tensor:
    """A step spelled as a function."""
    op, x = step["op"], operands[0]
    if op == "function":
        return _FUNCTIONS[step["function"]][0](x)
    if op == "softmax":
        return F.softmax(x, step["dim"])
    if op == "upsample":
        return F.interpolate(x, scale_factor=step["factor"])
    if op == "product_attention":
        mask = _mask(step["mask"], step["tokens"], step["tokens"])
        if step["mask"] == "causal":
            return F.scaled_dot_product_attention(x, x, x, is_causal=True)
        return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    if op == "parts":
        n = step["size"]
        parts = (
            torch.chunk(x, step["count"], step["dim"])
            if step["spelled"] == "chunk"
            else x.split(-(-n // step["count"]), step["dim"])
        )
        first, last = parts[0], parts[-1]
        if step["join"] == "first":
            return first
        return first + last if step["join"] == "add" else first * last
    if op == "pick":
        return x[(slice(None),) * step["axis"] + (step["index"],)]
    if op == "stack":
        return torch.stack(operands, step["dim"])
    if op == "join":
        return torch.cat(operands, step["dim"])
    if op == "gram":
        y = x.transpose(-2, -1)
        return torch.matmul(x, y) if step["order"] == "left" else y @ x
    if op == "mean_over":
        reduce = torch.sum if step["sum"] else torch.mean
        return reduce(x, step["dim"], keepdim=step["keep"])
    if op == "largest":
        return x.amax(step["dim"], keepdim=step["keep"])
    if op == "centre":
        m = x.mean(step["dim"], keepdim=True)
        return x - m if step["kind"] == "sub" else m * x if step["kind"] == "mul" else x + m
    if op == "quotient":
        return x / (x.square() + 0.5)
    raise ValueError(f"unknown operator {op!r}")
