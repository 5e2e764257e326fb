"""Search of formats and of ranges, against trying everything."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import qfx
from qfx import ptq
from qfx.nn import QuantLinear
from qfx.ptq.ranges import ENOUGH, descend, enough, expected_end
from qfx.ptq.search import splits_of
from qfx.ptq.walk import float_network
from tests.ptq.ptq_networks import network, same_bits


def test_splits() -> None:
    e2m3 = qfx.Minifloat(2, 3)
    found = splits_of(e2m3, None)
    assert found[0] == e2m3
    assert {(f.exponent_bits, f.mantissa_bits) for f in found} == {(e, 5 - e) for e in range(6)}
    assert all(f.width == 6 for f in found)
    assert splits_of(e2m3, ()) == [e2m3]
    assert splits_of(qfx.Minifloat(4, 3, specials="fn"), None) == [qfx.Minifloat(4, 3, specials="fn")]
    assert splits_of(qfx.FixedPoint(4), None) == [qfx.FixedPoint(4)]


def test_weights_against_trying_everything() -> None:
    """One layer, all splits, all positions per channel: the error of its results, by numpy."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    layer = nn.Linear(6, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random.standard_t(2, (5, 6))))
    x = torch.from_numpy(random.normal(size=(400, 6)) @ random.normal(size=(6, 6))).float()
    config = qfx.Config(weight=qfx.Minifloat(2, 2), per_channel=True, input=qfx.FixedPoint(16))
    q = qfx.calibrate(qfx.prepare(nn.Sequential(layer), x[:1], config), [x])
    options = ptq.FormatSearch(
        activation=False, damp=1e-9, correct_inputs=False, correct_bias=False, places=None
    )
    result = ptq.search_formats(q, [x], options, progress=False)
    fmt = result.get_submodule("0").weight_quantizer.format
    operand = qfx.freeze(q).nodes[0].tensor.format.quantize(x.double().numpy())
    weight = layer.weight.detach().double().numpy()

    # What the layer's errors are measured by, the shrinkage for a finite sample included.
    hessian = operand.T @ operand / len(x)
    trust = len(x) / (len(x) + 6)
    hessian = hessian * trust + np.diag(np.diag(hessian)) * (1 - trust)

    def errors(candidate: qfx.Minifloat, frac: int) -> np.ndarray:
        error = candidate.with_frac(frac).quantize(weight) - weight
        return np.einsum("oi,ij,oj->o", error, hessian, error)

    totals = {}
    for e in range(5):
        candidate = qfx.Minifloat(e, 4 - e)
        table = np.stack([errors(candidate, f) for f in range(-12, 25)])
        totals[e] = table.min(axis=0).sum()
    here = sum(
        errors(qfx.Minifloat(fmt.exponent_bits, fmt.mantissa_bits), f)[i] for i, f in enumerate(fmt.frac)
    )
    np.testing.assert_allclose(here, min(totals.values()), rtol=1e-5)
    assert fmt.exponent_bits == min(totals, key=lambda e: totals[e])


def test_activations_are_placed_for_the_float_network() -> None:
    """However wrong the weights are, what is searched is the cast of what they should have computed."""
    model, batches, x = network("residual")
    found = []
    for width in (2, 12):
        config = qfx.Config(weight=qfx.FixedPoint(width), activation=qfx.FixedPoint(4))
        q = qfx.calibrate(qfx.prepare(model, x[:1], config), batches)
        result = ptq.search_formats(q, batches, ptq.FormatSearch(weight=False), progress=False)
        quantizers = qfx.quantizers(result)
        found.append({n: m.frac for n, m in quantizers.items() if "weight" not in n and "bias" not in n})
    assert len(found[0]) > 3
    assert found[0] == found[1]


def test_the_split_of_the_input_against_trying_everything() -> None:
    """The network's input is an activation like others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    found = []
    even, long_tailed = torch.rand(3000, 4) * 2 - 1, np.random.default_rng(0).standard_t(1, (3000, 4))
    for x in (even, torch.from_numpy(long_tailed).float()):
        config = qfx.Config(activation=qfx.FixedPoint(12), input=qfx.Minifloat(4, 3))
        q = qfx.calibrate(qfx.prepare(model, x[:1], config), [x])
        result = ptq.search_formats(q, [x], ptq.FormatSearch(weight=False), progress=False)
        assert same_bits(result, x)
        fmt = qfx.quantizers(result)["input"].format

        def error(candidate: qfx.Minifloat, x: torch.Tensor = x) -> float:
            return float(np.square(candidate.quantize(x.double().numpy()) - x.double().numpy()).sum())

        every = (qfx.Minifloat(e, 7 - e).with_frac(f) for e in range(6) for f in range(-30, 25))
        assert error(fmt) <= min(map(error, every)) * (1 + 1e-9)
        found.append(fmt.exponent_bits)
    assert found[0] == 0 and found[1] >= 3  # evenly spread numbers, and numbers of every size


def test_positions_kept_close() -> None:
    model, batches, x = network("residual")
    config = qfx.Config(weight=qfx.Minifloat(2, 1), per_channel=True)
    q = qfx.calibrate(qfx.prepare(model, x[:1], config), batches)
    free = ptq.search_formats(q, batches, progress=False)
    near = ptq.search_formats(q, batches, ptq.FormatSearch(spread=1), progress=False)
    spans = []
    for result in (free, near):
        weights = [m.weight_quantizer for m in result.modules() if hasattr(m, "weight_quantizer")]
        spans.append(max(int(np.ptp(np.asarray(w.frac))) for w in weights if w.channels > 1))
    assert spans[0] > 1 == spans[1]
    assert same_bits(near, x)


def test_a_frozen_point_stays() -> None:
    model, batches, x = network("mlp")
    config = qfx.Config(weight=qfx.Minifloat(2, 1, 3), activation=qfx.FixedPoint(6, 3))
    for method in ("format_search", "range_search"):
        q = ptq.quantize(model, batches, config, (method,), progress=False)
        for layer in (m for m in q.modules() if isinstance(m, QuantLinear)):
            assert layer.weight_quantizer.format == qfx.Minifloat(2, 1, 3)
        assert q.get_submodule("2.output").format == qfx.FixedPoint(6, 3, signed=False)


def test_descent_to_a_position() -> None:
    assert descend(lambda f: (f - 3) ** 2, 1, 5) == 3
    assert descend(lambda f: (f - 3) ** 2, 7, 2) == 5
    assert descend(lambda f: (f + 2) ** 2, 0, 5) == -2
    assert descend(lambda f: 0.0, 4, 3) == 4


def test_ranges_against_trying_neighbours() -> None:
    """The error of the result with one cast alone: no neighbour of the position is better. With so many
    samples nothing else counts."""
    model, _, x = network("residual", 4)
    batches = [torch.randn(ENOUGH // 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))]
    q = qfx.calibrate(qfx.prepare(model, x[:1], qfx.Config(activation=qfx.FixedPoint(4))), batches)
    options = ptq.RangeSearch(samples=ENOUGH // 4, reach=6)
    result = ptq.search_ranges(q, batches, options, progress=False)
    data, moved = torch.cat(batches), 0
    plain = float_network(q)
    with torch.no_grad():
        wanted = plain._qfx_execute(data, None)
        for name, quantizer in qfx.quantizers(result).items():
            if "weight" in name or "bias" in name:
                continue
            cast = plain.get_submodule(name)
            errors = {}
            for frac in (quantizer.frac - 1, quantizer.frac, quantizer.frac + 1):
                cast.set(frac)
                cast.bypass = False
                errors[frac] = float((plain._qfx_execute(data, None) - wanted).square().sum())
                cast.bypass = True
            assert errors[quantizer.frac] == min(errors.values()), name
            moved += quantizer.frac != qfx.quantizers(q)[name].frac
    assert moved


def test_how_large_a_number_is_to_be_expected() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(400, ENOUGH)))
    truth = float(x.abs().amax(1).mean())
    for count in (16, 100, 1000):
        found = float(np.mean([expected_end(row[:count], True) for row in x]))
        assert 0.9 * truth < found < 1.1 * truth, (count, found, truth)
    assert expected_end(x[0], True) == 0.0  # enough were seen
    assert expected_end(torch.tensor([-3.0, 1.0]), False) == expected_end(torch.tensor([0.0, 1.0]), True)
    assert expected_end(torch.zeros(5), True) == expected_end(torch.zeros(0), True) == 0.0


def test_more_samples_where_tensors_are_small() -> None:
    for name, size in (("residual", 4), ("mlp", 3)):
        model, _, x = network(name)
        q = qfx.prepare(model, x[:1], qfx.Config())
        many = torch.randn(5000, *x.shape[1:])
        assert len(enough(q, many, 8)) == 64 and len(enough(q, many, 100)) == 100
        assert len(enough(q, many[:20], 8)) == 20 and size * 64 < ENOUGH
    wide = qfx.prepare(nn.Sequential(nn.Linear(2048, 1024)), torch.zeros(1, 2048), qfx.Config())
    assert len(enough(wide, torch.zeros(100, 2048), 4)) == 8
    exact = qfx.prepare(nn.Sequential(nn.Linear(2048, 10)), torch.zeros(1, 2048), qfx.Config(output="exact"))
    assert len(enough(exact, torch.zeros(100, 2048), 4)) == 4


def test_ranges_from_few_numbers_hold_for_others() -> None:
    """Found with 16 samples of a dozen numbers each; without room for others, 8 bits had 16 dB here."""
    for method in ("range_filling", ptq.FormatSearch(weight=False), "range_search"):
        ratios = []
        for seed in range(4):
            model, batches, _ = network("mlp", seed)
            x = torch.randn(500, 7, generator=torch.Generator().manual_seed(100 + seed))
            config = qfx.Config(output="exact", per_channel=True)
            q = ptq.quantize(model, batches, config, ["equalization", method], progress=False)
            with torch.no_grad():
                wanted = model(x)
                ratios.append(float(wanted.square().sum() / (q(x) - wanted).square().sum()))
        assert np.mean(10 * np.log10(ratios)) > 24, (method, ratios)
