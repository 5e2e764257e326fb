"""What a prepared model is to look like: formats, and where they apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.formats.khot import KHot
from qfx.formats.minifloat import Minifloat
from qfx.learn.width import check_learn_width
from qfx.nn.estimators import check_estimator

_FORMATS = ("weight", "activation", "input", "bias", "scale", "output")
_LOCAL = ("weight", "activation", "bias", "scale", "per_channel", "estimator", "learn_width")


@dataclass(frozen=True)
class Config:
    """Formats for :func:`qfx.prepare`. A format gives family, width, signedness and modes; ``frac=None`` (a
    minifloat without ``bias``) means calibrated from data and then learned, an explicit one is frozen there.

    Args:
        weight: of Linear and Conv; any format.
        activation: of every intermediate result, cast after the fused activation function; any format. A
            block format takes its scale from 16-bit fixed-point numbers, whose binary point is learned.
        input: of the network's input; any format but a block format. When not given it is the activation
            format, at least 8 bits wide, if that is fixed point, and ``FixedPoint(8)`` otherwise. Freeze it
            (explicit ``frac``) for speed: a learned one makes training compute the gradient of the input.
        bias: of biases and of the offsets of ``affine``; fixed point, 16 bits when not given.
        scale: of the multipliers of a kept BatchNorm and of arithmetic with constants; any format but a block
            format, ``FixedPoint(8)`` when not given.
        output: of the network's result; any format. When not given it is the activation format, widened to at
            least 8 bits if that one has no explicit ``frac``, if that is fixed point, and ``FixedPoint(8)``
            otherwise. ``"exact"``: no cast, the last operator's accumulator is the result.
        overrides: ``{glob on module path: {key: value}}`` with the keys ``weight``, ``activation``, ``bias``,
            ``scale``, ``per_channel``, ``estimator`` and ``learn_width``. ``activation`` applies to the cast
            behind the module (or behind the activation function fused to it). A later entry wins. Formats
            given here are used as they stand, signedness included.
        per_channel: one binary point per output channel for weights and biases of Linear and Conv.
        batch_norm: ``"fold"`` (into the Linear or Conv before it, with the running statistics) or ``"keep"``
            (fixed-point multiply and add). A BatchNorm that has nothing to fold into is kept.
        unsigned: make the activation format unsigned where the result cannot be negative (after ReLU, ReLU6,
            ...): one bit more of resolution in fixed point; a minifloat or a K-hot number without sign bit,
            one bit narrower, otherwise (:func:`without_sign`). Formats from ``overrides`` stay as they are.
        estimator: what training computes in place of rounding, and its gradient (docs/estimators.md):
            ``"clipped"``, ``"straight_through"``, ``"soft"``, ``"noise"``, ``"gaussian"`` or
            ``"stochastic"``.
        learn_width: what learns its width together with its binary point (docs/widths.md), and for what one
            width is learned: ``{"weight": "weight", "bias": "weight", "activation": "tensor", "input":
            "tensor"}`` or fewer of these; weights also per ``"channel"`` or ``"tensor"``, biases per
            ``"tensor"``. It starts from the width of the format, at most 16 bits. Formats of ``overrides``
            with a binary point, or that are not fixed point, keep their width; so does the output.

    Raises:
        QfxError: a value of the wrong kind, an unknown key.
    """

    weight: Format = FixedPoint(8)
    activation: Format = FixedPoint(8)
    input: Format | None = None
    bias: FixedPoint | None = None
    scale: Format | None = None
    output: Format | str | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    per_channel: bool = False
    batch_norm: str = "fold"
    unsigned: bool = True
    estimator: str = "clipped"
    learn_width: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _FORMATS:
            value = getattr(self, name)
            if value is None and name not in ("weight", "activation"):
                continue
            if name == "output" and value == "exact":
                continue
            _check_format(f"Config: {name}", name, value)
        if self.batch_norm not in ("fold", "keep"):
            raise QfxError(f'Config: batch_norm must be "fold" or "keep", found {self.batch_norm!r}')
        check_estimator("Config: estimator", self.estimator)
        check_learn_width("Config: learn_width", self.learn_width, self)
        if not isinstance(self.overrides, Mapping):
            raise QfxError(
                f"Config: overrides must be a dictionary of module globs, found {self.overrides!r}"
            )
        for glob, entries in self.overrides.items():
            if not isinstance(glob, str) or not isinstance(entries, Mapping):
                raise QfxError(
                    f"Config: overrides[{glob!r}] must be a dictionary like {{'weight': FixedPoint(4)}}, "
                    f"found {entries!r}"
                )
            for key, value in entries.items():
                if key not in _LOCAL:
                    raise QfxError(
                        f"Config: overrides[{glob!r}] has the unknown key {key!r}; known are "
                        f"{', '.join(_LOCAL)}"
                    )
                if key == "per_channel":
                    if not isinstance(value, bool):
                        raise QfxError(
                            f"Config: overrides[{glob!r}]['per_channel'] must be True or False, found "
                            f"{value!r}"
                        )
                elif key == "estimator":
                    check_estimator(f"Config: overrides[{glob!r}]['estimator']", value)
                elif key == "learn_width":
                    check_learn_width(f"Config: overrides[{glob!r}]['learn_width']", value)
                else:
                    _check_format(f"Config: overrides[{glob!r}][{key!r}]", key, value)
        # Frozen means frozen: a later change of the caller's dictionary must not reach in here.
        copied = {glob: MappingProxyType(dict(entries)) for glob, entries in self.overrides.items()}
        object.__setattr__(self, "overrides", MappingProxyType(copied))
        object.__setattr__(self, "learn_width", MappingProxyType(dict(self.learn_width)))

    def __reduce__(self) -> tuple[Any, ...]:
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["overrides"] = {glob: dict(entries) for glob, entries in self.overrides.items()}
        plain["learn_width"] = dict(self.learn_width)
        return _rebuild, (plain,)

    @property
    def input_format(self) -> Format:
        """The format of the network's input."""
        return self.input if self.input is not None else _outside(self.activation)

    @property
    def output_format(self) -> Format | None:
        """The format of the network's result; ``None`` for the exact accumulator."""
        if isinstance(self.output, str):
            return None
        return self.output if self.output is not None else _outside(self.activation)

    @property
    def bias_format(self) -> FixedPoint:
        """The format of biases and offsets."""
        return self.bias if self.bias is not None else FixedPoint(16)

    @property
    def scale_format(self) -> Format:
        """The format of multipliers."""
        return self.scale if self.scale is not None else FixedPoint(8)

    def override(self, key: str, paths: Sequence[str]) -> Any:
        """The last override of ``key`` whose glob matches one of the paths, or ``None``."""
        found = None
        for glob, entries in self.overrides.items():
            if key in entries and any(matches(glob, path) for path in paths):
                found = entries[key]
        return found

    def check_globs(self, paths: Sequence[str]) -> None:
        """Refuse globs that match none of a model's modules: they are misspelled.

        Raises:
            QfxError: lists them all.
        """
        idle = [glob for glob in self.overrides if not any(matches(glob, path) for path in paths)]
        if idle:
            raise QfxError(
                f"Config: overrides {', '.join(map(repr, idle))} match no module. The modules are: "
                f"{', '.join(map(repr, paths))}"
            )


def matches(glob: str, path: str) -> bool:
    """Whether a glob names a module path, literally or by its wildcards."""
    return glob == path or fnmatchcase(path, glob)


def _rebuild(plain: dict[str, Any]) -> Config:
    return Config(**plain)


def without_sign(fmt: Format) -> Format:
    """The format for numbers that are never negative.

    A fixed-point format keeps its width, and the sign bit doubles the resolution. A minifloat keeps its
    exponent and mantissa bits, a K-hot number its digits and its range, and both are one bit narrower. What
    stays as it is: OCP minifloats (``specials`` other than ``none``), whose layout is a standard,
    ``WRAP_SM``, which exists for signed formats only, binary and block formats.
    """
    if isinstance(fmt, FixedPoint):
        return fmt if fmt.overflow == "WRAP_SM" else replace(fmt, signed=False)
    if isinstance(fmt, KHot) and fmt.signed:
        return replace(fmt, signed=False, width=fmt.width - 1)
    if isinstance(fmt, Minifloat) and fmt.specials == "none":
        return replace(fmt, signed=False, bias=None if fmt.learned else fmt.bias)
    return fmt


def _check_format(where: str, key: str, value: Any) -> None:
    if not isinstance(value, Format):
        raise QfxError(f"{where} must be a number format like qfx.FixedPoint, found {value!r}")
    if key == "bias" and not isinstance(value, FixedPoint):
        raise QfxError(
            f"{where} must be a qfx.FixedPoint, found {value}: biases and offsets are added to the exact sum "
            "of products, on its grid"
        )
    if key in ("input", "scale") and not value.has_point:
        raise QfxError(
            f"{where}: {value} takes its scale from the data, and this is "
            + ("no tensor of the network yet" if key == "input" else "one number per channel")
            + "; use a fixed-point format or a minifloat"
        )
    if getattr(value, "overflow", "SAT") == "INF":
        raise QfxError(
            f'{where}: {value} casts to infinity, which has no integer to compute with; use overflow="SAT"'
        )


def _outside(fmt: Format) -> Format:
    """The format of input and output when only that of activations is given."""
    if not isinstance(fmt, FixedPoint):
        return FixedPoint(8)
    return fmt if fmt.frac is not None or fmt.width >= 8 else replace(fmt, width=8)
