"""Commands that run or measure what was written from a graph: sim, verify, cost."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qfx.cli.console import print_json, print_table
from qfx.cli.options import (
    Against,
    AsJson,
    BoardOption,
    Data,
    GraphFile,
    Interval,
    Out,
    Seed,
    default_out,
    generate,
    load,
    names,
)
from qfx.cli.plain import plain

RESOURCES = ("lut", "ff", "carry", "dsp", "bram")

Frames = Annotated[int, typer.Option("--frames", help="How many frames to send, back to back.")]
Stalls = Annotated[float, typer.Option("--stalls", help="Chance of a stall at either end, 0 to below 1.")]
Waves = Annotated[bool, typer.Option("--waves", help="Write dump.vcd.")]
Samples = Annotated[int, typer.Option("--samples", help="How many samples.")]
Tap = Annotated[bool, typer.Option("--tap", help="Compare every layer, not only the output.")]
Fmax = Annotated[bool, typer.Option("--fmax", help="Place and route for an ECP5, too (takes longer).")]


def register(app: typer.Typer) -> None:
    for command in (sim, verify, cost):
        app.command()(command)


def sim(
    file: GraphFile,
    frames: Frames = 16,
    data: Data = None,
    seed: Seed = 1,
    stalls: Stalls = 0.0,
    waves: Waves = False,
    board: BoardOption = None,
    interval: Interval = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Simulate the Verilog of a graph: bits against the integer graph, cycles against the prediction.

    Exit status 1 when a frame differs, or (without stalls) a predicted number of cycles does.
    """
    import numpy as np

    import qfx.sim
    from qfx.cli.samples import samples
    from qfx.rtl.timing import frame_ends

    graph = load(file)
    x = samples(graph, frames, seed, data)
    out = out or default_out(file, "sim")
    design = generate(graph, out, board, interval)
    directory = out / "simulation" if waves else None
    ran = qfx.sim.run(design, x, stalls=stalls or None, waves=waves, directory=directory, seed=seed)
    differs = (ran.codes != graph.run_codes(x)).reshape(len(x), -1).any(axis=1)
    result = {
        "frames": len(x),
        "mismatches": int(np.count_nonzero(differs)),
        "cycles": ran.cycles,
        "latency_predicted": design.latency,
        "latency_simulated": ran.latency,
        "interval_predicted": design.interval,
        "interval_simulated": ran.interval,
    }
    if json:
        print_json(result)
    else:
        print_table(("", ""), list(result.items()))
        if directory is not None:
            print(f"waves: {directory / 'dump.vcd'}")
    ends = (ran.output_cycles[:, 1] - ran.input_cycles[0, 0]).tolist()
    as_predicted = stalls or ends == list(frame_ends(design, len(ends)))
    raise typer.Exit(1 if differs.any() or not as_predicted else 0)


def verify(
    file: GraphFile,
    against: Against = "hls,rtl",
    count: Samples = 64,
    data: Data = None,
    seed: Seed = 1,
    tap: Tap = False,
    json: AsJson = False,
) -> None:
    """Compare the implementations of a graph with its interpreter, bit for bit.

    Exit status 1 when one differs. torch needs the model in memory, so a graph file has hls and rtl only.
    """
    import qfx
    from qfx.cli.samples import samples

    graph = load(file)
    report = qfx.verify(graph, samples(graph, count, seed, data), against=names(against), tap=tap)
    if json:
        print_json(plain(report.to_dict()))
    else:
        print(report)
    raise typer.Exit(0 if report.ok else 1)


def cost(
    file: GraphFile,
    board: BoardOption = None,
    interval: Interval = None,
    fmax: Fmax = False,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Count what the Verilog of a graph costs: LUT, FF, CARRY, DSP, BRAM, for the whole and per layer."""
    import qfx.cost

    design = generate(load(file), out or default_out(file, "cost"), board, interval)
    found = qfx.cost.measure(design, per_layer=True, fmax=fmax)
    layers = per_layer(design, found)
    if json:
        print_json({**found.to_dict(), "layers": layers})
        return
    rows = [(layer["layer"], layer["module"], *(layer[kind] for kind in RESOURCES)) for layer in layers]
    rows.append(("whole design", "", *(getattr(found, kind) for kind in RESOURCES)))
    print_table(("layer", "module path", *(kind.upper() for kind in RESOURCES)), rows)
    print(f"{found.tool} {found.version}; layers one by one, the whole design after optimising across them")
    if found.fmax is not None:
        print(f"{found.fmax:.1f} MHz after place and route on {found.fmax_device}")


def per_layer(design: Any, found: Any) -> list[dict[str, Any]]:
    """The instances of the top module, added up by the graph node that they belong to; FIFOs apart."""
    node_of = {kernel.name: kernel.node for kernel in design.kernels}
    path_of = {layer.node: layer.path for layer in design.layers}
    layers: dict[str, dict[str, Any]] = {}
    for instance in found.instances:
        node = node_of.get(instance.name) or "streams"
        nothing = {"layer": node, "module": path_of.get(node, ""), **dict.fromkeys(RESOURCES, 0)}
        layer = layers.setdefault(node, nothing)
        for kind in RESOURCES:
            layer[kind] += getattr(instance, kind)
    return list(layers.values())
