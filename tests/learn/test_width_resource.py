"""The resource loss: what it counts, and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import qfx
from qfx import Config, FixedPoint, QfxError
from qfx.learn import EBOPs, MeasuredCost, ResourceLoss, resource_loss
from qfx.nn.quantizer import BITS_PER_UNIT

LEARN = {"weight": "weight", "bias": "weight", "activation": "tensor", "input": "tensor"}


class Net(nn.Module):
    """Convolutions with stride, dilation, groups and padding, a shortcut, a shared layer, a product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, stride=2)
        self.wide = nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False)
        self.depth = nn.Conv2d(4, 4, (3, 1), padding=(1, 0), groups=2)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)
        # All channels reach about as far: none needs fewer bits than the others.
        nn.init.constant_(self.depth.weight, 0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.wide(x))
        x = self.pool(x + y * torch.relu(self.depth(y)))
        x = torch.relu(self.fc(torch.flatten(x, 1)))
        return self.head(torch.relu(self.fc(x)))


def prepared(learn_width: dict[str, str] | None = None) -> qfx.learn.QuantizedModel:
    torch.manual_seed(0)
    x = torch.randn(64, 2, 8, 8)
    config = Config(
        weight=FixedPoint(5), activation=FixedPoint(5), bias=FixedPoint(9), input=FixedPoint(6),
        learn_width=LEARN if learn_width is None else learn_width,
    )  # fmt: skip
    return qfx.calibrate(qfx.prepare(Net(), x[:2], config), [x])


@pytest.mark.parametrize("per", ["kernel", "inference"])
@pytest.mark.parametrize("learn_width", [LEARN, {}, {"weight": "tensor"}], ids=str)
def test_it_is_what_the_graph_counts(per: str, learn_width: dict[str, str]) -> None:
    q = prepared(learn_width)
    graph = qfx.freeze(q, prune=False)
    assert resource_loss(q, per=per).item() == qfx.ebops(graph, per)


def test_it_never_counts_less() -> None:
    """Channels that are always 0 cost nothing in the graph; the loss does not know of them."""
    q = prepared()
    with torch.no_grad():
        q.get_submodule("stem").weight[1] = 0
        q.get_submodule("stem").bias[1] = -1
    counted = resource_loss(q).item()
    assert qfx.ebops(qfx.freeze(q)) <= qfx.ebops(qfx.freeze(q, prune=False)) < counted


def test_the_gradient_is_the_cost_of_one_more_bit() -> None:
    """Against counting again with one fraction bit more, for tensors, where a bit is a bit."""
    q = prepared({"activation": "tensor", "input": "tensor"})
    # The operands of the sum differ in width: at a tie the derivative of a maximum is half of either's.
    with torch.no_grad():
        q.get_submodule("relu.output").reach_shift += 1 / BITS_PER_UNIT
    loss = ResourceLoss(q)
    loss().backward()
    moved = 0
    for m in qfx.quantizers(q).values():
        if not isinstance(m, qfx.nn.width.ActivationWidthQuantizer):
            continue
        before = loss().item()
        with torch.no_grad():
            m.shift += 1 / BITS_PER_UNIT
        after = loss().item()
        with torch.no_grad():
            m.shift -= 1 / BITS_PER_UNIT
        assert m.shift.grad is not None and m.reach_shift.grad is not None
        slope = m.shift.grad.item() / BITS_PER_UNIT
        assert m.reach_shift.grad.item() / BITS_PER_UNIT == slope
        assert slope == pytest.approx(after - before)
        moved += slope > 0
    # Seven of eight: the narrower operand of the sum adds nothing.
    assert moved == 7


def test_the_gradient_of_weights() -> None:
    """A bit of a weight costs the bits of its operand, at every position that it is used at."""
    q = prepared({"weight": "weight"})
    head = q.get_submodule("head")
    resource_loss(q, per="inference").backward()
    width = q.get_submodule("relu_3.output").format.width if "relu_3" in dict(q.named_children()) else 5
    alive = head.weight_quantizer.bits(head.weight) > 0
    expected = alive * (width * BITS_PER_UNIT)
    torch.testing.assert_close(head.weight_quantizer.shift.grad, expected.float())


def test_a_table_of_products_is_ebops() -> None:
    q = prepared()
    size = range(20)
    table = MeasuredCost([[float(w * a) for a in size] for w in size], [float(b) for b in size])
    a, b = resource_loss(q), resource_loss(q, table)
    torch.testing.assert_close(a, b)
    shifts = [m.shift for m in qfx.quantizers(q).values() if m.shift.requires_grad]
    for one, two in zip(
        torch.autograd.grad(a, shifts, allow_unused=True),
        torch.autograd.grad(b, shifts, allow_unused=True),
        strict=True,
    ):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            torch.testing.assert_close(one, two)


def test_a_table_between_and_beyond_its_entries() -> None:
    table = MeasuredCost([[0, 0, 0], [0, 2, 6], [0, 8, 20]], [0, 1, 3])
    w, a = torch.tensor([1.0, 1.0, 2.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 1.5, 3.0, 1.0])
    torch.testing.assert_close(table.multiplier(w, a), torch.tensor([2.0, 6.0, 14.0, 32.0, 14.0]))
    torch.testing.assert_close(table.adder(torch.tensor([0.0, 1.5, 4.0])), torch.tensor([0.0, 2.0, 7.0]))
    bits = torch.tensor([2.0], requires_grad=True)
    table.multiplier(bits, torch.tensor([1.0])).backward()
    assert bits.grad.item() == 6.0


def test_a_model_of_ones_own() -> None:
    class Multipliers(EBOPs):
        """How many are left."""

        def multiplier(self, constant_bits: torch.Tensor, operand_bits: torch.Tensor) -> torch.Tensor:
            return (constant_bits > 0).float() * (operand_bits > 0)

        def adder(self, bits: torch.Tensor) -> torch.Tensor:
            return bits * 0

    q = prepared()
    graph = qfx.freeze(q, prune=False)
    weights = sum(int((n.op.weight != 0).sum()) for n in graph.nodes if n.op.kind in ("linear", "conv"))
    products = sum(n.tensor.channels for n in graph.nodes if n.op.kind == "mul")
    assert resource_loss(q, Multipliers()).item() == weights + products


def test_what_is_refused() -> None:
    q = prepared()
    with pytest.raises(QfxError, match="'kernel', 'inference'"):
        resource_loss(q, per="pixel")
    with pytest.raises(QfxError, match="expected what qfx.prepare returned"):
        ResourceLoss(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(QfxError, match="at least 1 along each axis"):
        MeasuredCost([[0.0, 0.0]], [0.0, 1.0])
    with pytest.raises(QfxError, match="must cost 0"):
        MeasuredCost([[0, 0], [1, 1]], [0, 1])
