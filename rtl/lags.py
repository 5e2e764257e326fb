"""How much waits in front of a join: what the FIFOs of an edge have to hold, before anything is folded.

In the steady state every stage works on one frame per interval, so time counts in frames: a stream *lags*
behind the input by the part of a frame that has to come in before its elements can go out at an even pace.
Where two streams meet, the one that lags less waits, and the difference times the elements of its frame is
what its FIFO holds. Cycles that pipelines and folds add do not depend on the size of the frame and are left
out; :mod:`qfx.rtl.fifos` finds the depths.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import numpy as np

from qfx.rtl.array_stages import MatMul, Reduce
from qfx.rtl.stages import Binary, Decode, Depthwise, Geometry, MatVec, Pool, Program, Reorder, Stage


def waiting(program: Program) -> Mapping[tuple[str, int], int]:
    """Elements that wait in front of each operand of each stage, by the name of the stage's output value and
    the number of the operand.
    """
    lags: dict[str, float | None] = {program.input.name: 0.0}  # None: there before the frame is
    found: dict[tuple[str, int], int] = {}
    for stage in program.stages:
        arrives = [
            None if lags[v.name] is None else lags[v.name] + own  # type: ignore[operator]
            for v, own in zip(stage.inputs, _of_operands(stage), strict=True)
        ]
        known = [lag for lag in arrives if lag is not None]
        last = max(known, default=None)
        for i, (value, lag) in enumerate(zip(stage.inputs, arrives, strict=True)):
            if last is not None and lag is not None:
                found[stage.output.name, i] = ceil(round((last - lag) * value.size, 6))
        lags[stage.output.name] = None if last is None else last + _of_result(stage)
    made = {stage.output.name: stage for stage in program.stages}
    for stage in program.stages:
        for i in stage.direct if isinstance(stage, Binary) else ():
            # The FIFO of this operand stands in front of a decoder.
            source = made[stage.inputs[i].name]
            while not isinstance(source, Decode):
                source = made[source.inputs[0].name]
            found[source.output.name, 0] = found.pop((stage.output.name, i))
    return found


def _of_operands(stage: Stage) -> tuple[float, ...]:
    """By how much of a frame the first result lags behind each operand, beyond what it does behind all."""
    if isinstance(stage, MatMul):
        # The second operand of a sample is in the buffer before the first one is taken.
        return (0.0, 1 / stage.batch)
    return (0.0,) * len(stage.inputs)


def _of_result(stage: Stage) -> float:
    """By how much of a frame the result lags behind all operands."""
    window = stage.window if isinstance(stage, MatVec | Depthwise | Pool) else None
    if window is not None:
        return 0.0 if window.is_identity else window_lag(window)
    if isinstance(stage, MatVec):
        return 1 / stage.rounds  # a pixel has to be there as a whole
    if isinstance(stage, Reorder):
        return 1.0
    if isinstance(stage, Reduce):
        return stage.axis * stage.inner / stage.inputs[0].size
    return 0.0


def window_lag(g: Geometry) -> float:
    """The part of a frame that comes in before windows can go out at an even pace.

    Window ``i`` of ``n`` goes out at ``lag + i / n`` and needs its last pixel by then.
    """
    y = np.minimum(np.arange(g.out_h) * g.stride_h - g.pad_top + (g.kernel_h - 1) * g.dilation_h, g.in_h - 1)
    x = np.minimum(np.arange(g.out_w) * g.stride_w - g.pad_left + (g.kernel_w - 1) * g.dilation_w, g.in_w - 1)
    needs = np.maximum(y[:, None] * g.in_w + x[None, :] + 1, 0).reshape(-1) / (g.in_h * g.in_w)
    return float((needs - np.arange(needs.size) / needs.size).max())
