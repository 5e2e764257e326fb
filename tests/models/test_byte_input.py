"""Networks that take bytes: the same results, and nothing lost in front of the first convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import qfx
from qfx import models

MEAN, STD = (0.485, 0.2, 0.9), (0.229, 0.5, 0.1)


class _Two(nn.Module):
    """Two convolutions read the input, one of them per channel, with a bias and without."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.dense = nn.Conv2d(3, 6, 3, padding=padding, bias=False)
        self.apart = nn.Conv2d(3, 6, 3, padding=padding, groups=3)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.dense(x) + self.apart(x)))


def _images(count: int = 4) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 9, 9))).float()


def _normalized(x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return (x / 255 - mean) / std


@pytest.mark.parametrize("padding", [0, 1])
def test_the_same_results(padding: int) -> None:
    torch.manual_seed(0)
    model, x = _Two(padding).double().eval(), _images().double()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    taking = models.byte_input(model, _normalized(x), MEAN, STD)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    with torch.no_grad():
        error = (taking(x) - model(_normalized(x))).abs()
    inside = error[:, :, padding : 9 - padding, padding : 9 - padding]
    assert inside.max() < 1e-6
    # At the border, zeros of the padding are off by half a byte at most.
    reach = sum(m.weight.abs().sum((1, 2, 3)).max() for m in (model.dense, model.apart)) / min(STD)
    assert error.max() <= reach * 0.5 / 255 * model.last.weight.abs().sum((1, 2, 3)).max()
    assert (error.max() > 1e-6) == (padding == 1)


def test_the_cast_loses_nothing() -> None:
    """The graph takes bytes, and the first convolutions read their differences as they are."""
    torch.manual_seed(0)
    model, x = _Two(1).eval(), _images(16)
    taking = models.byte_input(model, _normalized(x), MEAN, STD).eval()
    config = qfx.Config(
        input=qfx.FixedPoint(8, 0, signed=False), overrides={"sub": {"activation": qfx.FixedPoint(9, 0)}}
    )
    q = qfx.ptq.quantize(taking, [x], config, progress=False)
    graph = qfx.freeze(q)
    with torch.no_grad():
        assert (q(x).double().numpy() == graph.run(x.numpy())).all()
    convolution = next(n for n in graph.nodes if type(n.op).__name__ == "Conv")
    read = graph.trace(x.numpy())[convolution.inputs[0]]
    mean = np.array([round(255 * m) for m in MEAN]).reshape(1, 3, 1, 1)
    assert (read == x.numpy() - mean).all()


def test_refusals() -> None:
    x = _normalized(_images())
    linear = nn.Sequential(nn.Flatten(), nn.Linear(243, 2))
    with pytest.raises(qfx.QfxError, match=r"byte_input.*found 0: Flatten.*inside of the model"):
        models.byte_input(linear, x, MEAN, STD)
    reflected = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(qfx.QfxError):
        models.byte_input(reflected, x, MEAN, STD)
    same = nn.Conv2d(3, 3, 1)
    with pytest.raises(qfx.QfxError, match="each called once"):
        models.byte_input(nn.Sequential(same, same), x, MEAN, STD)
    for mean, std in (((0.5,), STD), (MEAN, (1.0, 0.0, 1.0)), ((100.0, 1.0, 1.0), STD)):
        with pytest.raises(qfx.QfxError, match="byte_input"):
            models.byte_input(_Two(0), x, mean, std)


def test_hardware() -> None:
    """The accelerator takes the bytes: Verilog in simulation, and hls4ml's C simulation."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.ReLU6(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(),
        nn.Linear(36, 3),
    ).eval()  # fmt: skip
    x = _images(12)
    taking = models.byte_input(model, _normalized(x), MEAN, STD)
    config = qfx.Config(
        input=qfx.FixedPoint(8, 0, signed=False), overrides={"sub": {"activation": qfx.FixedPoint(9, 0)}}
    )
    q = qfx.ptq.quantize(taking, [x], config, progress=False)
    report = qfx.verify(qfx.freeze(q), x[:2].numpy(), torch_model=q)
    assert report.ok, str(report)
