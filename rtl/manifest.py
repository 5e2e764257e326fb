"""``design.json``: a design as plain data, so that it can be loaded again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qfx.errors import QfxError
from qfx.graph.file import load as load_graph
from qfx.rtl.design import Design, Kernel, Layer, Memory, Nested, Stream
from qfx.rtl.memories import place, stream_file

FORMAT, VERSION = "qfx-design", 1
MANIFEST, GRAPH = "design.json", "graph.qfx"


def to_data(design: Design) -> dict[str, Any]:
    """Everything but graphs and the words of memories."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "architecture": design.architecture,
        "top": design.top,
        "verilog": list(design.verilog),
        "latency": design.latency,
        "interval": design.interval,
        "target": design.target,
        "board": design.board,
        "estimate": dict(design.estimate),
        "wires": dict(design.wires),
        "input": design.input_name,
        "output": design.output_name,
        "streams": [asdict(stream) for stream in design.streams],
        "layers": [asdict(layer) for layer in design.layers],
        "kernels": [
            {
                "name": kernel.name,
                "module": kernel.module,
                "parameters": dict(kernel.parameters),
                "inputs": list(kernel.inputs),
                "outputs": list(kernel.outputs),
                "node": kernel.node,
                "required": kernel.required,
                "latency": kernel.latency,
                "files": list(kernel.files),
                "nested": _nested_data(kernel),
                "memories": {
                    parameter: {
                        "file": memory.file,
                        "bits": memory.bits,
                        "depth": memory.depth,
                        "place": place(kernel, parameter),
                    }
                    for parameter, memory in kernel.memories.items()
                },
            }
            for kernel in design.kernels
        ],
    }


def _nested_data(kernel: Kernel) -> dict[str, Any] | None:
    """The design inside a kernel, with the name of its graph's file."""
    nested = kernel.nested
    if nested is None or nested.design is None:
        return None
    return {
        "design": to_data(nested.design),
        "graph": f"{kernel.module}.qfx",
        "lut": nested.lut,
        "ff": nested.ff,
    }


def write(design: Design, directory: Path) -> None:
    """Write ``design.json``, ``graph.qfx``, and the graphs of layers that are designs of their own; the
    manifest holds a digest of every other file.
    """
    design.graph.save(directory / GRAPH)
    data = to_data(design)
    names = [*design.verilog, *(memory.file for memory in design.memories), GRAPH]
    for kernel, entry in zip(design.kernels, data["kernels"], strict=True):
        if kernel.nested is not None and kernel.nested.design is not None:
            kernel.nested.design.graph.save(directory / entry["nested"]["graph"])
            names.append(entry["nested"]["graph"])
    names += [stream_file(memory) for _, memory in design.weight_streams]
    data["files"] = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}
    (directory / MANIFEST).write_text(json.dumps(data, indent=1) + "\n", encoding="ascii")


def load(directory: str | Path) -> Design:
    """The design that :func:`qfx.rtl.generate` wrote into ``directory``.

    Raises:
        QfxError: there is no design, it is of a newer version, or one of its files was changed.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise QfxError(f"{path}: not a design written by qfx.rtl.generate ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise QfxError(f"{path}: not a design written by qfx.rtl.generate")
    if data.get("version") != VERSION:
        raise QfxError(
            f"{path}: version {data.get('version')!r}; this QFX reads version {VERSION}: "
            "generate the design again"
        )
    try:
        _check_files(directory, data["files"])
        return _from_data(data, directory, GRAPH)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise QfxError(
            f"{path}: damaged ({type(error).__name__}: {error}); generate the design again"
        ) from error


def _check_files(directory: Path, digests: dict[str, str]) -> None:
    for name, digest in digests.items():
        path = directory / name
        if path.parent != directory or not path.is_file():
            raise QfxError(f"{path}: missing; generate the design again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise QfxError(
                f"{path}: differs from what was generated (its SHA-256 is not the one in {MANIFEST}); "
                "generate the design again"
            )


def _from_data(data: dict[str, Any], directory: Path, graph: str) -> Design:
    kernels = tuple(
        Kernel(
            entry["name"],
            entry["module"],
            entry["parameters"],
            tuple(entry["inputs"]),
            tuple(entry["outputs"]),
            entry["node"],
            {
                parameter: Memory(memory["file"], memory["bits"], memory["depth"])
                for parameter, memory in entry["memories"].items()
            },
            entry["required"],
            # Designs that were written before there were such modules have none.
            entry.get("latency", 0),
            tuple(entry.get("files", ())),
            _nested(entry.get("nested"), entry.get("files", ()), directory),
        )
        for entry in data["kernels"]
    )
    return Design(
        graph=load_graph(directory / graph),
        top=data["top"],
        kernels=kernels,
        streams=tuple(Stream(**entry) for entry in data["streams"]),
        layers=tuple(Layer(**entry) for entry in data["layers"]),
        input_name=data["input"],
        output_name=data["output"],
        target=data["target"],
        latency=data["latency"],
        interval=data["interval"],
        board=data["board"],
        directory=directory,
        verilog=tuple(data["verilog"]),
        estimate=data["estimate"],
        wires=data["wires"],
        # Designs that were written before there were two have none.
        architecture=data.get("architecture", "stream"),
    )


def _nested(data: dict[str, Any] | None, files: list[str], directory: Path) -> Nested | None:
    """The design inside a kernel; ``None`` also where an older QFX kept nothing of it but its text."""
    if data is None:
        return None
    design = _from_data(data["design"], directory, data["graph"])
    texts = {name: (directory / name).read_text(encoding="ascii") for name in files}
    return Nested(design, texts, data["lut"], data["ff"])
