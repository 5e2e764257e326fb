"""From a graph to an hls4ml project on disk."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import qfx.boards
from qfx.boards import Board
from qfx.errors import QfxError
from qfx.graph.graph import Graph
from qfx.hls import bridge
from qfx.hls.layers import LayerSpec
from qfx.hls.lowering import lower
from qfx.hls.project import MARKER, Project, write_options

STRATEGIES = ("Latency", "Resource")
#: Elements up to which Vitis HLS partitions an array or unrolls a loop, as hls4ml configures it.
UNROLL_LIMIT = 4096


def convert(
    graph: Graph,
    out_dir: str | os.PathLike[str],
    board: str | os.PathLike[str] | Board = "generic",
    io: str = "parallel",
    backend: str | None = None,
    reuse_factor: int | Mapping[str, int] = 1,
    strategy: str | Mapping[str, str] = "Latency",
    clock_mhz: float | None = None,
) -> Project:
    """Write a graph as an hls4ml project whose C simulation equals ``graph.run`` on every bit.

    Args:
        graph: the network.
        out_dir: folder of the project. It appears whole or not at all; a folder that QFX wrote before is
            replaced, any other that is not empty is refused.
        board: a board's name, file, or :class:`qfx.boards.Board`: gives part and clock.
        io: ``parallel`` (arrays, everything at once) or ``stream`` (AXI4-Stream, one pixel per beat).
        backend: ``Vitis`` or ``Vivado``; default is the board's, or Vitis.
        reuse_factor: how many products share a multiplier; one number, or numbers by module path or node
            name (``*`` as in a shell). At most the products of one output in ``Resource`` convolutions.
        strategy: hls4ml's ``Latency`` or ``Resource``; one for all, or by module path or node name.
        clock_mhz: instead of the board's clock.

    Raises:
        UnsupportedError: nodes that cannot be converted, all of them, by module path.
        QfxError: a bad argument, or ``out_dir`` is in use. Nothing is written in either case.
    """
    if io not in ("parallel", "stream"):
        raise QfxError(f"hls: io is {io!r}; supported: 'parallel', 'stream'")
    board = qfx.boards.get(board)
    backend = _backend(board, backend)
    target = Path(out_dir)
    _check_target(target)
    layers = lower(graph, io)
    reuse = _per_layer("reuse_factor", reuse_factor, layers)
    strategies = _per_layer("strategy", strategy, layers)
    _check_options(reuse, strategies)
    reuse, lowered = _limited(reuse, strategies, layers)
    if clock_mhz is not None and not 0 < clock_mhz < 1e5:
        raise QfxError(f"hls: clock_mhz is {clock_mhz!r}; it must be a frequency in MHz")
    period = 1000.0 / clock_mhz if clock_mhz is not None else board.period_ns

    from qfx.hls import build  # imports hls4ml: seconds, and only who converts pays them

    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        model, remarks = build.build(
            layers, work, backend=backend, io_type=f"io_{io}", part=board.part, period_ns=period,
            reuse_factor=reuse, strategy=strategies,
        )  # fmt: skip
        build.write(model, backend)
        _finish(work, model, build.TOP, io, board, backend)
        _replace(target, work)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    remarks = [*lowered, *remarks, *_unrolled(layers, strategies)]
    clock = 1000.0 / period
    return Project(graph, target, board, clock, io, backend, build.TOP, tuple(layers), tuple(remarks))


def _backend(board: Board, backend: str | None) -> str:
    if board.hls_backend is None:
        raise QfxError(
            f"hls: there is no HLS tool for board {board.name} ({board.part}); use qfx.rtl.generate, or "
            "board='generic' for a project to simulate only"
        )
    known = ("Vitis", "Vivado")
    chosen = board.hls_backend if backend is None else backend
    if chosen not in known:
        raise QfxError(f"hls: backend {chosen!r} is not supported; supported: {', '.join(known)}")
    return chosen


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise QfxError(f"hls: {target} exists and is not a folder; give another out_dir")
    if target.is_dir() and any(target.iterdir()) and not (target / MARKER).is_file():
        raise QfxError(
            f"hls: {target} holds files that QFX did not write; give another out_dir, or empty it first"
        )


def _replace(target: Path, work: Path) -> None:
    """Put the finished folder in its place; the old one goes when the new one stands."""
    work.chmod(0o755)
    old = work.with_name(f"{work.name}.old")
    if target.exists():
        target.rename(old)
    work.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _per_layer(name: str, value: Any, layers: list[LayerSpec]) -> dict[str, Any]:
    """A value for each layer, from one value or a mapping of patterns of module paths and node names."""
    if not isinstance(value, Mapping):
        return {layer.name: value for layer in layers}
    default: Any = 1 if name == "reuse_factor" else "Latency"
    unused = set(value)
    result = {}
    for layer in layers:
        result[layer.name] = default
        for pattern, chosen in value.items():
            names = [layer.name, *(name for node in layer.nodes for name in (node.name, node.path))]
            if any(fnmatchcase(name, pattern) for name in names if name):
                result[layer.name] = chosen
                unused.discard(pattern)
    if unused:
        raise QfxError(
            f"hls: {name}: {sorted(unused)[0]!r} matches no layer; give module paths or node names"
        )
    return result


def _check_options(reuse: dict[str, Any], strategies: dict[str, Any]) -> None:
    for name, factor in reuse.items():
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise QfxError(
                f"hls: reuse_factor of {name} is {factor!r}; it must be a whole number of at least 1"
            )
    for name, strategy in strategies.items():
        if strategy not in STRATEGIES:
            raise QfxError(f"hls: strategy of {name} is {strategy!r}; supported: {', '.join(STRATEGIES)}")


def _limited(
    reuse: dict[str, int], strategies: dict[str, str], layers: list[LayerSpec]
) -> tuple[dict[str, int], list[str]]:
    """The reuse factors, lowered where hls4ml cannot have them, and remarks on these.

    Its ``Resource`` convolutions share a multiplier among the products of one output at most.
    """
    limited, remarks = dict(reuse), []
    for layer in layers:
        if layer.class_name in ("Conv1D", "Conv2D") and strategies[layer.name] == "Resource":
            most = layer.attributes["weight_data"].size // layer.attributes["n_filt"]
            if reuse[layer.name] > most:
                limited[layer.name] = most
                remarks.append(f"layer {layer.name} has {most} products per output: reuse factor {most}")
    return limited, remarks


def _unrolled(layers: list[LayerSpec], strategies: dict[str, Any]) -> list[str]:
    """Remarks on layers that are larger than the vendor's tool unrolls."""
    remarks = []
    for layer in layers:
        weight = layer.attributes.get("weight_data")
        if weight is not None and weight.size > UNROLL_LIMIT and strategies[layer.name] == "Latency":
            remarks.append(
                f"layer {layer.name} unrolls {weight.size} products; the vendor's tool unrolls at most "
                f"{UNROLL_LIMIT}: give it strategy='Resource' and a reuse_factor"
            )
    return remarks


def _finish(work: Path, model: Any, top: str, io: str, board: Board, backend: str) -> None:
    """Our own files in hls4ml's project."""
    (inp,), (out,) = model.get_input_variables(), model.get_output_variables()
    ports = []
    for variable in (inp, out):
        beat = variable.shape[-1] if io == "stream" else 0
        ports.append(bridge.Port(variable.type.name, variable.size(), beat))
    (work / f"{top}_bridge.cpp").write_text(bridge.bridge(top, *ports))
    write_options(work)
    (work / "csim").mkdir()
    (work / "csim" / "assert.h").write_text(bridge.ASSERT)
    (work / f"{top}_test.cpp").write_text(bridge.test_bench(top, *ports))
    source = work / "firmware" / f"{top}.cpp"
    text = source.read_text().replace("nnet::save_layer_output<", "qfx::trace<")
    source.write_text(
        text.replace(
            '#include "parameters.h"', '#include "parameters.h"\n#include "nnet_utils/qfx_trace.h"', 1
        )
    )
    (work / "build_lib.sh").unlink(missing_ok=True)
    config = work / "hls4ml_config.yml"
    config.write_text(config.read_text().replace(str(work), "."))
    (work / MARKER).write_text(
        json.dumps({"written_by": "qfx", "board": board.name, "io": io, "backend": backend}, indent=1) + "\n"
    )
