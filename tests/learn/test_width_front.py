"""The front: which networks are on it, how it is saved, and one small run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qfx
from qfx import Config, FixedPoint, Front, QfxError
from qfx.learn.front import Check, Point, accuracy


def test_only_networks_that_none_beats() -> None:
    front = Front()
    rng = np.random.default_rng(0)
    points = [Point(float(s), int(c), 1, 1.0) for s, c in rng.integers(0, 12, (300, 2))]
    for point in points:
        front.add(point)
    best = {
        (p.cost, p.score)
        for p in points
        if not any(
            o.score >= p.score and o.cost <= p.cost and (o.score > p.score or o.cost < p.cost) for o in points
        )
    }
    assert {(p.cost, p.score) for p in front.points} == best
    assert len(front.points) == len(best)
    costs, scores = [p.cost for p in front.points], [p.score for p in front.points]
    assert costs == sorted(costs) and scores == sorted(scores)
    assert not front.add(Point(-1.0, 50, 1, 1.0))
    assert front.cheapest(scores[-1]) is front.points[-1]
    assert front.cheapest(scores[-1] + 1) is None


def data(samples: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(seed))
    y = (x[:, 0] > 0).long() + (x[:, 1] + x[:, 2] > 0).long()
    return list(zip(x.split(32), y.split(32), strict=True))


def prepared(seed: int = 0) -> qfx.learn.QuantizedModel:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    config = Config(
        weight=FixedPoint(6), activation=FixedPoint(6), input=FixedPoint(6, 3), bias=FixedPoint(10),
        learn_width={"weight": "weight", "bias": "weight", "activation": "tensor"},
    )  # fmt: skip
    batches = data(256, 1)
    return qfx.calibrate(qfx.prepare(model, batches[0][0], config), batches)


@pytest.fixture(scope="module")
def run() -> tuple[qfx.learn.QuantizedModel, Front]:
    q = prepared()
    front = qfx.front(
        q, data(512, 1), data(512, 2), epochs=20, beta=(1e-5, 1e-2), lr=1e-2, checks=2, average=0.5,
        progress=False,
    )  # fmt: skip
    return q, front


def test_a_run_gives_networks_of_many_sizes(run: tuple[qfx.learn.QuantizedModel, Front]) -> None:
    _, front = run
    assert len(front.checks) == 40
    assert front.checks[0].epoch == 0.5 and front.checks[-1].epoch == 20.0
    assert front.checks[-1].beta == pytest.approx(1e-2)
    assert len(front.points) >= 5
    assert front.points[-1].cost > 2 * front.points[0].cost
    assert front.points[-1].score > 80


def test_every_network_can_be_had_again(run: tuple[qfx.learn.QuantizedModel, Front], tmp_path: Path) -> None:
    """Saved, loaded into a model prepared anew, frozen: the same EBOPs, the same score, exact."""
    _, front = run
    loaded = Front.load(front.save(tmp_path / "front"))
    assert loaded.to_dict() == front.to_dict()
    fresh = prepared(seed=7)
    validation = data(512, 2)
    x = torch.cat([b[0] for b in validation])
    for point in loaded.points:
        q = loaded.restore(fresh, point)
        graph = qfx.freeze(q)
        assert qfx.ebops(graph) == point.cost
        assert accuracy(q, validation) == point.score
        np.testing.assert_array_equal(graph.run(x), q(x).detach().double())
        assert tuple(qfx.widths(q)) == point.widths


def test_what_is_written(run: tuple[qfx.learn.QuantizedModel, Front], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _, front = run
    folder = front.save(tmp_path)
    document = json.loads((folder / "front.json").read_text())
    assert document["format"] == "qfx-front" and len(document["points"]) == len(front.points)
    assert (folder / "front.md").read_text().count("\n") == 2 + len(front.points)
    front.plot(folder / "one.svg", {"uniform 6 bits": [(4000, 90.0)]}, title="T", score="accuracy (%)")
    text = (folder / "one.svg").read_text()
    assert "uniform 6 bits" in text and "accuracy (%)" in text and "EBOPs per kernel" in text
    front.plot(folder / "two.svg", {"uniform 6 bits": [(4000, 90.0)]}, title="T", score="accuracy (%)")
    assert text == (folder / "two.svg").read_text()


def test_networks_are_averages() -> None:
    """What is looked at is a mean of the last steps; training goes on from where it was."""
    seen: list[torch.Tensor] = []

    def score(q: qfx.learn.QuantizedModel, batches: object) -> float:
        seen.append(q.get_submodule("0").weight.detach().clone())
        return 0.0

    runs = {}
    for average in (0.0, 4.0):
        q = prepared()
        qfx.front(
            q, data(64, 1), data(64, 2), epochs=3, beta=(1e-6, 1e-5), lr=1e-2, average=average, score=score,
            progress=False,
        )  # fmt: skip
        runs[average] = q.get_submodule("0").weight.detach().clone()
    assert torch.equal(runs[0.0], runs[4.0])
    assert torch.equal(seen[2], runs[0.0])
    start = prepared().get_submodule("0").weight.detach()
    # Two steps per epoch, the mean over about eight: closer to the start than the last step.
    assert 0 < (seen[5] - start).norm() < 0.7 * (runs[4.0] - start).norm()


def test_a_collapsed_run_ends() -> None:
    front = qfx.front(
        prepared(),
        data(64, 1),
        data(64, 2),
        epochs=30,
        beta=(1.0, 1.0),
        lr=2e-2,
        stop_below=101.0,
        progress=False,
    )
    assert len(front.checks) == 2


def test_another_score_and_another_count() -> None:
    front = qfx.front(
        prepared(), data(64, 1), data(64, 2), epochs=2, beta=(1e-6, 1e-5), per="inference",
        score=lambda q, batches: -float(len(list(batches))), progress=False,
    )  # fmt: skip
    assert front.per == "inference" and {c.score for c in front.checks} == {-2.0}
    assert len(front.points) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": (0.0, 1.0)}, "beta"),
        ({"beta": (1.0, 0.1)}, "beta"),
        ({"epochs": 0}, "at least 1"),
        ({"cycles": 5}, "at least 1"),
        ({"checks": 0}, "at least 1"),
        ({"per": "pixel"}, "'kernel', 'inference'"),
        ({"batches": []}, "non-empty"),
        ({"batches": iter([])}, "every epoch"),
    ],
)
def test_what_is_refused(arguments: dict[str, object], message: str) -> None:
    given = {"batches": data(64, 1), "epochs": 2, "beta": (1e-6, 1e-5), **arguments}
    with pytest.raises(QfxError, match=message):
        qfx.front(prepared(), given.pop("batches"), data(64, 2), progress=False, **given)  # type: ignore[arg-type]


def test_a_model_of_given_widths_is_refused() -> None:
    q = qfx.prepare(nn.Sequential(nn.Linear(6, 3)), data(32, 1)[0][0])
    with pytest.raises(QfxError, match="learn_width"):
        qfx.front(q, data(64, 1), data(64, 2), epochs=1, beta=(1e-6, 1e-5), progress=False)


def test_damaged_fronts_are_refused(tmp_path: Path) -> None:
    front = Front([Point(1.0, 2, 1, 0.5, (), {"x": np.zeros(3)})], [Check(1, 0.5, 0.1, 1.0, 2)])
    for damage in ("missing", "text", "version", "array", "field"):
        folder = front.save(tmp_path / damage)
        file = folder / "front.json"
        if damage == "missing":
            (folder / "point_00.npz").unlink()
        elif damage == "text":
            file.write_text("{")
        elif damage == "version":
            file.write_text(file.read_text().replace('"version": 1', '"version": 9'))
        elif damage == "array":
            np.savez(folder / "point_00.npz", x=np.asarray([{"a": 1}], dtype=object))
        else:
            file.write_text(file.read_text().replace('"score"', '"mark"'))
        with pytest.raises(QfxError, match=damage):
            Front.load(folder)
