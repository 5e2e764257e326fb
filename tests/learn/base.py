"""What every layer must pass: a layer's test is its model, its input shape, and nothing else."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

import qfx
from qfx import Config, FixedPoint
from qfx.learn import QuantizedModel
from qfx.learn.clips import idle_clips

NARROW = Config(weight=FixedPoint(4), activation=FixedPoint(4))
CHANNELS = Config(weight=FixedPoint(5), activation=FixedPoint(6), per_channel=True)
KEPT = Config(weight=FixedPoint(6), activation=FixedPoint(5), batch_norm="keep")
TRUNCATED = Config(
    weight=FixedPoint(5, rounding="TRN", overflow="SAT_SYM"),
    activation=FixedPoint(7, rounding="TRN_ZERO", overflow="WRAP"),
    input=FixedPoint(6, 3, rounding="RND_INF", overflow="SAT_ZERO"),
    bias=FixedPoint(9, rounding="RND_MIN_INF"),
    output=FixedPoint(6, 2, rounding="RND_ZERO", overflow="WRAP_SM"),
)
#: Products of more than 30 bits: sums leave float32's mantissa, and torch has to notice.
WIDE = Config(
    weight=FixedPoint(16),
    activation=FixedPoint(18),
    input=FixedPoint(18),
    bias=FixedPoint(28),
    scale=FixedPoint(14),
    output=FixedPoint(30),
)
CONFIGS = {
    "narrow": NARROW,
    "channels": CHANNELS,
    "kept": KEPT,
    "truncated": TRUNCATED,
    "wide": WIDE,
    "exact": Config(output="exact"),
}


class NetworkTest:
    """What a network must pass in any formats; subclasses give ``model`` and ``shape`` (without batch)."""

    shape: tuple[int, ...]

    def model(self) -> nn.Module:
        raise NotImplementedError

    def data(self, samples: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(samples, *self.shape, generator=generator)

    def other_data(self) -> torch.Tensor:
        """What running statistics are taken from."""
        return self.data(32, seed=5) * 1.5 + 0.3

    def prepared(self, config: Config) -> tuple[nn.Module, QuantizedModel]:
        torch.manual_seed(1)
        model = self.model()
        # Statistics and parameters of a BatchNorm that are not those of a fresh one.
        with torch.no_grad():
            model.train()(self.other_data())
            for module in model.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(std=0.3)
        q = qfx.prepare(model, self.data(2), config)
        return model, qfx.calibrate(q, [self.data(64), self.data(64, seed=2)])

    def trained_and_frozen(self, config: Config) -> QuantizedModel:
        """Train, save, load, freeze; torch in eval() equals the graph on every bit, layer by layer."""
        model, q = self.prepared(config)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        x = self.data(16, seed=3)

        q.train()
        optimizer = torch.optim.SGD(q.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            q(x).square().mean().backward()
            for name, parameter in q.named_parameters():
                if parameter.requires_grad:
                    assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            optimizer.step()
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), f"prepare changed {name} of the original"

        x = 2 * self.data(33, seed=4)
        g = qfx.freeze(q)
        expected = g.run(x)
        y = q(x).detach()
        np.testing.assert_array_equal(y.double().numpy(), expected)
        with torch.no_grad():
            np.testing.assert_array_equal(q(x).double().numpy(), expected)

        buffer = io.BytesIO()
        torch.save(q.state_dict(), buffer)
        buffer.seek(0)
        fresh = qfx.prepare(model, self.data(2), config)
        fresh.load_state_dict(torch.load(buffer, weights_only=True))
        np.testing.assert_array_equal(fresh.eval()(x).detach().double().numpy(), expected)
        np.testing.assert_array_equal(copy.deepcopy(q)(x).detach().double().numpy(), expected)
        return q

    def tapped(self, config: Config) -> None:
        """The submodule that ``torch_taps`` names makes exactly the codes of the graph's node."""
        _, q = self.prepared(config)
        g = qfx.freeze(q)
        x = self.data(5, seed=6)
        seen: dict[str, torch.Tensor] = {}
        # A clip that the cast behind makes superfluous is a ReLU in the graph alone.
        untapped = [n for n in g.nodes if n.name not in g.torch_taps]
        assert len(set(g.torch_taps.values())) == len(g.nodes) - len(untapped)
        assert len(untapped) == len(idle_clips(q)) and all(n.op.kind == "relu" for n in untapped)
        for name, target in g.torch_taps.items():
            q.get_submodule(target).register_forward_hook(
                lambda m, a, y, name=name: seen.__setitem__(name, y.detach())
            )
        with torch.no_grad():
            q(x)
        for name, codes in g.trace(x).items():
            if name not in g.torch_taps:
                continue
            fracs = np.asarray(g[name].tensor.fracs).reshape(-1, *(1,) * (codes.ndim - 2))
            np.testing.assert_array_equal(
                seen[name].double().numpy(), np.ldexp(codes.astype(float), -fracs), err_msg=name
            )


class LayerTest(NetworkTest):
    """A layer in fixed-point formats."""

    #: Largest difference to the float model in wide formats.
    tolerance = 1e-3

    @pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
    def test_from_training_to_the_graph(self, config: Config) -> None:
        self.trained_and_frozen(config)

    def test_every_tap_is_its_node(self) -> None:
        self.tapped(NARROW)

    def test_wide_formats_compute_the_float_model(self) -> None:
        """With 16 bits and more everywhere little is lost: every operator, attribute and operand is where it
        belongs.
        """
        model, q = self.prepared(WIDE)
        x = self.data(8, seed=7)
        with torch.no_grad():
            torch.testing.assert_close(
                q.eval()(x).double(), model.eval()(x).double(), atol=self.tolerance, rtol=self.tolerance
            )
