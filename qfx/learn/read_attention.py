"""Readers of attention and of torch's transformer layers.

``softmax(q k^T / sqrt(d)) v`` for every head; the factor ``1 / sqrt(d)`` goes into the weights of the queries
where there are some, and costs nothing. Tokens are positions and features are channels, so that linear layers
are convolutions of length 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from qfx.approx import Real
from qfx.formats.fixed import FixedPoint
from qfx.learn.layers import Node, Sketch, derived, positional
from qfx.learn.operations import Context, Expansion, Refusal, register
from qfx.learn.read_arrays import on_features
from qfx.learn.read_normalisation import layer_norm, softmax

#: Bits of the factor that scores are multiplied by; exact when it is a power of two.
_SCALE_BITS = 12


def attention(
    s: Sketch,
    q: Node,
    k: Node,
    v: Node,
    scale: float,
    bias: torch.Tensor | None,
    allowed: torch.Tensor | None,
    name: str,
) -> Node:
    """``softmax(scale * q k^T + bias) v`` of ``(heads, tokens, features)`` or ``(tokens, features)``.

    Args:
        bias, allowed: constants that broadcast against the scores.
        name: of the last operation.
    """
    rank = len(s.size(q))
    swap = (*range(rank - 2), rank - 1, rank - 2)
    plain = scale == 1.0 and bias is None
    scores = s.matmul(q, s.transpose(k, swap), "scores", exact=not plain)
    if scale != 1.0:
        formats = (FixedPoint(_SCALE_BITS), FixedPoint(1, 0))
        factor = torch.tensor([scale])
        scores = s.affine(scores, factor, torch.zeros(1), "scores", formats, exact=bias is not None)
    if bias is not None:
        scores = s.binary("add", scores, s.like(s.constant(bias, "bias"), scores), "scores")
    weights = softmax(s.within("softmax"), scores, rank - 1, "", allowed)
    return s.matmul(weights, v, name)


def split_mask(mask: torch.Tensor | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """A mask of torch, booleans (True: allowed) or numbers that are added, as what is added and what is
    allowed."""
    if mask is None:
        return None, None
    if mask.dtype == torch.bool:
        return None, (None if bool(mask.all()) else mask)
    allowed = torch.isfinite(mask)
    added = torch.where(allowed, mask, 0.0)
    return (added if bool(added.any()) else None), (None if bool(allowed.all()) else allowed)


def _causal(q: tuple[int, ...], k: tuple[int, ...]) -> torch.Tensor:
    return torch.ones(q[-2], k[-2], dtype=torch.bool).tril()


def _mask(c: Context, value: Any, axes: int) -> torch.Tensor | None:
    if value is None:
        return None
    if c.is_dynamic(value):
        raise Refusal("a mask that is computed from the model's input is not supported")
    mask = torch.as_tensor(c.constant(value)).detach()
    # An axis of the batch, or of heads: all equal, or as many as there are.
    while mask.ndim > axes:
        if mask.shape[0] > 1 and bool((mask != mask[:1]).any()):
            raise Refusal("a mask that differs between the samples of a batch is not supported")
        mask = mask[0]
    return mask


def _scaled_dot_product(c: Context, a: dict[str, Any]) -> Expansion:
    q, k, v = (c.dynamic(a[n]) for n in ("query", "key", "value"))
    if c.constant(a.get("enable_gqa", False)):
        raise Refusal("enable_gqa is not supported; repeat the keys and values")
    sizes = [c.size(n) for n in (q, k, v)]
    if len({len(x) for x in sizes}) != 1 or len(sizes[0]) not in (2, 3):
        raise Refusal(
            f"operands of shapes {sizes} (without the batch); (heads, tokens, features) is supported"
        )
    bias, allowed = split_mask(_mask(c, a.get("attn_mask"), len(sizes[0])))
    if c.constant(a.get("is_causal", False)):
        allowed = _causal(sizes[0], sizes[1])
    scale = c.constant(a.get("scale"))
    scale = 1.0 / math.sqrt(sizes[0][-1]) if scale is None else float(scale)
    s = Sketch(c)
    return s.expansion(attention(s, q, k, v, scale, bias, allowed, ""))


def multihead(
    s: Sketch, m: nn.MultiheadAttention, q: Node, k: Node, v: Node, mask: torch.Tensor | None
) -> Node:
    """torch's module on ``(tokens, features)``; ``mask`` as it takes it, except that True means allowed."""
    c = s.context
    if not m.batch_first:
        raise Refusal("batch_first=False has the batch axis second; use batch_first=True")
    if m.bias_k is not None or m.add_zero_attn:
        raise Refusal("add_bias_kv and add_zero_attn are not supported")
    heads, width = m.num_heads, m.embed_dim
    scale = 1.0 / math.sqrt(width // heads)

    def part(index: int, factor: float) -> tuple[nn.Parameter, nn.Parameter | None]:
        rows = slice(index * width, (index + 1) * width)
        if m.in_proj_weight is not None:
            source, take = m.in_proj_weight, lambda w: w[rows].unsqueeze(-1) * factor
        else:
            source = (m.q_proj_weight, m.k_proj_weight, m.v_proj_weight)[index]
            take = lambda w: w.unsqueeze(-1) * factor  # noqa: E731
        weight = derived(c, source, f"projection {index}", take)
        if m.in_proj_bias is None:
            return weight, None
        return weight, derived(c, m.in_proj_bias, f"projection {index}", lambda b: b[rows] * factor)

    def projected(x: Node, index: int, name: str) -> Node:
        """``(features, tokens)`` as ``(heads, features of one, tokens)``."""
        y = s.linear(s.front(x, 1), *part(index, scale if index == 0 else 1.0), name)
        return s.reshape(y, (heads, width // heads, s.size(x)[0]))

    query = s.transpose(projected(q, 0, "query"), (0, 2, 1))
    key = s.transpose(projected(k, 1, "key"), (0, 2, 1))
    value = s.transpose(projected(v, 2, "value"), (0, 2, 1))
    bias, allowed = split_mask(mask)
    y = attention(s, query, key, value, 1.0, bias, allowed, "context")
    y = s.reshape(s.transpose(y, (0, 2, 1)), (width, s.size(q)[0]))
    y = s.linear(y, positional(c, m.out_proj.weight), m.out_proj.bias, "out_proj")
    return s.back(y, 1)


_NAMES = (
    "query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights",
    "is_causal",
)  # fmt: skip


def _multihead_module(c: Context, a: dict[str, Any]) -> Expansion:
    m = a["module"]
    given = dict(zip(_NAMES, c.node.args, strict=False)) | dict(c.node.kwargs)
    if given.get("key_padding_mask") is not None:
        raise Refusal("key_padding_mask is not supported; every sample has the same number of tokens")
    q, k, v = (c.dynamic(given[n]) for n in ("query", "key", "value"))
    s = Sketch(c)
    y = multihead(s, m, q, k, v, _torch_mask(_mask(c, given.get("attn_mask"), 2)))
    return s.expansion((y, None))


def _torch_mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    """In masks of nn.MultiheadAttention True means *not* allowed."""
    return ~mask if mask is not None and mask.dtype == torch.bool else mask


# -- torch's transformer layers ------------------------------------------------------------------------------


def encoder_layer(s: Sketch, m: nn.TransformerEncoderLayer, x: Node, mask: torch.Tensor | None) -> Node:
    """``nn.TransformerEncoderLayer`` in eval()."""

    def attend(y: Node) -> Node:
        return multihead(s.within("self_attn"), m.self_attn, y, y, y, mask)

    def feed(y: Node) -> Node:
        y = on_features(s, y, m.linear1.weight, m.linear1.bias, "linear1")
        y = _activation(s, m.activation, y)
        return on_features(s, y, m.linear2.weight, m.linear2.bias, "linear2")

    def norm(index: int, y: Node) -> Node:
        n = (m.norm1, m.norm2)[index]
        return layer_norm(s.within(f"norm{index + 1}"), y, 1, n.weight, n.bias, n.eps)

    if m.norm_first:
        x = s.binary("add", x, attend(norm(0, x)), "add1")
        return s.binary("add", x, feed(norm(1, x)), "add2")
    x = norm(0, s.binary("add", x, attend(x), "add1"))
    return norm(1, s.binary("add", x, feed(x), "add2"))


def _activation(s: Sketch, activation: Any, x: Node) -> Node:
    if activation in (F.relu, torch.relu) or isinstance(activation, nn.ReLU):
        return s.relu(x, "activation")
    if activation is F.gelu or isinstance(activation, nn.GELU):
        tanh = getattr(activation, "approximate", "none") == "tanh"
        return s.function(x, Real("gelu_tanh" if tanh else "gelu"), "activation")
    if activation is F.silu or isinstance(activation, nn.SiLU):
        return s.function(x, Real("silu"), "activation")
    raise Refusal("its activation is not supported; use relu, gelu or silu")


def _encoder_arguments(c: Context, names: tuple[str, ...]) -> tuple[Node, torch.Tensor | None]:
    given = dict(zip(names, c.node.args, strict=False)) | dict(c.node.kwargs)
    if given.get("src_key_padding_mask") is not None:
        raise Refusal("src_key_padding_mask is not supported; every sample has the same number of tokens")
    x = c.dynamic(given["src"])
    return x, _torch_mask(_mask(c, given.get(names[1]), 2))


def _encoder_layer_module(c: Context, a: dict[str, Any]) -> Expansion:
    x, mask = _encoder_arguments(c, ("src", "src_mask", "src_key_padding_mask", "is_causal"))
    s = Sketch(c)
    return s.expansion(encoder_layer(s, a["module"], x, mask))


def _encoder_module(c: Context, a: dict[str, Any]) -> Expansion:
    x, mask = _encoder_arguments(c, ("src", "mask", "src_key_padding_mask", "is_causal"))
    s, m = Sketch(c), a["module"]
    for number, layer in enumerate(m.layers):
        x = encoder_layer(s.within(f"layers.{number}"), layer, x, mask)
    if m.norm is not None:
        x = layer_norm(s.within("norm"), x, 1, m.norm.weight, m.norm.bias, m.norm.eps)
    return s.expansion(x)


register(
    {
        nn.MultiheadAttention: _multihead_module,
        nn.TransformerEncoderLayer: _encoder_layer_module,
        nn.TransformerEncoder: _encoder_module,
    },
    {
        F.scaled_dot_product_attention: (
            _scaled_dot_product,
            "query key value attn_mask dropout_p is_causal scale enable_gqa",
        ),
    },
    {},
)
