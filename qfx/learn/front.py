"""One training run under growing pressure on the hardware: the best networks of every size."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from qfx.errors import MissingToolError, QfxError
from qfx.graph.ebops import ebops
from qfx.learn.freeze import freeze
from qfx.learn.groups import parameter_groups
from qfx.learn.model import QuantizedModel
from qfx.learn.resource import ResourceLoss, ResourceModel
from qfx.learn.width import Widths, learns_widths, widths

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
_FORMAT = "qfx-front"
_VERSION = 1


@dataclass(frozen=True)
class Point:
    """A network of the front.

    Attributes:
        score: on the validation data; larger is better.
        cost: EBOPs of the frozen graph.
        epoch: after how many epochs it was taken.
        beta: weight of the resource loss at that time.
        widths: what every quantizer had learned.
        state: the model's state dict as arrays.
    """

    score: float
    cost: int
    epoch: float
    beta: float
    widths: tuple[Widths, ...] = ()
    state: dict[str, np.ndarray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Check:
    """A line of the training log; ``loss`` without the resource loss, mean since the last check."""

    epoch: float
    beta: float
    loss: float
    score: float
    cost: int


class Front:
    """The networks of a run that no other one beats in both score and cost, in ascending order of cost.

    Attributes:
        points: the networks.
        checks: the whole run, in order.
        per: how EBOPs were counted; see :func:`qfx.ebops`.
    """

    def __init__(
        self, points: Iterable[Point] = (), checks: Iterable[Check] = (), per: str = "kernel"
    ) -> None:
        self.points: list[Point] = []
        self.checks: list[Check] = list(checks)
        self.per = per
        for point in points:
            self.add(point)

    def accepts(self, score: float, cost: int) -> bool:
        """Whether no network of the front is at least as good and at most as costly."""
        return not any(p.score >= score and p.cost <= cost for p in self.points)

    def add(self, point: Point) -> bool:
        """Take a network in if none beats it; those that it beats go. Returns whether it was taken."""
        if not self.accepts(point.score, point.cost):
            return False
        kept = [p for p in self.points if p.score > point.score or p.cost < point.cost]
        self.points = sorted([*kept, point], key=lambda p: p.cost)
        return True

    def cheapest(self, score: float) -> Point | None:
        """The network of least cost with at least this score; ``None`` when there is none."""
        return next((p for p in self.points if p.score >= score), None)

    def restore(self, q: QuantizedModel, point: Point) -> QuantizedModel:
        """Load a network of the front into a model that was prepared in the same way; returns the model."""
        q.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in point.state.items()})
        return q.eval()

    # -- as text, file and picture ---------------------------------------------------------------------------

    def table(self) -> str:
        """A Markdown table, one row per network."""
        rows = [
            "| EBOPs | score | epoch | mean weight bits | weights pruned | activation bits |",
            "| ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for p in self.points:
            constants = [w for w in p.widths if w.name.endswith("weight_quantizer")]
            tensors = [w for w in p.widths if not w.name.endswith(("weight_quantizer", "bias_quantizer"))]
            count = sum(w.count for w in constants) or 1
            mean = sum(w.mean * w.count for w in constants) / count
            pruned = sum(w.pruned * w.count for w in constants) / count
            rows.append(
                f"| {p.cost:,} | {p.score:.4g} | {p.epoch:g} | {mean:.2f} | {pruned:.0%} | "
                f"{', '.join(str(w.largest) for w in tensors)} |"
            )
        return "\n".join(rows) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without states."""
        points = [{k: v for k, v in asdict(p).items() if k != "state"} for p in self.points]
        return {"per": self.per, "points": points, "checks": [asdict(c) for c in self.checks]}

    def save(self, folder: str | Path) -> Path:
        """Write ``front.json``, ``front.md``, ``front.svg`` (when matplotlib is installed) and the state of
        every network, ``point_00.npz`` and so on; plain arrays, no pickles.

        Args:
            folder: made when missing.

        Returns:
            the folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for index, point in enumerate(self.points):
            np.savez_compressed(folder / f"point_{index:02}.npz", **point.state)  # type: ignore[arg-type]
        data = {"format": _FORMAT, "version": _VERSION, **self.to_dict()}
        (folder / "front.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        (folder / "front.md").write_text(self.table(), encoding="utf-8")
        try:
            self.plot(folder / "front.svg")
        except MissingToolError:
            pass
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Front:
        """Read what :meth:`save` wrote.

        Raises:
            QfxError: a file is missing or is not one of these.
        """
        folder = Path(folder)
        try:
            data = json.loads((folder / "front.json").read_text(encoding="utf-8"))
            if data.get("format") != _FORMAT or data.get("version") != _VERSION:
                raise QfxError(f"{folder / 'front.json'}: not a front of version {_VERSION}")
            points = []
            for index, entry in enumerate(data["points"]):
                with np.load(folder / f"point_{index:02}.npz", allow_pickle=False) as arrays:
                    state = {name: arrays[name] for name in arrays.files}
                learned = tuple(Widths(**w) for w in entry.pop("widths"))
                points.append(Point(**entry, widths=learned, state=state))
            return cls(points, [Check(**c) for c in data["checks"]], data["per"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise QfxError(
                f"{folder}: not a saved front ({error}); write it again with Front.save()"
            ) from error

    def plot(
        self,
        path: str | Path,
        others: dict[str, Sequence[tuple[int, float]]] | None = None,
        *,
        title: str = "",
        score: str = "score",
    ) -> None:
        """Draw score over EBOPs: every check, the front, and other networks to compare with.

        Args:
            path: ``.svg``, ``.png`` or ``.pdf``.
            others: by name, points ``(cost, score)``.
            title, score: captions.

        Raises:
            MissingToolError: matplotlib is not installed.
        """
        try:
            from matplotlib import rc_context
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise MissingToolError("front: pictures need matplotlib; pip install qfx[plot]") from error

        # Text stays text, and equal data makes equal files.
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "qfx"}):
            figure = Figure(figsize=(6.4, 4.2), layout="constrained")
            axes = figure.add_subplot()
            axes.scatter(
                [c.cost for c in self.checks],
                [c.score for c in self.checks],
                6,
                "#b9c0c8",
                label="every check",
            )
            axes.step(
                [p.cost for p in self.points], [p.score for p in self.points], where="post", color="#1f5fa8",
                marker="o", markersize=4, linewidth=1.2, label="learned widths, one run",
            )  # fmt: skip
            for (name, points), marker in zip((others or {}).items(), "sD^vPX*", strict=False):
                axes.plot([c for c, _ in points], [s for _, s in points], marker, color="#c0392b", label=name)
            axes.set_xscale("log")
            axes.set_xlabel(f"EBOPs per {self.per}")
            axes.set_ylabel(score)
            axes.set_title(title)
            axes.grid(True, which="both", alpha=0.25)
            axes.legend(loc="lower right")
            lines = [p.score for p in self.points] + [
                s for points in (others or {}).values() for _, s in points
            ]
            if lines:
                low, high = min(lines), max(lines)
                margin = 0.08 * max(high - low, 1e-9)
                axes.set_ylim(low - margin, high + margin)
            figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)


def front(
    q: QuantizedModel,
    batches: Batches,
    validation: Batches,
    *,
    epochs: int,
    beta: tuple[float, float],
    lr: float = 1e-3,
    width_lr: float | None = None,
    weight_decay: float = 0.0,
    cycles: int = 1,
    checks: int = 1,
    average: float = 1.0,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
    score: Callable[[QuantizedModel, Batches], float] | None = None,
    model: ResourceModel | None = None,
    per: str = "kernel",
    stop_below: float | None = None,
    progress: bool = True,
) -> Front:
    """Train once with a resource loss of exponentially growing weight; keep the best network of every cost.

    The loss is ``loss(q(x), target) + beta * ResourceLoss(q)()``. After every epoch, or several times within
    it, the model is frozen, its exact EBOPs are counted and its score is taken; networks that no other one
    beats in both are the front.

    Args:
        q: prepared with ``Config(learn_width=...)``, calibrated; best after some epochs of training.
        batches: ``(inputs, targets)`` for training; iterated once per epoch, so a list or a data loader.
        validation: the same to choose networks by. Report results on data of a third kind.
        epochs: passes over ``batches``.
        beta: weight of the resource loss at the start and at the end.
        lr, width_lr: learning rates of weights, and of widths and binary points (``lr`` when not given), for
            AdamW.
        weight_decay: of the weights.
        cycles: the learning rate falls from its full value to a hundredth along a cosine this many times
            (I. Loshchilov, F. Hutter, "SGDR", arXiv:1608.03983): networks are best at the end of a cycle.
        checks: how often per epoch the model is looked at.
        average: epochs over which weights and widths are averaged for what is looked at, with exponentially
            falling weight (B. Polyak, A. Juditsky, 1992); 0 for none. Without, a network is what the last
            step happened to leave.
        loss: of outputs and targets.
        score: of the model in ``eval()`` on ``validation``, larger is better; :func:`accuracy` when not
            given.
        model: what the resource loss counts; :class:`EBOPs` when not given. The front is in EBOPs in any
            case.
        per: see :func:`qfx.ebops`.
        stop_below: end the run after two checks in a row with a score below this: the network has
            collapsed.
        progress: show a bar.

    Returns:
        the front. ``q`` holds the last network, not averaged.

    Raises:
        QfxError: arguments out of range, a model without learned widths, no batches.
    """
    _validate(q, epochs, beta, cycles, checks)
    per_epoch = _length(batches)
    total = epochs * per_epoch
    resource = ResourceLoss(q, model, per)
    optimizer = torch.optim.AdamW(parameter_groups(q, lr=lr, point_lr=width_lr, weight_decay=weight_decay))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, total, cycles))
    averages = _Average(q, average * per_epoch)
    # Steps after which the model is looked at, the last of every epoch among them.
    looks = {per_epoch * (i + 1) // checks for i in range(checks)}
    result = Front(per=per)
    measure = accuracy if score is None else score
    device = next(q.parameters()).device
    step, below = 0, 0
    losses: list[torch.Tensor] = []
    with _Bar(total, progress) as bar:
        for epoch in range(epochs):
            for index, (x, target) in enumerate(batches, start=1):
                if not q.training:
                    q.train()
                weight = beta[0] * (beta[1] / beta[0]) ** (step / max(1, total - 1))
                task = loss(q(x.to(device)), target.to(device))
                optimizer.zero_grad()
                (task + weight * resource()).backward()
                optimizer.step()
                schedule.step()
                averages.update()
                step += 1
                losses.append(task.detach())
                bar.advance()
                if index not in looks:
                    continue
                mean, losses = float(torch.stack(losses).mean()), []
                with averages:
                    entry = _look(
                        q, result, measure, validation, round(epoch + index / per_epoch, 4), weight, mean
                    )
                bar.tell(f"score {entry.score:.4g}, {entry.cost:,} EBOPs, {len(result.points)} points")
                below = below + 1 if stop_below is not None and entry.score < stop_below else 0
                if below == 2:
                    return result
    return result


def _look(
    q: QuantizedModel,
    result: Front,
    measure: Callable[[QuantizedModel, Batches], float],
    validation: Batches,
    epoch: float,
    beta: float,
    loss: float,
) -> Check:
    """Count and score the model as it is now, and keep it if it belongs to the front."""
    cost = ebops(freeze(q), result.per)
    entry = Check(epoch, beta, loss, float(measure(q, validation)), cost)
    result.checks.append(entry)
    if result.accepts(entry.score, cost):
        state = {name: value.detach().cpu().numpy().copy() for name, value in q.state_dict().items()}
        result.add(Point(entry.score, cost, epoch, beta, tuple(widths(q)), state))
    return entry


@torch.no_grad()
def accuracy(q: QuantizedModel, batches: Batches) -> float:
    """Percent of samples whose largest output is the target, in ``eval()``."""
    q.eval()
    device = next(q.parameters()).device
    right = count = 0
    for x, target in batches:
        right += int((q(x.to(device)).argmax(1).cpu() == target.cpu()).sum())
        count += len(x)
    if not count:
        raise QfxError("accuracy: no samples; give at least one batch")
    return 100.0 * right / count


def _validate(q: QuantizedModel, epochs: int, beta: tuple[float, float], cycles: int, checks: int) -> None:
    if not 0 < beta[0] <= beta[1] or not math.isfinite(beta[1]):
        raise QfxError(f"front: beta goes up from one positive number to another, found {beta}")
    if epochs < 1 or not 1 <= cycles <= epochs or checks < 1:
        raise QfxError(
            f"front: epochs, cycles and checks are at least 1, and cycles at most epochs; found {epochs}, "
            f"{cycles}, {checks}"
        )
    if not isinstance(q, QuantizedModel) or not learns_widths(q):
        raise QfxError("front: no widths are learned; prepare the model with Config(learn_width={...})")


def _length(batches: Batches) -> int:
    count = len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)
    if count == 0 or iter(batches) is batches:
        raise QfxError(
            "front: batches must be a non-empty list or data loader, which can be iterated every epoch"
        )
    return count


def _cosine(step: int, steps: int, cycles: int) -> float:
    """From 1 to 0.01, ``cycles`` times."""
    along = (step * cycles / steps) % 1.0
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * along))


class _Average:
    """Running means of all trained parameters; as a context, they stand in the model.

    Args:
        steps: over about how many.
    """

    def __init__(self, q: QuantizedModel, steps: float) -> None:
        self._parameters: list[torch.Tensor] = [p for p in q.parameters() if p.requires_grad]
        self._means = [p.detach().clone() for p in self._parameters]
        self._kept: list[torch.Tensor] = []
        self._rate = 1.0 / max(1.0, steps)

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(self._means, self._parameters, self._rate)

    @torch.no_grad()
    def __enter__(self) -> None:
        self._kept = [p.detach().clone() for p in self._parameters]
        torch._foreach_copy_(self._parameters, self._means)

    @torch.no_grad()
    def __exit__(self, *exception: Any) -> None:
        torch._foreach_copy_(self._parameters, self._kept)


class _Bar:
    """A progress bar, or nothing."""

    def __init__(self, total: int, shown: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn(24), TimeRemainingColumn()]
        self._progress = Progress(*columns, transient=True, disable=not shown)
        self._task = self._progress.add_task("training", total=total)
        self._last = time.monotonic()
        self._waiting = 0

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._progress.stop()

    def advance(self) -> None:
        # Updating costs more than a step of a small network.
        self._waiting += 1
        if time.monotonic() - self._last > 0.2:
            self._progress.advance(self._task, self._waiting)
            self._last, self._waiting = time.monotonic(), 0

    def tell(self, text: str) -> None:
        self._progress.update(self._task, description=text)
