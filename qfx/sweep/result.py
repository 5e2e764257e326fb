"""What a sweep found, as plain data: trials, the front, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qfx.errors import QfxError
from qfx.sweep.space import Point

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FORMAT, VERSION = "qfx-sweep", 1
DIRECTIONS = ("maximize", "minimize")


@dataclass(frozen=True)
class Trial:
    """One point of a sweep.

    Attributes:
        slot: its place in the sweep, 0 for the first.
        parameters: what was varied.
        state: ``"complete"``, ``"failed"`` or ``"running"``.
        metrics: what the objective returned, by name.
        measured: what was measured of the generated hardware, by name; empty unless it was.
        layers: one dictionary per layer, ``name`` and numbers or text.
        notes: text by name: the format family, the reproducing command and others.
        error: why it failed.
        seconds: of running; ``None`` while it runs.
    """

    slot: int
    parameters: Point
    state: str
    metrics: dict[str, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    layers: tuple[dict[str, Any], ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    error: str = ""
    seconds: float | None = None

    @property
    def all_metrics(self) -> dict[str, float]:
        """Metrics and measurements together; a measurement takes the place of a metric of its name."""
        return {**self.metrics, **self.measured}


@dataclass(frozen=True)
class Results:
    """A sweep with all its trials.

    Attributes:
        name: of the study.
        objectives: by metric ``"maximize"`` or ``"minimize"``.
        total: slots of the sweep.
        trials: those that were begun, in the order of their slots.
        facts: text by name: command, storage, sampler, versions, machine.
    """

    name: str
    objectives: dict[str, str]
    total: int
    trials: tuple[Trial, ...]
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> tuple[Trial, ...]:
        """The trials that gave a result."""
        return tuple(t for t in self.trials if t.state == "complete")

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials that failed."""
        return tuple(t for t in self.trials if t.state == "failed")

    def front(self, objectives: Mapping[str, str] | None = None) -> tuple[Trial, ...]:
        """The trials that no other one beats: at least as good in every objective, and better in one.

        Args:
            objectives: other ones than the sweep's, by metric or measurement; trials without one are left
                out.

        Raises:
            QfxError: a direction that is not ``"maximize"`` or ``"minimize"``.
        """
        chosen = dict(self.objectives if objectives is None else objectives)
        check_objectives(chosen)
        rows = [t for t in self.complete if all(name in t.all_metrics for name in chosen)]
        signs = [1 if direction == "minimize" else -1 for direction in chosen.values()]
        values = [[s * t.all_metrics[n] for s, n in zip(signs, chosen, strict=True)] for t in rows]
        return tuple(
            t for t, mine in zip(rows, values, strict=True) if not any(_beats(o, mine) for o in values)
        )

    def with_measured(self, measured: Mapping[int, Mapping[str, Any]]) -> Results:
        """The same with measurements, by slot (:func:`qfx.sweep.measure_front`)."""
        trials = []
        for trial in self.trials:
            found = measured.get(trial.slot)
            if found is not None:
                notes = {**trial.notes, **found.get("notes", {})}
                layers = tuple(found.get("layers", trial.layers))
                trial = replace(trial, measured=dict(found["metrics"]), layers=layers, notes=notes)
            trials.append(trial)
        return replace(self, trials=tuple(trials))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Any) -> Results:
        """The inverse of :meth:`to_dict`.

        Raises:
            QfxError: not a sweep, or one of another version.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
            raise QfxError(f'not a sweep: expected "format": "{FORMAT}" and "version": {VERSION}')
        try:
            rows = [{**row, "layers": tuple(row.get("layers", ()))} for row in data["trials"]]
            facts = {str(k): str(v) for k, v in data.get("facts", {}).items()}
            trials = tuple(Trial(**row) for row in rows)
            return cls(str(data["name"]), dict(data["objectives"]), int(data["total"]), trials, facts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise QfxError(f"sweep: damaged ({error!r})") from error

    def save(self, path: str | Path) -> None:
        """Write JSON; the file appears whole or not at all."""
        from qfx.report.build import write_text

        write_text(path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """What :meth:`save` wrote.

        Raises:
            QfxError: the file is missing or damaged.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise QfxError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise QfxError(f"{path}: not JSON ({error})") from error

    def to_csv(self) -> str:
        """One line per trial: slot, state, parameters, metrics, measurements as ``measured_…``, on the
        front?"""
        front = {t.slot for t in self.front()}
        parameters, metrics, measured = (
            list(dict.fromkeys(name for t in self.trials for name in getattr(t, kind)))
            for kind in ("parameters", "metrics", "measured")
        )
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            ["slot", "state", "front", *parameters, *metrics, *(f"measured_{n}" for n in measured), "error"]
        )
        for t in self.trials:
            writer.writerow(
                [
                    t.slot, t.state, int(t.slot in front), *(t.parameters.get(n, "") for n in parameters),
                    *(t.metrics.get(n, "") for n in metrics), *(t.measured.get(n, "") for n in measured),
                    t.error,
                ]
            )  # fmt: skip
        return out.getvalue()


def check_objectives(objectives: Mapping[str, str]) -> None:
    """Raises QfxError unless there are objectives, each with a direction."""
    if not objectives:
        raise QfxError("sweep: no objectives")
    for name, direction in objectives.items():
        if direction not in DIRECTIONS:
            raise QfxError(f"sweep: objective {name!r} has direction {direction!r}; use maximize or minimize")


def from_trials(trials: Iterable[FrozenTrial]) -> tuple[Trial, ...]:
    """The trials of a study (:meth:`qfx.sweep.claims.Ledger.trials`), in the order of their slots."""
    from qfx.sweep import claims

    found = []
    for t in trials:
        data = dict(json.loads(t.user_attrs.get(claims.RESULT, "{}")).get("result", {}))
        layers, notes = tuple(data.pop("layers", ())), dict(data.pop("notes", {}))
        state = {"COMPLETE": "complete", "FAIL": "failed"}.get(t.state.name, "running")
        seconds = t.duration.total_seconds() if t.duration is not None else None
        error = t.user_attrs.get(claims.ERROR, "")
        found.append(
            Trial(t.user_attrs[claims.SLOT], dict(t.params), state, data, {}, layers, notes, error, seconds)
        )
    return tuple(sorted(found, key=lambda t: t.slot))


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
