"""What a design will cost, without synthesis: a fit to the cost table, with standard errors.

LUTs and flip-flops of a kernel are a sum of features (:mod:`qfx.cost.features`) with coefficients of zero or
more, fitted per kernel module to the kernels of the table with relative weights. DSP blocks and block RAMs
follow from rules. A design as a whole takes less than its kernels one by one, since synthesis sees through
their boundaries; by how much is fitted to the designs of the table. Errors are those of kernels that the fit
had not seen (cross-validation), and of designs around the sum of their kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.cost import contents
from qfx.cost.features import Products, blocks, features
from qfx.cost.table import Row, Table, defaults, shipped

if TYPE_CHECKING:
    from qfx.rtl.design import Design, Kernel

FITTED = ("lut", "ff")
#: Relative standard error of a module that the table does not have, and of the first estimate used for it.
UNKNOWN = 0.4
#: What a multiplier by a constant takes of one by a number.
CONSTANT = 0.5
#: Parts of kernels whose shares in a design are fitted apart (:func:`group`).
GROUPS = ("multiply", "tables", "products", "elements", "windows", "streams")
SHARE_PULL = 0.1
#: What a feature costs where the table says little or nothing about it: in LUTs when that is not 1, in
#: flip-flops when it is not 0.
PRIOR = {
    "lut": {
        "one": 4.0,
        "dropped": 0.3,
        "constant_adders": CONSTANT,
        **dict.fromkeys(("operands", "operands_dsp", "registers", "registers_dsp", "wide", "plain_ff"), 0.0),
        **dict.fromkeys(("word", "word_dsp", "bias_word", "bias_bits", "scale_registers"), 0.0),
        **dict.fromkeys(("sum_bits", "sum_bits_dsp", "constant_bits", "accumulate_dsp", "sum_dsp"), 0.0),
        **{f"dot_ff_{kind}": 0.0 for kind in (2, 3, 4)},
        **{f"constant_dot_ff_{kind}": 0.0 for kind in (2, 3, 4)},
        **{f"constant_dot_lut_{kind}": CONSTANT for kind in (2, 3, 4)},
    },
    "ff": {
        **dict.fromkeys(("operands", "registers", "word", "bias_word", "scale_registers", "sum_bits"), 1.0),
        **dict.fromkeys(("plain_ff", "result", "width"), 1.0),
        **{f"dot_ff_{kind}": 1.0 for kind in (2, 3, 4)},
        **{f"constant_dot_ff_{kind}": CONSTANT for kind in (2, 3, 4)},
    },
}
#: Features that say nothing about the resource, by their beginnings.
IRRELEVANT = {
    "lut": ("word", "bias_word", "sum_bits", "dot_ff", "constant_dot_ff", "registers", "scale_registers"),
    "ff": (
        *(
            "product",
            "rom",
            "table",
            "scale_rom",
            "replay",
            "dot_lut",
            "constant_dot_lut",
            "decode",
            "operand_mux",
        ),
        *("accumulate", "memory", "carry", "over", "shifter", "constant_adders", "padding", "negated"),
    ),
}
#: How much that counts beside the measurements.
PULL = {"lut": 0.01, "ff": 0.001}
_FLOOR = 6.0  # LUTs or flip-flops: below that, relative errors say nothing
_FOLDS = 5


@dataclass(frozen=True)
class KernelEstimate:
    """One kernel by itself: resources and their standard errors."""

    name: str
    module: str
    lut: float
    ff: float
    dsp: float
    bram18: float
    lut_error: float
    ff_error: float
    #: Whether the table has no kernel like it.
    is_new: bool = False


@dataclass(frozen=True)
class Estimate:
    """A design: resources, the standard errors of LUTs and flip-flops, and its kernels one by one.

    DSP blocks and block RAMs of 18 Kbit follow from rules and have no error of a fit.
    """

    lut: float
    ff: float
    dsp: float
    bram18: float
    lut_error: float
    ff_error: float
    kernels: tuple[KernelEstimate, ...] = ()


@dataclass(frozen=True)
class _Module:
    """Coefficients of a module for one resource, and the relative standard error of an estimate."""

    resource: str
    coefficients: dict[str, float]
    error: float

    def parts(self, values: dict[str, float]) -> dict[str, float]:
        """What each feature contributes; one that is new to the table, what it does by :data:`PRIOR`."""
        return {
            name: value
            * (self.coefficients[name] if name in self.coefficients else prior(self.resource, name))
            for name, value in values.items()
        }

    def __call__(self, values: dict[str, float]) -> tuple[float, float]:
        """Value and standard error; the latter of an unknown module when a feature is new to the table."""
        value = sum(self.parts(values).values())
        return value, (UNKNOWN if self.is_new(values) else self.error) * max(value, _FLOOR)

    def is_new(self, values: dict[str, float]) -> bool:
        """Whether there is a feature that no kernel of the table had."""
        return any(
            value and name not in self.coefficients and not name.startswith(IRRELEVANT[self.resource])
            for name, value in values.items()
        )


@dataclass(frozen=True)
class _Part:
    """A kernel of a design: its estimate, and its features."""

    estimate: KernelEstimate
    values: dict[str, float]


def prior(resource: str, feature: str) -> float:
    """LUTs or flip-flops of a feature before any measurement."""
    return PRIOR[resource].get(feature, 1.0 if resource == "lut" else 0.0)


class Estimator:
    """Estimates after a cost table.

    Args:
        table: the shipped one when not given.
    """

    def __init__(self, table: Table | None = None) -> None:
        self.table = shipped() if table is None else table
        self.products: Products = {(a, b, s, t): (lut, dsp) for a, b, s, t, lut, dsp in self.table.products}
        self._values = [
            features(_kernel(row.module, row.parameters), self.products, row.contents)
            for row in self.table.rows
        ]
        self._models = {
            (module, resource): self._fit(module, resource)
            for module in sorted({row.module for row in self.table.rows})
            for resource in FITTED
        }
        self._seen = self._measurements()
        self._sums = self._sums_of(words=True)
        self._share = {resource: self._whole(resource) for resource in FITTED}

    def kernel(self, kernel: Kernel) -> KernelEstimate:
        """One kernel by itself."""
        return self._known(kernel, contents.of(kernel)).estimate

    def design(self, kernels: Iterable[Kernel]) -> Estimate:
        """A design of these kernels."""
        parts = [self._known(kernel, contents.of(kernel)) for kernel in kernels]
        each = tuple(part.estimate for part in parts)
        total: dict[str, float] = {}
        for resource in FITTED:
            shares, spread = self._share[resource]
            sums = self._group_sums(parts, resource)
            value = sum(share * sums[name] for name, share in shares.items())
            # The spread of designs around their kernels holds the errors of known kernels already.
            unknown = [getattr(k, f"{resource}_error") ** 2 for k in each if k.is_new]
            total |= {
                resource: value,
                f"{resource}_error": math.hypot(math.sqrt(sum(unknown)), spread * value),
            }
        return Estimate(
            **total, dsp=sum(k.dsp for k in each), bram18=sum(k.bram18 for k in each), kernels=each
        )

    def share(self, kernel: Kernel) -> tuple[float, float, float, float]:
        """LUTs, flip-flops, DSP blocks and block RAMs of 18 Kbit that a kernel adds to a design whatever
        stands in its memories; the sum over kernels is the estimate of :meth:`design` for random words.

        Kernels that were measured are estimated like the others: what is compared must not win by the noise
        of a measurement.
        """
        part = self._known(kernel, {}, measured=False)
        lut, ff = (
            sum(share * sums[name] for name, share in self._share[resource][0].items())
            for resource in FITTED
            for sums in (self._group_sums((part,), resource),)
        )
        return lut, ff, part.estimate.dsp, part.estimate.bram18

    def _known(self, kernel: Kernel, inside: Mapping[str, float], measured: bool = True) -> _Part:
        """A kernel by itself, and its features.

        Args:
            measured: take the measurement of a kernel that stands in the table.
        """
        from qfx.rtl.estimate import structure

        values = features(kernel, self.products, inside)
        dsp, bram18 = blocks(kernel, self.products)
        found: dict[str, tuple[float, float]] = {}
        seen = self._seen.get((kernel.module, _key(kernel.parameters, inside))) if measured else None
        for resource in FITTED:
            model = self._models.get((kernel.module, resource))
            if seen is not None:
                found[resource] = seen[resource]
            elif model is not None:
                found[resource] = model(values)
            else:
                value = float(getattr(structure(kernel), resource))
                found[resource] = value, UNKNOWN * max(value, _FLOOR)
        (lut, lut_error), (ff, ff_error) = found["lut"], found["ff"]
        is_new = seen is None and (model is None or model.is_new(values))
        return _Part(
            KernelEstimate(kernel.name, kernel.module, lut, ff, dsp, bram18, lut_error, ff_error, is_new),
            values,
        )

    def held_out(self, resource: str, words: bool = True) -> list[tuple[int, float, float]]:
        """For each design of the table what was measured, and the estimate and standard error of a fit to all
        the others.

        Kernels come from other networks than these designs in any case.

        Args:
            resource: ``"lut"`` or ``"ff"``.
            words: as they are in the memories; otherwise random ones, as for :meth:`share`.
        """
        found = []
        parts = (self._sums if words else self._sums_of(words=False))[resource]
        for i, whole in enumerate(self.table.wholes):
            shares, spread = self._whole(resource, without=i)
            sums = zip(shares.values(), parts[i], strict=True)
            value = sum(share * part for share, part in sums)
            found.append((int(getattr(whole, resource)), value, spread * value))
        return found

    def _sums_of(self, words: bool) -> dict[str, list[list[float]]]:
        """For each resource and design of the table the estimates of its kernels, by group."""
        designs = [
            [self._known(_kernel(m, p), c if words else {}, measured=words) for m, p, c in whole.kernels]
            for whole in self.table.wholes
        ]
        return {
            resource: [list(self._group_sums(parts, resource).values()) for parts in designs]
            for resource in FITTED
        }

    # -- fits ------------------------------------------------------------------------------------------------

    def _fit(self, module: str, resource: str) -> _Module:
        rows = [i for i, row in enumerate(self.table.rows) if row.module == module]
        names = sorted({name for i in rows for name, value in self._values[i].items() if value})
        names = [name for name in names if not name.startswith(IRRELEVANT[resource])]
        x = np.array([[self._values[i].get(name, 0.0) for name in names] for i in rows])
        y = np.array([float(getattr(self.table.rows[i], resource)) for i in rows])
        weight = 1 / (y + _FLOOR)
        first = np.array([prior(resource, name) for name in names])
        solved = nonnegative_least_squares(x * weight[:, None], y * weight, first, PULL[resource])
        residuals = []
        if len(rows) >= 2 * _FOLDS:
            # Kernels with equal parameters are together inside or outside a fold.
            groups = np.array([hash_of(_key(self.table.rows[i].parameters, {})) % _FOLDS for i in rows])
            for fold in range(_FOLDS):
                out = groups == fold
                if out.any() and not out.all():
                    inside = (x * weight[:, None])[~out], (y * weight)[~out]
                    w = nonnegative_least_squares(*inside, first, PULL[resource])
                    guess = x[out] @ w
                    residuals += list((guess - y[out]) / np.maximum(guess, _FLOOR))
        error = float(np.sqrt(np.mean(np.square(residuals)))) if residuals else UNKNOWN / 2
        return _Module(resource, dict(zip(names, map(float, solved), strict=True)), error)

    def _measurements(self) -> dict[tuple[str, str], dict[str, tuple[float, float]]]:
        """Kernels of the table by module, parameters and contents: mean, and the standard error of one more
        of them."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.table.rows:
            parameters = {**defaults(row.module), **row.parameters}
            groups.setdefault((row.module, _key(parameters, row.contents)), []).append(row)
        found = {}
        for key, rows in groups.items():
            values = {}
            for resource in FITTED:
                y = np.array([float(getattr(row, resource)) for row in rows])
                spread = 0.04 * max(float(y.mean()), _FLOOR)
                values[resource] = float(y.mean()), max(float(y.std()), spread)
            found[key] = values
        return found

    def _whole(self, resource: str, without: int = -1) -> tuple[dict[str, float], float]:
        """What share of the sum of its kernels a design takes, by group of kernels, and the relative spread.

        Args:
            resource: ``"lut"`` or ``"ff"``.
            without: a design of the table to leave out.
        """
        kept = [i for i in range(len(self.table.wholes)) if i != without]
        true = np.array([float(getattr(self.table.wholes[i], resource)) for i in kept])
        sums = np.array([self._sums[resource][i] for i in kept]).reshape(-1, len(GROUPS))
        if len(kept) < len(GROUPS):
            return dict.fromkeys(GROUPS, 1.0), UNKNOWN / 4
        scaled = sums / true[:, None]
        residuals = []
        for i in range(len(kept)):
            rest = np.arange(len(kept)) != i
            residuals.append(float(scaled[i] @ _shares(scaled[rest])) - 1)
        shares = _shares(scaled)
        spread = float(np.sqrt(np.mean(np.square(residuals))))
        return dict(zip(GROUPS, map(float, shares), strict=True)), spread

    def _group_sums(self, parts: Iterable[_Part], resource: str) -> dict[str, float]:
        """The estimates of kernels, by group; those that were measured are scaled to the measurement."""
        sums = dict.fromkeys(GROUPS, 0.0)
        for part in parts:
            value = getattr(part.estimate, resource)
            model = self._models.get((part.estimate.module, resource))
            shares = {} if model is None else model.parts(part.values)
            total = sum(shares.values())
            for name, share in shares.items() if total else {"": 1.0}.items():
                sums[group(part.estimate.module, name)] += value * share / (total or 1.0)
        return sums


def _shares(scaled: np.ndarray) -> np.ndarray:
    """The shares of groups for which sums, relative to what was measured, come closest to one; drawn to one
    share for all."""
    one = np.ones(len(scaled))
    together = nonnegative_least_squares(scaled.sum(axis=1)[:, None], one)
    common = np.full(scaled.shape[1], float(together[0]))
    return nonnegative_least_squares(scaled, one, common, SHARE_PULL * len(scaled))


def group(module: str, feature: str = "") -> str:
    """Which of :data:`GROUPS` a feature of a module belongs to."""
    if module in ("qfx_matvec", "qfx_depthwise", "qfx_affine", "qfx_matmul"):
        if feature.startswith(("product_", "sum", "dot_", "constant_", "decode", "block_")):
            return "multiply"
        return "tables" if feature in ("rom", "table", "bias", "scale_rom") else "products"
    if module == "qfx_window":
        return "windows"
    if module in ("qfx_fifo", "qfx_fork", "qfx_upsize", "qfx_downsize", "qfx_reorder", "qfx_concat"):
        return "streams"
    return "elements"


@lru_cache(maxsize=1)
def default() -> Estimator:
    """The estimator after the shipped table."""
    return Estimator()


def estimate(design: Design | Sequence[Kernel]) -> Estimate:
    """What a streaming design will cost on 7-series parts, with standard errors.

    Args:
        design: of :func:`qfx.rtl.plan` or :func:`qfx.rtl.generate`, or its kernels.

    Raises:
        QfxError: a parallel design, whose modules are not kernels with parameters.
    """
    from qfx.errors import QfxError

    if getattr(design, "architecture", "stream") != "stream":
        raise QfxError("cost.estimate: a parallel design has an estimate of its own; use design.estimate")
    kernels: Iterable[Kernel] = getattr(design, "kernels", design)  # type: ignore[arg-type]
    return default().design(kernels)


def nonnegative_least_squares(
    a: np.ndarray, b: np.ndarray, prior: np.ndarray | None = None, pull: float = 1e-9
) -> np.ndarray:
    """The ``x >= 0`` that minimises ``|a x - b|**2 + pull * |s (x - prior)|**2``, ``s`` the lengths of
    columns.

    Active sets. Source: C. Lawson, R. Hanson, "Solving Least Squares Problems", 1974, chapter 23.
    """
    scale = np.sqrt((a * a).sum(axis=0))
    scale[scale == 0] = 1.0
    scaled = a / scale
    size = a.shape[1]
    gram = scaled.T @ scaled + pull * np.eye(size)
    target = scaled.T @ b + (0 if prior is None else pull * prior * scale)
    x, free = np.zeros(size), np.zeros(size, dtype=bool)
    for _ in range(10 * size):
        gradient = np.where(free, -np.inf, target - gram @ x)
        j = int(gradient.argmax())
        if gradient[j] <= 1e-12 * max(1.0, float(np.abs(target).max(initial=0.0))):
            break
        free[j] = True
        while True:
            solved = np.zeros(size)
            solved[free] = np.linalg.solve(gram[np.ix_(free, free)], target[free])
            below = free & (solved <= 0)
            if not below.any():
                break
            # As far towards it as nothing becomes negative.
            step = float((x[below] / (x[below] - solved[below])).min())
            x = x + step * (solved - x)
            free &= x > 1e-15
            x[~free] = 0.0
        x = solved
    return np.asarray(x / scale)


def hash_of(text: str) -> int:
    """A number from a text that is the same in every process."""
    import zlib

    return zlib.crc32(text.encode())


def _key(parameters: Mapping[str, Any], inside: Mapping[str, float]) -> str:
    items = [*sorted(parameters.items()), *sorted(inside.items())]
    return " ".join(f"{k}={v}" for k, v in items if not k.endswith("_FILE"))


def _kernel(module: str, parameters: Mapping[str, int | str]) -> Kernel:
    from qfx.rtl.design import Kernel

    return Kernel("", module, {**defaults(module), **parameters}, (), (), "")
