"""GPTQ and the quadratic problem behind it, against plain numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import qfx
from qfx import ptq
from qfx.nn import QuantConv, QuantLinear
from qfx.ptq.gptq import round_columns
from qfx.ptq.grid import Grid, grid_of
from qfx.ptq.layerwise import Problem
from qfx.ptq.matrices import columns, damped, moments, objective, pooled, weight_rows
from qfx.ptq.walk import inputs, walk
from tests.ptq.ptq_networks import network


def textbook(weights: np.ndarray, hessian: np.ndarray, numbers: np.ndarray, order: list[int]) -> np.ndarray:
    """Optimal brain quantization in a given order: the inverse of H is formed anew before every column."""
    work, rounded = weights.copy(), np.zeros_like(weights)
    left = list(order)
    for j in order:
        inverse = np.linalg.inv(hessian[np.ix_(left, left)])
        at = left.index(j)
        rounded[:, j] = numbers[np.abs(work[:, j, None] - numbers).argmin(axis=1)]
        error = (work[:, j] - rounded[:, j]) / inverse[at, at]
        work[:, left] -= error[:, None] * inverse[at]
        left.remove(j)
    return rounded


@pytest.mark.parametrize("fmt", [qfx.FixedPoint(4, 3), qfx.Minifloat(2, 1, 2), qfx.KHot(5, 3, k=1)], ids=str)
@pytest.mark.parametrize("order", [False, True])
def test_against_the_textbook(fmt: qfx.FixedPoint, order: bool) -> None:
    random = np.random.default_rng(1)
    for n, rows, block in ((1, 2, 128), (9, 5, 4), (37, 6, 8)):
        weights = random.normal(size=(rows, n)) * 0.5
        samples = random.normal(size=(n, 3 * n)) * random.uniform(0.1, 3, (n, 1))
        hessian = samples @ samples.T + 0.01 * np.eye(n)
        grid = grid_of(qfx.nn.Quantizer(fmt))
        assert grid is not None
        found = round_columns(
            grid.rows(1, rows),
            torch.from_numpy(weights)[None],
            torch.from_numpy(hessian)[None],
            order=order,
            block=block,
        )
        sequence = list(np.argsort(-np.diag(hessian), kind="stable")) if order else list(range(n))
        expected = textbook(weights, hessian, np.unique(fmt.values()), [int(j) for j in sequence])
        np.testing.assert_array_equal(found[0].numpy(), expected)


def test_groups_are_independent() -> None:
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 4, 6, generator=random, dtype=torch.float64)
    x = torch.randn(3, 6, 30, generator=random, dtype=torch.float64)
    hessian = x @ x.mT
    grid = Grid(torch.exp2(torch.arange(12.0, dtype=torch.float64) % 3).reshape(3, 4, 1), -8.0, 7.0, None)
    together = round_columns(grid, weights, hessian)
    for g in range(3):
        one = Grid(grid.scale[g : g + 1], -8.0, 7.0, None)
        assert torch.equal(together[g : g + 1], round_columns(one, weights[g : g + 1], hessian[g : g + 1]))


@pytest.mark.parametrize("name", ["residual", "mlp"])
def test_columns_make_a_layer_a_product(name: str) -> None:
    model, batches, x = network(name)
    q = qfx.calibrate(qfx.prepare(model, x[:1]), batches)
    seen = set()
    for visit in walk(q, inputs(q, batches), progress=False):
        layer = visit.module
        if isinstance(layer, QuantConv | QuantLinear):
            seen.add((type(layer), getattr(layer, "groups", 1)))
            weight, bias = layer.parameters_exact(None)
            for (operand,), result in zip(visit.operands, visit.results(), strict=True):
                c = columns(layer, operand).double()
                rows = weight.double().reshape(1, c.shape[1], -1, c.shape[2])
                product = (rows @ c).flatten(1, 2).reshape(result.shape)
                if bias is not None:
                    product += bias.double().reshape(1, -1, *(1,) * (result.ndim - 2))
                torch.testing.assert_close(product, result.double(), rtol=1e-5, atol=1e-5)
    assert len(seen) == (3 + 1 if name == "residual" else 1)


@pytest.mark.parametrize("bias", [False, True])
def test_the_objective_is_the_error_of_the_results(bias: bool) -> None:
    """``(W' - T) H (W' - T)^T`` differs from the squared error, computed from results, by a constant."""
    model, batches, x = network("residual", 5)
    q = qfx.calibrate(qfx.prepare(model, x[:1], qfx.Config(weight=qfx.FixedPoint(4))), batches)
    options = ptq.GPTQ(places=None, damp=1e-12, correct_inputs=False, correct_bias=bias)
    for visit in walk(q, inputs(q, batches), progress=False):
        layer = visit.module
        if not isinstance(layer, QuantConv | QuantLinear):
            continue
        problem = Problem.of(visit, options)
        seen = pooled(moments(visit, None))
        central = seen.centred() if bias else seen
        c = torch.cat(
            [columns(layer, o).double().permute(1, 2, 0, 3).flatten(2) for (o,) in visit.operands], dim=2
        )
        torch.testing.assert_close(seen.hessian, c @ c.mT / c.shape[2], rtol=1e-5, atol=1e-6)
        changed = weight_rows(layer) * 0.9
        difference = (changed - problem.weights) @ c
        error = difference.var(2, correction=0) if bias else difference.square().mean(2)
        torch.testing.assert_close(
            objective(changed, problem.target, central.hessian), error, rtol=1e-4, atol=1e-8
        )
        trusted = damped(central.hessian, 1e-12, seen.count)
        torch.testing.assert_close(trusted.diagonal(dim1=1, dim2=2), central.hessian.diagonal(dim1=1, dim2=2))


def test_the_regression_lowers_the_error_of_the_results() -> None:
    """With coarse activations, the target is closer to the float results than the float weights are."""
    model, batches, x = network("mlp", 2)
    q = qfx.calibrate(
        qfx.prepare(model, x[:1], qfx.Config(activation=qfx.FixedPoint(3), input=qfx.FixedPoint(3))), batches
    )
    improved = 0
    for visit in walk(q, inputs(q, batches), progress=False):
        if isinstance(visit.module, QuantLinear):
            problem = Problem.of(visit, ptq.GPTQ(correct_inputs=True, correct_bias=False))
            quantized, plain = (
                torch.cat([o for (o,) in v]).double() for v in (visit.operands, visit.float_operands)
            )
            wanted = plain @ problem.weights[0].T
            before = (quantized @ problem.weights[0].T - wanted).square().sum()
            after = (quantized @ problem.target[0].T - wanted).square().sum()
            assert after <= before * (1 + 1e-9)
            improved += bool(after < 0.99 * before)
    assert improved
