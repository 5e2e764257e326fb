"""What a report is made from: plain data about one build of a network, saved as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qfx.errors import QfxError
from qfx.report.plain import decode, encode

FORMAT, VERSION = "qfx-build", 1


@dataclass(frozen=True)
class Format:
    """What the page shows of a number format.

    Attributes:
        text: in full, ``ap_ufixed<4,1,RND_CONV,SAT>``.
        short: signedness, bits and fraction bits, ``u4 f3``; the range of fraction bits when per channel.
        bits: of a code.
        low, high: smallest and largest value (of any channel).
        step: distance of neighbouring values at its smallest.
        per_channel: whether there is one binary point per channel.
    """

    text: str
    short: str
    bits: int
    low: float
    high: float
    step: float
    per_channel: bool = False


@dataclass(frozen=True)
class Board:
    """The target; clock in MHz, resources of the device, ``None`` where unknown. BRAM in tiles of 36 Kbit."""

    name: str
    clock_mhz: float
    title: str = ""
    part: str = ""
    lut: int | None = None
    ff: int | None = None
    dsp: int | None = None
    bram: float | None = None


@dataclass(frozen=True)
class Verification:
    """One implementation against the integer graph.

    Attributes:
        name: ``torch``, ``hls``, ``rtl``; others are shown as they are.
        samples, mismatches: compared, and with at least one differing bit.
        how: what ran, in a few words.
        layers: intermediate tensors that were compared too.
        first_difference: where the first one is; empty when there is none.
        seconds: of building and running; ``None`` when not measured.
    """

    name: str
    samples: int
    mismatches: int
    how: str = ""
    layers: int = 0
    first_difference: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Cycles:
    """Clock cycles: per frame in the steady state, and from the first input to the last output beat."""

    interval_predicted: int | None = None
    interval_simulated: float | None = None
    latency_predicted: int | None = None
    latency_simulated: int | None = None


@dataclass(frozen=True)
class Resources:
    """What the whole design takes; counts as in :class:`qfx.cost.Cost`, ``fmax`` in MHz."""

    lut: int
    ff: int
    carry: int
    dsp: int
    bram: float
    lutram: int | None = None
    fmax: float | None = None
    tool: str = ""


@dataclass(frozen=True)
class BinaryPoint:
    """A quantizer's binary point before and after training, in fraction bits: one number, or one per channel.

    Attributes:
        name: of the quantizer, unique.
        path: module path that the row is labelled with.
        role: ``input``, ``weight``, ``bias`` or ``activation``.
        bits, signed: of the format.
        calibrated: where calibration put it.
        learned: where training left it.
        frozen: it was given, not learned.
    """

    name: str
    path: str
    role: str
    bits: int
    signed: bool
    calibrated: tuple[int, ...]
    learned: tuple[int, ...]
    frozen: bool = False


@dataclass(frozen=True)
class Histogram:
    """Values before their cast, against the format that they are cast to (:func:`qfx.report.histogram`).

    Attributes:
        name, path, role: as in :class:`BinaryPoint`.
        format: of the cast.
        unit: ``value``, or ``code`` (multiples of the step of each channel) when the format is per channel.
        low, high: ends of the bins, in that unit.
        range_low, range_high: smallest and largest number of the format, in that unit.
        counts: values per bin, exact zeros excluded.
        below, above: values left and right of the bins.
        zeros: values that are exactly 0.
        samples: all values.
        clipped: values outside the range of the format by more than rounding.
        vanished: values that are not 0 and become 0.
        code_low, codes: how often each code occurs, from code ``code_low``; empty beyond 6 bits.
        used, available: codes that occur, and that exist.
        sqnr_db: power of the values over power of the rounding and clipping error, in dB; ``None`` when there
            is no error, or no signal.
    """

    name: str
    path: str
    role: str
    format: Format
    unit: str
    low: float
    high: float
    range_low: float
    range_high: float
    counts: tuple[int, ...]
    below: int
    above: int
    zeros: int
    samples: int
    clipped: int
    vanished: int
    used: int
    available: int
    code_low: int = 0
    codes: tuple[int, ...] = ()
    sqnr_db: float | None = None


@dataclass(frozen=True)
class Epoch:
    """One line of a training curve. ``run``: ``float``, ``learned``; accuracies in percent."""

    run: str
    epoch: int
    loss: float
    accuracy: float | None = None
    train_accuracy: float | None = None


@dataclass(frozen=True)
class Layer:
    """A node of the graph, and what it became.

    Attributes:
        name, op, path, inputs, shape: as in :class:`qfx.graph.Node`.
        format: of the result.
        detail: attributes of the operator in a few words.
        weights, macs: constants, and multiply-accumulates per frame.
        weight_format: short form.
        accumulator: width in bits of the exact sum, for operators that sum.
        pe, simd: lanes of the output and of the input that are computed at once.
        cycles: per frame.
        lut, ff, carry, dsp, bram: of its kernels; ``None`` when not measured.
    """

    name: str
    op: str
    path: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    format: Format
    detail: str = ""
    weights: int | None = None
    macs: int | None = None
    weight_format: str = ""
    accumulator: int | None = None
    pe: int | None = None
    simd: int | None = None
    cycles: int | None = None
    lut: int | None = None
    ff: int | None = None
    carry: int | None = None
    dsp: int | None = None
    bram: float | None = None


@dataclass(frozen=True)
class MacCost:
    """A multiply-accumulate kernel. ``bits``: of an operand; ``integer``: others are compared with it."""

    format: str
    bits: int
    integer: bool
    lut: int
    ff: int
    dsp: int
    accumulator_bits: int
    carry: int | None = None


@dataclass(frozen=True)
class Build:
    """One build of a network, from training to measured hardware. What was not done stays empty.

    Attributes:
        title: headline.
        command: what reproduces it.
        created: date and time, ISO 8601.
        description: a sentence or two under the headline.
        dataset: name of the data.
        board: target.
        accuracy: percent by name: ``float``, ``ptq``, ``learned``; others are shown as they are.
        accuracy_samples: test samples that the accuracies are over.
        verify: implementations against the integer graph.
        cycles: predicted and simulated.
        resources: of the whole design.
        layers: nodes of the graph in order.
        points: binary points in the order of the network.
        histograms: likewise.
        training: epochs of all runs.
        mac_cost: kernels side by side.
        seconds: by step, in order.
        versions, machine: what it was made with.
        files: artefacts, name to path.
        notes: by section (``accuracy``, ``verify``, ``cycles``, ``resources``, ``layers``, ``points``,
            ``histograms``, ``training``, ``mac_cost``): why it is empty, or a remark under it.
    """

    title: str
    command: str
    created: str = ""
    description: str = ""
    dataset: str = ""
    board: Board | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    accuracy_samples: int | None = None
    verify: tuple[Verification, ...] = ()
    cycles: Cycles | None = None
    resources: Resources | None = None
    layers: tuple[Layer, ...] = ()
    points: tuple[BinaryPoint, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    training: tuple[Epoch, ...] = ()
    mac_cost: tuple[MacCost, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("versions", "machine"):
            object.__setattr__(self, name, {key: str(value) for key, value in getattr(self, name).items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON.

        Raises:
            QfxError: a field that is not of its type, NaN or infinite; the message names it.
        """
        data = {"format": FORMAT, "version": VERSION, **encode(self)}
        Build.from_dict(data)  # a wrong type is found where the build is made, not by its reader
        return data

    @classmethod
    def from_dict(cls, data: Any) -> Build:
        """The inverse of :meth:`to_dict`.

        Raises:
            QfxError: not a build, one of a newer version, or damaged; the message names the place.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise QfxError(
                f'not a build: expected an object with "format": "{FORMAT}", as Build.save writes it '
                "(summary.json holds the results only; the report needs build.json beside it)"
            )
        if data.get("version") != VERSION:
            raise QfxError(f"build of version {data.get('version')!r}; this QFX reads version {VERSION}")
        return decode(cls, {key: value for key, value in data.items() if key not in ("format", "version")})

    def save(self, path: str | Path) -> None:
        """Write JSON; the file appears whole or not at all."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(path, text + "\n")

    def summary(self) -> dict[str, Any]:
        """The results alone: accuracy, verify, cycles, resources, mac_cost, seconds, versions."""
        plain = encode(self)
        resources = plain["resources"]
        return {
            "accuracy": plain["accuracy"],
            "verify": {v.name: {"samples": v.samples, "mismatches": v.mismatches} for v in self.verify},
            "cycles": plain["cycles"],
            "resources": resources and {key: resources[key] for key in ("lut", "ff", "carry", "dsp", "bram")},
            "mac_cost": [
                {key: row[key] for key in ("format", "lut", "ff", "dsp", "accumulator_bits")}
                for row in plain["mac_cost"]
            ],
            "seconds": plain["seconds"],
            "versions": plain["versions"],
        }


def from_json(path: str | Path) -> Build:
    """The build that :meth:`Build.save` wrote.

    Raises:
        QfxError: the file is missing, is not JSON, or does not hold a build.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise QfxError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise QfxError(f"{path}: not JSON ({error})") from error
    try:
        return Build.from_dict(data)
    except QfxError as error:
        raise QfxError(f"{path}: {error}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file under another name, then rename it: it appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
