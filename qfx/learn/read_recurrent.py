"""Readers of recurrent layers, unrolled in time: nn.RNN, nn.GRU and nn.LSTM, from states of 0.

All time steps share their weights and their quantizers: hardware that runs one cell many times has one format
for each signal. What the weights make of the inputs is computed for all steps at once, and stays exact until
the hidden part is added. With the gates in the order of torch,

    LSTM:  c' = f * c + i * g,   h' = o * tanh(c')
    GRU:   n = tanh(x_n + r * h_n),   h' = n + z * (h - n)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch import nn

from qfx.approx import Real
from qfx.formats.fixed import FixedPoint
from qfx.learn.layers import Node, Sketch, derived, positional, wider
from qfx.learn.operations import Context, Expansion, Refusal, register


class _Cell:
    """One direction of one layer.

    Args:
        s: writes below a prefix of its own.
        inputs: ``(features, steps)``.
        size: of the hidden state.
        weights: ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``; biases may be ``None``.
        share: distinguishes the quantizers of this cell from those of others.
    """

    gates: int

    def __init__(
        self, s: Sketch, inputs: Node, size: int, weights: list[nn.Parameter | None], share: str
    ) -> None:
        self.s, self.inputs, self.size, self.share = s, inputs, size, share
        weight_ih, weight_hh, self.bias_ih, self.bias_hh = weights
        assert weight_ih is not None and weight_hh is not None
        self.weight_hh = weight_hh
        kernel = positional(s.context, weight_ih)
        self.projected = s.linear(inputs, kernel, self.input_bias(), "input", exact=True)

    def input_bias(self) -> nn.Parameter | None:
        """Both biases in one where they are added anyway."""
        if self.bias_ih is None or self.bias_hh is None:
            return None
        other = self.bias_hh.detach()
        return derived(self.s.context, self.bias_ih, "both", lambda b: b + other)

    def run(self, reverse: bool) -> tuple[list[Node], tuple[Node, ...]]:
        """The hidden state of every step, in the order of the inputs, and the last states."""
        steps = self.s.size(self.inputs)[1]
        hidden: list[Node] = []
        state: tuple[Node, ...] | None = None
        for t in reversed(range(steps)) if reverse else range(steps):
            column = self.s.slice(self.projected, {1: slice(t, t + 1)}, exact=True)
            state = self.step(column, state)
            hidden.append(state[0])
        assert state is not None
        return (hidden[::-1] if reverse else hidden), state

    def step(self, column: Node, state: tuple[Node, ...] | None) -> tuple[Node, ...]:
        """The next states; ``column`` is exact, ``(gates * size, 1)``; no state means 0."""
        raise NotImplementedError

    def shared(self, name: str, **options: Any) -> dict[str, Any]:
        """Name and quantizer of a signal."""
        return {"name": name, "share": f"{self.share}.{name}", **options}

    def part(self, x: Node, index: int, count: int = 1, **options: Any) -> Node:
        """Some of the gates."""
        return self.s.slice(x, {0: slice(index * self.size, (index + count) * self.size)}, **options)

    def sum(self, column: Node, state: tuple[Node, ...] | None, name: str) -> Node:
        """Inputs and hidden state together, cast."""
        shape = (self.s.size(column)[0],)
        if state is None:
            return self.s.put("reshape", [column], {"shape": shape}, shape, **self.shared(name))
        column = self.s.put("reshape", [column], {"shape": shape}, shape, "reshape", exact=True)
        hidden = self.s.linear(state[0], self.weight_hh, None, "hidden", exact=True)
        return self.s.binary("add", column, hidden, **self.shared(name))

    def function(self, x: Node, real: str, name: str) -> Node:
        return self.s.function(x, Real(real), **self.shared(name))


class _LSTM(_Cell):
    gates = 4

    def step(self, column: Node, state: tuple[Node, ...] | None) -> tuple[Node, ...]:
        s = self.s
        gates = self.sum(column, state, "gates")
        names = (("sigmoid", "i"), ("sigmoid", "f"), ("tanh", "g"), ("sigmoid", "o"))
        i, f, g, o = (
            None if state is None and name == "f" else self.function(self.part(gates, k), real, name)
            for k, (real, name) in enumerate(names)
        )
        assert i is not None and g is not None and o is not None
        # The cell keeps small changes over many steps: a few bits more than activations have.
        cell = self.shared("cell", format=wider(4))
        if state is None or f is None:
            c = s.binary("mul", i, g, **cell)
        else:
            new = s.binary("mul", i, g, "new", exact=True)
            c = s.binary("add", s.binary("mul", f, state[1], "kept", exact=True), new, **cell)
        h = s.binary("mul", o, self.function(c, "tanh", "cell_tanh"), **self.shared("state"))
        return h, c


class _GRU(_Cell):
    gates = 3

    def input_bias(self) -> nn.Parameter | None:
        return self.bias_ih

    def step(self, column: Node, state: tuple[Node, ...] | None) -> tuple[Node, ...]:
        s = self.s
        if state is None:
            state = (s.constant(torch.zeros(self.size), "start", FixedPoint(1, 0)),)
        shape = (s.size(column)[0],)
        column = s.put("reshape", [column], {"shape": shape}, shape, "reshape", exact=True)
        hidden = s.linear(state[0], self.weight_hh, self.bias_hh, "hidden", exact=True)
        inputs, own = self.part(column, 0, 2, exact=True), self.part(hidden, 0, 2, exact=True)
        gates = s.binary("add", inputs, own, **self.shared("gates"))
        r = self.function(self.part(gates, 0), "sigmoid", "r")
        z = self.function(self.part(gates, 1), "sigmoid", "z")
        candidate = self.part(hidden, 2, **self.shared("hidden_candidate"))
        product = s.binary("mul", r, candidate, "reset", exact=True)
        n = s.binary("add", self.part(column, 2, exact=True), product, **self.shared("candidate"))
        n = self.function(n, "tanh", "n")
        change = s.binary("mul", z, s.binary("sub", state[0], n, "change", exact=True), "change", exact=True)
        return (s.binary("add", n, change, **self.shared("state")),)


class _RNN(_Cell):
    gates = 1
    activation = "tanh"

    def step(self, column: Node, state: tuple[Node, ...] | None) -> tuple[Node, ...]:
        if self.activation == "relu":
            return (self.s.relu(self.sum(column, state, "sum"), "state"),)
        return (self.function(self.sum(column, state, "sum"), "tanh", "state"),)


class _ReluRNN(_RNN):
    activation = "relu"


def _reader(c: Context, a: dict[str, Any]) -> Expansion:
    m = a["module"]
    if not m.batch_first:
        raise Refusal("batch_first=False has the batch axis second; use batch_first=True")
    if getattr(m, "proj_size", 0):
        raise Refusal("proj_size is not supported; put a Linear behind the layer")
    x = c.dynamic(a["input"])
    if len(c.size(x)) != 2:
        raise Refusal(f"its operand has shape {c.size(x)} without the batch; expected (steps, features)")
    given = list(c.node.args[1:]) + [v for n, v in c.node.kwargs.items() if n != "input"]
    for state in given:
        _refuse_unless_zero(c, state)
    kinds: dict[type, type[_Cell]] = {nn.LSTM: _LSTM, nn.GRU: _GRU, nn.RNN: _RNN}
    kind = next(kinds[k] for k in type(m).__mro__ if k in kinds)
    if kind is _RNN and m.nonlinearity == "relu":
        kind = _ReluRNN
    s = Sketch(c)
    directions = 2 if m.bidirectional else 1
    last: list[tuple[Node, ...]] = []
    for layer in range(m.num_layers):
        columns, sequences = s.front(x, 1), []
        for direction in range(directions):
            suffix = f"l{layer}" + ("_reverse" if direction else "")
            names = [f"{n}_{suffix}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            weights = [getattr(m, n, None) for n in names]
            cell = kind(s.within(suffix), columns, m.hidden_size, weights, f"{c.node.target}.{suffix}")
            hidden, state = cell.run(reverse=direction == 1)
            last.append(state)
            rows = [s.reshape(h, (1, m.hidden_size)) for h in hidden]
            sequences.append(s.concat(rows, f"{suffix}.sequence", exact=True))
        x = sequences[0]
        if directions == 2:
            x = s.back(s.concat([s.front(y, 1) for y in sequences], f"l{layer}.both"), 1)
    states = tuple(tuple(state[i] for state in last) for i in range(len(last[0])))
    return s.expansion((x, states if len(states) > 1 else states[0]))


def _refuse_unless_zero(c: Context, state: Any) -> None:
    if state is None:
        return
    entries = list(state) if isinstance(state, tuple | list) else [state]
    for entry in entries:
        value = None if c.is_dynamic(entry) else c.constant(entry)
        if isinstance(value, tuple | list):
            _refuse_unless_zero(c, tuple(value))
        elif not isinstance(value, torch.Tensor) or bool(value.any()):
            raise Refusal("states to begin with other than 0 are not supported")


register({nn.LSTM: _reader, nn.GRU: _reader, nn.RNN: _reader}, {}, {})
