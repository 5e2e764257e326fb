"""What a report shows, taken from graphs, designs, measurements and prepared models."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.errors import QfxError
from qfx.formats import FixedPoint
from qfx.graph import ops
from qfx.report import text
from qfx.report.build import BinaryPoint, Format, Histogram, Layer, Resources, Verification

if TYPE_CHECKING:
    import torch

    from qfx.cost import Cost
    from qfx.graph import Graph, Node
    from qfx.rtl.design import Design
    from qfx.verification import Comparison

#: Formats with more bits than this get no bar for every code.
CODE_BITS = 6


def format_of(fmt: Any) -> Format:
    """The report's view of a :class:`qfx.FixedPoint` or :class:`qfx.Minifloat`."""
    low, high = np.min(np.asarray(fmt.min)), np.max(np.asarray(fmt.max))
    if hasattr(fmt, "exponent_bits"):
        kind = f"E{fmt.exponent_bits}M{fmt.mantissa_bits}"
        step = math.ldexp(1.0, fmt.min_exponent - fmt.mantissa_bits)
        return Format(str(fmt), kind, fmt.width, float(low), float(high), step)
    sign = "s" if fmt.signed else "u"
    fracs = fmt.frac if isinstance(fmt.frac, tuple) else (fmt.frac,)
    least, most = min(fracs), max(fracs)
    where = str(least) if least == most else f"{least}…{most}"
    step = math.ldexp(1.0, -most)
    short = text.minus(f"{sign}{fmt.width} f{where}")
    return Format(str(fmt), short, fmt.width, float(low), float(high), step, fmt.per_channel)


def collect_layers(graph: Graph, design: Design | None = None, cost: Cost | None = None) -> tuple[Layer, ...]:
    """The nodes of a graph as rows of the report.

    Args:
        graph: the network.
        design: its hardware: adds folds and cycles per frame.
        cost: of that design, measured with its instances: adds what the kernels of each node take. What is
            at the ends of the design (``Kernel.node == ""``) and in no kernel belongs to no row.
    """
    rows = [_layer(graph, node) for node in graph.nodes]
    if design is not None:
        folds = {layer.node: layer for layer in design.layers}
        rows = [
            replace(row, pe=f.pe, simd=f.simd, cycles=f.steps) if (f := folds.get(row.name)) else row
            for row in rows
        ]
    if design is not None and cost is not None and cost.instances:
        instances = {instance.name: instance for instance in cost.instances}
        taken: dict[str, list[Any]] = {}
        for kernel in design.kernels:
            if kernel.name in instances:
                taken.setdefault(kernel.node, []).append(instances[kernel.name])
        rows = [replace(row, **_sums(taken[row.name])) if row.name in taken else row for row in rows]
    return tuple(rows)


def collect_resources(cost: Cost) -> Resources:
    """The measurement of a whole design."""
    return Resources(
        lut=cost.lut, ff=cost.ff, carry=cost.carry, dsp=cost.dsp, bram=cost.bram, lutram=cost.lutram,
        fmax=cost.fmax, tool=f"{cost.tool} {cost.version}".strip(),
    )  # fmt: skip


def collect_verification(
    report: Mapping[str, Comparison], how: Mapping[str, str] | None = None
) -> tuple[Verification, ...]:
    """The rows of :func:`qfx.verify`'s result; ``how`` says in a few words what ran, by implementation."""
    rows = []
    for name, found in report.items():
        first = found.first_layer or found.first_difference
        rows.append(
            Verification(
                name=name, samples=found.samples, mismatches=found.mismatches, how=(how or {}).get(name, ""),
                layers=found.layers, first_difference="" if first is None else str(first),
                seconds=sum(found.seconds.values()) if found.seconds else None,
            )
        )  # fmt: skip
    return tuple(rows)


def histogram(
    values: Any,
    fmt: Any,
    bins: int = 48,
    *,
    name: str,
    path: str = "",
    role: str = "activation",
    axis: int = 0,
) -> Histogram:
    """Count values against the range of the fixed-point format that they are cast to.

    With one binary point per channel, values are counted in steps of their channel (``unit="code"``), so that
    all channels share one range.

    Args:
        values: float array or tensor, before the cast.
        fmt: a :class:`qfx.FixedPoint`.
        bins: of the drawing, at most about as many.
        name, path, role: see :class:`Histogram`.
        axis: the channel axis of ``values``, when the format is per channel.

    Raises:
        QfxError: no values, or NaN or infinity among them.
    """
    x = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
    if x.size == 0 or not np.isfinite(x).all():
        raise QfxError(f"histogram of {name}: expected finite numbers, at least one; found {_problem(x)}")
    codes = fmt.encode(x, axis=axis)
    quantized = fmt.decode(codes, axis=axis)
    in_codes = bool(fmt.per_channel)
    if in_codes:
        x, quantized = np.ldexp(x, _fracs(fmt, x.ndim, axis)), codes.astype(np.float64)
        step, least, most = 1.0, float(fmt.code_min), float(fmt.code_max)
    else:
        step, least, most = math.ldexp(1.0, -fmt.max_frac), float(fmt.min), float(fmt.max)
    flat = x.reshape(-1)
    low, high, number = _window(flat, least, most, step, bins)
    counts, _ = np.histogram(flat[flat != 0], bins=number, range=(low, high))
    error, power = float(np.square(x - quantized).sum()), float(np.square(x).sum())
    small = fmt.width <= CODE_BITS
    return Histogram(
        name=name,
        path=path or name,
        role=role,
        format=format_of(fmt),
        unit="code" if in_codes else "value",
        low=low,
        high=high,
        range_low=float(least),
        range_high=float(most),
        counts=tuple(int(c) for c in counts),
        below=int((flat < low).sum()),
        above=int((flat > high).sum()),
        zeros=int((flat == 0).sum()),
        samples=int(flat.size),
        clipped=int(((flat < least - step / 2) | (flat > most + step / 2)).sum()),
        vanished=int(((codes == 0) & (x != 0)).sum()),
        code_low=fmt.code_min,
        codes=tuple(_code_counts(codes, fmt)) if small else (),
        used=int(np.unique(codes).size),
        available=fmt.code_max - fmt.code_min + 1,
        sqnr_db=10 * math.log10(power / error) if error > 0 and power > 0 else None,
    )


def binary_points(
    q: torch.nn.Module, calibrated: Sequence[BinaryPoint] | None = None
) -> tuple[BinaryPoint, ...]:
    """The binary points of a prepared model: where calibration put them and where they are now.

    Args:
        q: from :func:`qfx.prepare`, calibrated.
        calibrated: what this function returned before training, when binary points were set or frozen since
            (``Quantizer.set`` and ``freeze`` start anew from where they are put).

    Raises:
        QfxError: a quantizer that is not calibrated.
    """
    before = {point.name: point.learned for point in calibrated or ()}
    was_frozen = {point.name: point.frozen for point in calibrated or ()}
    points = []
    for name, quantizer, path, role in _quantizers(q):
        learned = _as_tuple(quantizer.format.frac)
        start = tuple(int(n) for n in np.rint(np.atleast_1d(quantizer.start.detach().cpu().numpy())))
        points.append(
            BinaryPoint(
                name=name,
                path=path,
                role=role,
                bits=quantizer.fmt.width,
                signed=quantizer.fmt.signed,
                calibrated=before.get(name, start),
                learned=learned,
                frozen=was_frozen.get(name, quantizer.frozen),
            )
        )
    return tuple(points)


def collect_histograms(
    q: torch.nn.Module, x: torch.Tensor, bins: int = 48, limit: int = 1 << 20
) -> tuple[Histogram, ...]:
    """A histogram for every quantizer of a prepared model: what it casts in one pass in ``eval()``.

    Args:
        q: from :func:`qfx.prepare`, calibrated. Its training mode is as before afterwards.
        x: a batch of inputs; a few hundred samples do.
        bins: of the drawings.
        limit: values of an activation that are looked at; samples beyond that are left out.
    """
    import torch

    seen: dict[str, Any] = {}
    handles = []
    found = list(_quantizers(q))
    for name, quantizer, _, role in found:

        def keep(module: Any, arguments: Any, name: str = name, role: str = role) -> None:
            value = arguments[0].detach()
            if name not in seen:
                first = max(1, limit // max(1, value[0].numel())) if role in ("activation", "input") else None
                seen[name] = value[:first].cpu().double().numpy()

        handles.append(quantizer.register_forward_pre_hook(keep))
    training = q.training
    try:
        q.eval()  # also makes the model quantize its constants anew, past the hooks
        with torch.no_grad():
            q(x)
    finally:
        for handle in handles:
            handle.remove()
        q.train(training)
    return tuple(
        histogram(seen[name], quantizer.format, bins, name=name, path=path, role=role, axis=quantizer.axis)
        for name, quantizer, path, role in found
        if name in seen
    )


# -- layers ----------------------------------------------------------------------------------------


def _layer(graph: Graph, node: Node) -> Layer:
    op = node.op
    t = node.tensor
    weights = macs = accumulator = None
    weight_format = ""
    if isinstance(op, ops.Weighted):
        weights = int(op.weight.size)
        places = int(np.prod(t.shape[1:]))  # of the output, 1 for linear
        macs = weights * places
        weight_format = format_of(op.weight_format).short
    if isinstance(op, ops.Affine):
        weights = int(op.scale.size + op.offset.size)
        macs = t.size
        weight_format = format_of(op.scale_format).short
    if isinstance(op, ops.Weighted | ops.AvgPool):
        accumulator = t.format.width
    return Layer(
        name=node.name,
        op=op.kind,
        path=node.path,
        inputs=node.inputs,
        shape=t.shape,
        format=format_of(t.format),
        detail=_detail(op, graph.operands(node)),
        weights=weights,
        macs=macs,
        weight_format=weight_format,
        accumulator=accumulator,
    )


def _detail(op: ops.Op, operands: Iterable[Any]) -> str:
    match op:
        case ops.Conv():
            (x,) = operands
            words = ["×".join(map(str, op.kernel)), f"{x.channels}→{op.out_channels}"]
            words += _window_words(op.stride, op.padding, usual=(1,) * len(op.stride))
            if any(d != 1 for d in op.dilation):
                words.append("dilation " + _compact(op.dilation))
            if op.groups > 1:
                words.append("depthwise" if op.groups == x.channels else f"{op.groups} groups")
            return ", ".join(words)
        case ops.Linear():
            return f"{op.weight.shape[1]}→{op.weight.shape[0]}"
        case ops.MaxPool() | ops.AvgPool():
            words = ["×".join(map(str, op.kernel))]
            return ", ".join(words + _window_words(op.stride, op.padding, usual=op.kernel))
        case ops.Cast():
            fmt = op.format
            return f"{fmt.rounding}, {fmt.overflow}" if isinstance(fmt, FixedPoint) else str(fmt)
        case ops.LeakyRelu():
            return f"slope {math.ldexp(op.slope_code, -op.slope_frac):g}"
        case ops.Clip():
            ends = [None if b is None else math.ldexp(b, -op.bound_frac) for b in (op.low, op.high)]
            return "…".join("" if e is None else text.minus(f"{e:g}") for e in ends)
        case ops.Transpose():
            return "axes " + ", ".join(map(str, op.axes))
    return ""


def _window_words(stride: tuple[int, ...], padding: ops.Padding, usual: tuple[int, ...]) -> list[str]:
    words = []
    if stride != usual:
        words.append("stride " + _compact(stride))
    pads = tuple(p for pair in padding for p in pair)
    if any(pads):
        words.append("pad " + _compact(pads))
    return words


def _compact(numbers: tuple[int, ...]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else ",".join(map(str, numbers))


def _sums(instances: Iterable[Any]) -> dict[str, Any]:
    found = list(instances)
    return {key: sum(getattr(i, key) for i in found) for key in ("lut", "ff", "carry", "dsp", "bram")}


# -- quantizers ------------------------------------------------------------------------------------


def _quantizers(q: torch.nn.Module) -> Iterable[tuple[str, Any, str, str]]:
    """Name, quantizer, path of the label and role, in the order in which they compute."""
    from qfx.learn import QuantizedModel
    from qfx.nn import InputQuantizer, Quantizer

    if not isinstance(q, QuantizedModel):
        raise QfxError(f"report: expected what qfx.prepare returned, found {type(q).__name__}")
    known = {name: module for name, module in q.named_modules() if isinstance(module, Quantizer)}
    steps = [step for step, _ in q._qfx_items()]
    targets = {step.target for step in steps}
    casts = Counter(step.path for step in steps if step.target in known)
    done: set[str] = set()
    for step in steps:
        for name in known:
            # Parameters' quantizers live in the module of their step; a cast is a step of its own.
            inside = name.startswith(f"{step.target}.") and name not in targets
            if name in done or not (name == step.target or inside):
                continue
            done.add(name)
            path = step.path or step.target
            if isinstance(known[name], InputQuantizer):
                role = "input"
            elif name == step.target:
                role = "activation"
                if casts[step.path] > 1:  # a module that is called more than once
                    path = name.removesuffix(".output")
            else:
                role = name.rpartition(".")[2].removesuffix("_quantizer")
            yield name, known[name], path, role


def _as_tuple(frac: int | tuple[int, ...] | None) -> tuple[int, ...]:
    assert frac is not None  # Quantizer.format refuses before this
    return frac if isinstance(frac, tuple) else (frac,)


# -- counting --------------------------------------------------------------------------------------


def _fracs(fmt: Any, ndim: int, axis: int) -> np.ndarray:
    shape = [1] * ndim
    shape[axis] = -1
    return np.asarray(fmt.frac).reshape(shape)


def _window(flat: np.ndarray, least: float, most: float, step: float, bins: int) -> tuple[float, float, int]:
    """Ends of the bins, and how many there are.

    Drawn are the values without the outermost 0.05 % on either side, and the range of the format; but not so
    much beyond the range that it could not be made out. Bins begin and end where rounding changes from one
    code to the next, and are a power of two of codes wide. Values before a cast are on a grid themselves:
    bins finer than that grid would show a comb that is not there.
    """
    first, last = least - step / 2, most + step / 2
    low, high = (float(v) for v in np.quantile(flat, [0.0005, 0.9995]))
    reach = 3 * (last - first)
    low, high = min(first, max(low, first - reach)), max(last, min(high, last + reach))
    width = step * 2.0 ** math.ceil(math.log2((high - low) / step / bins))
    while width < step and not np.fmod(flat, 2 * width).any():
        width *= 2
    before, after = math.ceil((first - low) / width), math.ceil((high - last) / width)
    inside = max(1, round((last - first) / width))
    return first - before * width, first + (inside + after) * width, before + inside + after


def _code_counts(codes: np.ndarray, fmt: Any) -> list[int]:
    size = fmt.code_max - fmt.code_min + 1
    return [int(c) for c in np.bincount((codes - fmt.code_min).reshape(-1), minlength=size)]


def _problem(x: np.ndarray) -> str:
    return "none" if x.size == 0 else f"{int((~np.isfinite(x)).sum())} that are NaN or infinite"
