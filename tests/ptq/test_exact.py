"""Every method, on several networks and formats: the frozen graph equals torch, and arguments stay as they
are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import qfx
from qfx import ptq
from tests.ptq.ptq_networks import network, same_bits

FORMATS = {
    "integer": qfx.FixedPoint(4),
    "truncated": qfx.FixedPoint(5, rounding="TRN"),
    "E2M1": qfx.Minifloat(2, 1),
    "E3M2": qfx.Minifloat(3, 2),
    "K-hot": qfx.KHot(6, k=2),
}
ACTIVATIONS = {"integer": qfx.FixedPoint(6), "E3M2": qfx.Minifloat(3, 2)}
#: Few steps: what is compared here are bits.
QUICK = ptq.LearnedRounding(steps=10)
METHODS: dict[str, tuple[Any, ...]] = {
    **{name: (QUICK if name == "learned_rounding" else name,) for name in ptq.METHODS},
    "max": (ptq.Calibration("max", "max"),),
    "entropy": (ptq.Calibration("entropy", "percentile", percentile=99.0),),
    "all": tuple(QUICK if name == "learned_rounding" else name for name in ptq.METHODS),
    "none": (),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weight", FORMATS)
def test_the_graph_equals_torch(method: str, weight: str) -> None:
    cases = [("residual", True, False), ("mlp", False, True), ("mlp", True, False)]
    for number, (name, per_channel, kept) in enumerate(cases if weight == "integer" else cases[:2]):
        model, batches, x = network(name, number)
        activation = ACTIVATIONS["E3M2" if weight.startswith("E") else "integer"]
        config = qfx.Config(
            weight=FORMATS[weight],
            activation=activation,
            per_channel=per_channel,
            batch_norm="keep" if kept else "fold",
        )
        before = copy.deepcopy(model.state_dict())
        q = ptq.quantize(model, batches, config, METHODS[method], progress=False)
        assert not q.training
        assert same_bits(q, x)
        assert all(
            torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True)
        )


@pytest.mark.parametrize("method", ptq.METHODS)
def test_a_method_alone_changes_nothing_of_its_argument(method: str) -> None:
    model, batches, x = network("residual")
    q = qfx.calibrate(
        qfx.prepare(model, x[:1], qfx.Config(weight=qfx.FixedPoint(4), batch_norm="keep")), batches
    )
    before = copy.deepcopy(q.state_dict())
    options = QUICK if method == "learned_rounding" else None
    result = ptq.METHODS[method].apply(q, batches, options, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), q.state_dict().values(), strict=True))
    assert result is not q
    assert same_bits(ptq.calibrate(result, batches, progress=False), x)
    assert len(before) <= len(result.state_dict())


def test_methods_help_where_they_should() -> None:
    """At 4 bits, every method that looks at data beats calibration alone, measured on other samples."""
    model, batches, x = network("residual", 3)
    config = qfx.Config(weight=qfx.FixedPoint(4), activation=qfx.FixedPoint(8))
    with torch.no_grad():
        wanted = model(x)

        def error(*methods: Any) -> float:
            return float(
                (ptq.quantize(model, batches, config, methods, progress=False)(x) - wanted).square().sum()
            )

        alone = error()
        for method in ("bias_correction", "gptq", "learned_rounding"):
            assert error(method) < alone, method


def test_block_formats_are_left_alone() -> None:
    model, batches, x = network("mlp")
    config = qfx.Config(weight=qfx.BlockFloatingPoint(4, 4), activation=qfx.FixedPoint(6))
    q = ptq.quantize(model, batches, config, ("gptq", "learned_rounding", "format_search"), progress=False)
    assert same_bits(q, x)


def test_errors() -> None:
    model, batches, _ = network("mlp")
    with pytest.raises(qfx.QfxError, match="unknown method 'adaround'; known are batch_norm, equalization"):
        ptq.quantize(model, batches, methods=["adaround"])
    with pytest.raises(qfx.QfxError, match=r"one tensor; pass \[tensor\]"):
        ptq.quantize(model, batches[0])
    with pytest.raises(qfx.QfxError, match="empty"):
        ptq.quantize(model, [])
    q = qfx.prepare(model, batches[0])
    with pytest.raises(qfx.QfxError, match="prepared already"):
        ptq.quantize(q, batches, qfx.Config())
    with pytest.raises(qfx.QfxError, match="binary point is not set"):
        ptq.gptq(q, batches, progress=False)
    with pytest.raises(qfx.QfxError, match="NaN or infinity"):
        ptq.gptq(qfx.calibrate(q, batches), [torch.full((2, 7), torch.nan)], progress=False)
    with pytest.raises(qfx.QfxError, match="expected what qfx.prepare returned"):
        ptq.gptq(model, batches)  # type: ignore[arg-type]
    for wrong in (
        lambda: ptq.Calibration("kl"),
        lambda: ptq.Calibration(percentile=0),
        lambda: ptq.GPTQ(damp=0),
        lambda: ptq.GPTQ(places=0),
        lambda: ptq.LearnedRounding(lr=0),
        lambda: ptq.Equalization(iterations=0),
        lambda: ptq.ActivationEqualization(alpha=2),
        lambda: ptq.FormatSearch(clip=-1),
        lambda: ptq.RangeSearch(samples=0),
    ):
        with pytest.raises(qfx.QfxError):
            wrong()
