"""What a sweep varies: a list of points, or choices and ranges for a sampler."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from qfx.errors import QfxError

Value = str | int | float | bool | None
Point = dict[str, Value]


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, ends included; ``log``: drawn evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.log and self.low <= 0):
            raise QfxError(f"range {self.low}..{self.high}: needs low <= high, and low > 0 for a log scale")


@dataclass(frozen=True)
class Space:
    """The parameters of a sweep.

    Args:
        choices: by parameter the values that it can take, or a :class:`Range` (for samplers only).
        points: the combinations of a grid, one dictionary each with the same keys; all combinations of
            ``choices`` when not given.

    Raises:
        QfxError: no parameters, a parameter without values, points with different keys or twice the same.
    """

    choices: Mapping[str, Sequence[Value] | Range] = field(default_factory=dict)
    points: Sequence[Mapping[str, Value]] | None = None

    def __post_init__(self) -> None:
        choices = dict(self.choices)
        if self.points is not None:
            points = [dict(point) for point in self.points]
            if not points:
                raise QfxError("sweep: a grid without points")
            names = list(points[0])
            if any(set(point) != set(names) for point in points):
                raise QfxError("sweep: the points of a grid must all have the same parameters")
            if len({_key(point) for point in points}) != len(points):
                raise QfxError("sweep: a point stands twice in the grid")
            object.__setattr__(self, "points", tuple(points))
            choices = {name: list(dict.fromkeys(point[name] for point in points)) for name in names}
        if not choices:
            raise QfxError("sweep: no parameters to vary")
        for name, values in choices.items():
            if isinstance(values, Range):
                continue
            if isinstance(values, str) or not len(values):
                raise QfxError(f"sweep: parameter {name!r} needs a list of values, found {values!r}")
            for value in values:
                if not isinstance(value, str | int | float | bool | None):
                    raise QfxError(
                        f"sweep: parameter {name!r} has the value {value!r}; values are plain data"
                    )
        object.__setattr__(
            self, "choices", {k: v if isinstance(v, Range) else tuple(v) for k, v in choices.items()}
        )

    def grid(self) -> list[Point]:
        """Every point once, in a fixed order.

        Raises:
            QfxError: a range has no grid.
        """
        if self.points is not None:
            return [dict(point) for point in self.points]
        lists = []
        for name, values in self.choices.items():
            if isinstance(values, Range):
                raise QfxError(
                    f"sweep: {name!r} is a range, which a grid cannot list; give values or a sampler"
                )
            lists.append(values)
        return [dict(zip(self.choices, values, strict=True)) for values in product(*lists)]

    def with_constants(self, constants: Mapping[str, Value]) -> Space:
        """The space with more parameters that have one value each.

        Raises:
            QfxError: a constant is varied already.
        """
        for name in constants:
            if name in self.choices:
                raise QfxError(f"sweep: parameter {name!r} is given as a constant and varied as well")
        if self.points is not None:
            return Space(points=[{**constants, **point} for point in self.points])
        return Space({**{name: (value,) for name, value in constants.items()}, **self.choices})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        if self.points is not None:
            return {"points": [dict(point) for point in self.points]}
        return {
            "choices": {
                name: vars(values) if isinstance(values, Range) else list(values)
                for name, values in self.choices.items()
            }
        }

    @classmethod
    def from_dict(cls, data: Any) -> Space:
        """The inverse of :meth:`to_dict`.

        Raises:
            QfxError: something else.
        """
        if not isinstance(data, dict) or set(data) not in ({"points"}, {"choices"}):
            raise QfxError(
                'a space is {"points": [...]} or {"choices": {name: [values] or {"low":, "high":}}}'
            )
        if "points" in data:
            if not isinstance(data["points"], list) or not all(isinstance(p, dict) for p in data["points"]):
                raise QfxError('space: "points" is a list of objects')
            return cls(points=data["points"])
        if not isinstance(data["choices"], dict):
            raise QfxError('space: "choices" is an object')
        choices: dict[str, Any] = {}
        for name, values in data["choices"].items():
            if isinstance(values, dict):
                if not {"low", "high"} <= set(values) <= {"low", "high", "log", "integer"}:
                    raise QfxError(
                        f'space: range of {name!r} needs "low" and "high"; "log", "integer" may follow'
                    )
                choices[name] = Range(**values)
            elif isinstance(values, list):
                choices[name] = values
            else:
                raise QfxError(f"space: {name!r} needs a list of values or a range, found {values!r}")
        return cls(choices)

    @classmethod
    def load(cls, path: str | Path) -> Space:
        """A space from a JSON file.

        Raises:
            QfxError: the file is missing, not JSON, or no space.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise QfxError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise QfxError(f"{path}: not JSON ({error})") from error
        except QfxError as error:
            raise QfxError(f"{path}: {error}") from error


def _key(point: Mapping[str, Value]) -> str:
    return json.dumps(dict(point), sort_keys=True)
