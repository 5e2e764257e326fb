"""The four rules of calibration, against plain searches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import qfx
from qfx import ptq
from qfx.nn.observer import best_frac, best_fracs
from qfx.ptq.calibration import chooser, covering_frac, covering_fracs, entropy_frac
from tests.ptq.ptq_networks import network

FORMATS = [
    qfx.FixedPoint(4), qfx.FixedPoint(8), qfx.FixedPoint(5, signed=False), qfx.FixedPoint(4, rounding="TRN"),
    qfx.Minifloat(2, 1), qfx.Minifloat(4, 3), qfx.Minifloat(3, 2, signed=False), qfx.KHot(6, k=2),
]  # fmt: skip


def samples(seed: int, count: int = 200) -> torch.Tensor:
    random = np.random.default_rng(seed)
    x = random.standard_t(3, size=count) * 2.0 ** random.integers(-4, 5)
    return torch.from_numpy(np.round(x, 3))


def quantized(fmt: Any, frac: int, x: torch.Tensor) -> np.ndarray:
    """By numpy, not by what calibration itself uses."""
    return np.asarray(fmt.with_frac(frac).quantize(x.numpy().copy()))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_mse_against_all_positions(fmt: Any) -> None:
    for seed in range(4):
        x = samples(seed)
        found = best_frac(fmt, x)
        assert found is not None
        errors = {f: float(np.square(quantized(fmt, f, x) - x.numpy()).sum()) for f in range(-30, 31)}
        least = min(errors.values())
        # A format with gaps takes the smallest position among those within a thousandth of the best.
        slack = 1.001 if math.isfinite(fmt.dense_below) else 1.0 + 1e-12
        assert errors[found] <= least * slack


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_rows_at_once_are_rows_one_by_one(fmt: Any) -> None:
    rows = torch.stack([samples(seed, 9) for seed in range(30)])
    rows[0] = 0.0
    rows[1] = (rows[1] * 4).round() / 4
    random = np.random.default_rng(0)
    for limits in (None, [int(v) for v in random.integers(-5, 8, len(rows))]):
        one_by_one = [
            best_frac(fmt, row, None if limits is None else limits[i]) for i, row in enumerate(rows)
        ]
        assert best_fracs(fmt, rows, limits) == one_by_one


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("share", [1.0, 0.95, 0.5])
def test_a_range_that_covers(fmt: Any, share: float) -> None:
    """No position further up clips so few, and this one does not clip more."""

    def clipped(frac: int, x: torch.Tensor) -> int:
        scaled = x.numpy() * 2.0**frac
        low, high = fmt.pass_range
        return int(((scaled >= high) & (scaled > 0) | (scaled <= low) & (scaled < 0) & fmt.signed).sum())

    for seed in range(6):
        x = samples(seed)
        found = covering_frac(fmt, x, share)
        assert found is not None
        allowed = int((1.0 - share) * (len(x) if fmt.signed else int((x >= 0).sum())))
        assert clipped(found, x) <= allowed
        assert all(clipped(found + more, x) > allowed for more in range(1, 20))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_ranges_of_rows_at_once_are_those_one_by_one(fmt: Any) -> None:
    rows = torch.stack([samples(seed, 9) for seed in range(40)])
    rows[0], rows[1], rows[2] = 0.0, rows[1].abs(), -rows[2].abs()
    rows[3, 0], rows[3, 1:] = fmt.pass_range[1] / 4, 0.0  # exactly half a step beyond
    assert covering_fracs(fmt, rows) == [covering_frac(fmt, row) for row in rows]
    assert len(set(covering_fracs(fmt, rows))) > 3


def divergence(fmt: Any, frac: int, counts: list[int], centres: list[float]) -> float:
    """The definition, one bin at a time."""
    low, high = (end * 2.0**-frac for end in fmt.pass_range)
    inside = [i for i, c in enumerate(centres) if low <= c <= high]
    if not inside:
        return math.inf
    before = {i: float(counts[i]) for i in inside}
    before[inside[0]] += sum(counts[: inside[0]])
    before[inside[-1]] += sum(counts[inside[-1] + 1 :])
    numbers = quantized(fmt, frac, torch.tensor(centres, dtype=torch.float64))
    cells: dict[float, list[int]] = {}
    for i in inside:
        cells.setdefault(float(numbers[i]), []).append(i)
    after = dict.fromkeys(inside, 0.0)
    for members in cells.values():
        full = [i for i in members if counts[i]]
        for i in full:
            after[i] = sum(counts[j] for j in members) / len(full)
    total, kept = sum(before.values()), sum(after.values())
    if kept == 0:
        return math.inf
    floor = 1e-3 / sum(counts)
    return sum(
        p / total * math.log(p / total / max(after[i] / kept, floor)) for i, p in before.items() if p > 0
    )


@pytest.mark.parametrize("fmt", FORMATS[:6], ids=str)
def test_entropy_against_the_definition(fmt: Any) -> None:
    for seed in (0, 1):
        x = samples(seed, 3000)
        x = x[x != 0]
        low, high = float(x.min()), float(x.max())
        counts = [int(c) for c in torch.histc(x, 2048, low, high)]
        centres = [low + (high - low) / 2048 * (i + 0.5) for i in range(2048)]
        widest = covering_frac(fmt, x)
        assert widest is not None
        wanted = {f: divergence(fmt, f, counts, centres) for f in range(widest, widest + 5)}
        found = entropy_frac(fmt, x)
        assert found is not None
        assert wanted[found] <= min(wanted.values()) + 1e-9


@pytest.mark.parametrize("fmt", [qfx.FixedPoint(8, signed=False), qfx.Minifloat(3, 3, signed=False)], ids=str)
def test_zeros_behind_a_relu_do_not_count_for_entropy(fmt: Any) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=20000)).clamp(min=0.0)
    found, widest = entropy_frac(fmt, x), covering_frac(fmt, x)
    assert found == entropy_frac(fmt, x[x > 0]) and found is not None and widest is not None
    assert 0 <= found - widest <= 1  # a normal distribution has no tail that is worth nothing


def test_nothing_to_see() -> None:
    for method in ptq.calibration.METHODS:
        assert chooser(method)(qfx.FixedPoint(4), torch.zeros(5, dtype=torch.float64)) is None


def test_a_model_by_its_rules() -> None:
    model, batches, x = network("residual")
    config = qfx.Config(weight=qfx.FixedPoint(4), activation=qfx.FixedPoint(4), per_channel=True)
    q = qfx.prepare(model, x[:1], config)
    same = ptq.calibrate(q, batches, progress=False)
    ordinary = qfx.calibrate(qfx.prepare(model, x[:1], config), batches, progress=False)
    for name, quantizer in qfx.quantizers(ordinary).items():
        assert qfx.quantizers(same)[name].format == quantizer.format, name
    loose = ptq.calibrate(q, batches, ptq.Calibration("max", "max"), progress=False)
    tight = ptq.calibrate(
        q, batches, ptq.Calibration("percentile", "percentile", percentile=80.0), progress=False
    )
    for name, quantizer in qfx.quantizers(loose).items():
        if "bias" not in name:
            a, b = np.asarray(quantizer.frac), np.asarray(qfx.quantizers(tight)[name].frac)
            assert (a <= b).all(), name
    weight = loose.get_submodule("depthwise.0")
    fmt = weight.weight_quantizer.format
    for row, frac in zip(weight.weight.detach(), fmt.frac, strict=True):
        inside = [
            float(row.min()) * 2.0**f > -8.5 and float(row.max()) * 2.0**f < 7.5 for f in (frac, frac + 1)
        ]
        assert inside == [True, False]
