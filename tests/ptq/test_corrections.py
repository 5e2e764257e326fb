"""Bias correction and re-estimation of BatchNorm: means and variances, computed apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import qfx
from qfx import ptq
from qfx.nn import QuantBatchNorm
from qfx.nn.weighted import QuantWeighted
from qfx.ptq.walk import inputs, walk
from tests.ptq.ptq_networks import network


def mean_errors(
    q: object, reference: object, batches: list[torch.Tensor], everything: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every layer: the difference of channel means from the float network's, and half a step of the
    bias."""
    found = []
    for visit in walk(q, inputs(q, batches), reference, progress=False):  # type: ignore[arg-type]
        if isinstance(visit.module, QuantWeighted):
            wanted = visit.float_results if everything else visit.float_layer()
            a, b = (torch.cat(r).detach().double().numpy() for r in (visit.results(), wanted))
            axes = tuple(i for i in range(a.ndim) if i != 1)
            step = 0.0
            if visit.module.bias_quantizer is not None:
                step = np.ldexp(0.5, -np.asarray(visit.module.bias_quantizer.frac))
            found.append((np.abs(a.mean(axis=axes) - b.mean(axis=axes)), np.broadcast_to(step, a.shape[1])))
    return found


@pytest.mark.parametrize("everything", [False, True])
def test_bias_correction_makes_means_equal(everything: bool) -> None:
    for name in ("residual", "mlp"):
        model, batches, x = network(name, 1)
        config = qfx.Config(weight=qfx.FixedPoint(4), activation=qfx.FixedPoint(5), per_channel=True)
        q = qfx.calibrate(qfx.prepare(model, x[:1], config), batches)
        result = ptq.correct_bias(q, batches, ptq.BiasCorrection(everything), progress=False)
        before = mean_errors(q, q, batches, everything)
        after = mean_errors(result, q, batches, everything)
        assert max(e.max() for e, _ in before) > 0.02
        for error, half_step in after:
            assert (error <= half_step + 1e-5).all()  # float32 sums of about 1
        layers = [m for m in result.modules() if isinstance(m, QuantWeighted)]
        assert all(layer.bias is not None for layer in layers)


def test_batch_norm_of_a_float_model() -> None:
    model, batches, _ = network("mlp")
    result = ptq.reestimate_batch_norm(model, batches)
    norm, old = result[1], model[1]
    assert isinstance(norm, nn.BatchNorm1d) and isinstance(old, nn.BatchNorm1d)
    operand = model[0](torch.cat(batches)).detach().double().numpy()
    np.testing.assert_allclose(norm.running_mean.numpy(), operand.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), operand.var(axis=0, ddof=1), rtol=1e-5)
    assert not torch.equal(norm.running_mean, old.running_mean)
    assert not result.training and norm.momentum == old.momentum
    assert torch.equal(norm.weight, old.weight)


def test_batch_norm_that_was_kept() -> None:
    model, batches, x = network("mlp")
    config = qfx.Config(weight=qfx.FixedPoint(3), activation=qfx.FixedPoint(4), batch_norm="keep")
    q = qfx.calibrate(qfx.prepare(model, x[:1], config), batches)
    result = ptq.reestimate_batch_norm(q, batches, progress=False)
    (norm,) = (m for m in result.modules() if isinstance(m, QuantBatchNorm))
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, operands: seen.append(operands[0].double()))
    with torch.no_grad():
        result.eval()(torch.cat(batches))
    handle.remove()
    np.testing.assert_allclose(norm.running_mean.numpy(), seen[0].mean(0).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), seen[0].var(0).numpy(), rtol=1e-5)


def test_batch_norm_before_folding_changes_the_folded_weights() -> None:
    model, batches, x = network("residual")
    with_it = ptq.quantize(model, batches, methods=("batch_norm", "calibration"), progress=False)
    plain = ptq.quantize(ptq.reestimate_batch_norm(model, batches), batches, methods=(), progress=False)
    without = ptq.quantize(model, batches, methods=("calibration",), progress=False)
    with torch.no_grad():
        assert torch.equal(with_it(x), plain(x))
        assert not torch.equal(with_it(x), without(x))
