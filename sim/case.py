"""One network with inputs and options, as the fuzzer verifies it: built, checked, and kept in a file.

The file is a zip archive of plain data: `case.json`, `graph.qfx` (docs/graph.md, section 4), `input.npy`, and
for a torch model the description of the module in `case.json` and its trained state as `state/<name>.npy`.
Nothing in it is executable."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import qfx
from qfx.errors import QfxError, UnsupportedError
from qfx.graph import Graph
from qfx.graph.file import load as load_graph
from qfx.graph.reference import trace_reference
from qfx.sim.simulation import Stalls
from qfx.verification import verify

VERSION = 2


@dataclass(frozen=True, eq=False)
class Case:
    """A network to verify.

    Attributes:
        graph: the network.
        x: inputs, float64 or float32 ``(samples, *input shape)``.
        hls: options of :func:`qfx.hls.convert`.
        rtl: options of :func:`qfx.rtl.generate` for each design that is made of the graph.
        simulations: options of each :func:`qfx.sim.run`; `stalls` as a dictionary.
        module: description of the torch module (:mod:`qfx.sim.draw_torch`), or None.
        state: trained state of the prepared model, by name.
        found: what was wrong when the case was saved, by implementation.
    """

    graph: Graph
    x: np.ndarray = field(repr=False)
    hls: dict[str, Any] = field(default_factory=dict)
    rtl: tuple[dict[str, Any], ...] = ({},)
    simulations: tuple[dict[str, Any], ...] = ({},)
    module: dict[str, Any] | None = None
    state: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    found: dict[str, str] = field(default_factory=dict)

    def replace(self, **changes: Any) -> Case:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def designs(self, *architectures: str) -> Case:
        """A copy with only the designs of these architectures."""
        return self.replace(
            rtl=tuple(options for options in self.rtl if architecture(options) in architectures)
        )

    def save(self, path: Path | str) -> None:
        """Write the file; it appears whole or not at all."""
        path = Path(path)
        document = {
            "format": "qfx-case",
            "version": VERSION,
            "hls": self.hls,
            "rtl": self.rtl,
            "simulations": self.simulations,
            "module": self.module,
            "found": self.found,
        }
        arrays = {"input.npy": self.x, **{f"state/{name}.npy": value for name, value in self.state.items()}}
        with tempfile.TemporaryDirectory(prefix="qfx-case-") as folder:
            self.graph.save(Path(folder) / "graph.qfx")
            graph = (Path(folder) / "graph.qfx").read_bytes()
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
        try:
            with (
                os.fdopen(handle, "wb") as stream,
                zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
            ):
                archive.writestr("case.json", json.dumps(document, indent=1))
                archive.writestr("graph.qfx", graph)
                for name, value in arrays.items():
                    buffer = io.BytesIO()
                    np.save(buffer, value, allow_pickle=False)
                    archive.writestr(name, buffer.getvalue())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def architecture(options: Mapping[str, Any]) -> str:
    """The architecture that options of :func:`qfx.rtl.generate` ask for; ``"mixed"`` when it is by layer."""
    kind = options.get("architecture", "stream")
    return kind if isinstance(kind, str) else "mixed"


def load(path: Path | str) -> Case:
    """Read a case that :meth:`Case.save` wrote.

    Raises:
        QfxError: the file is missing, damaged, or something else.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="qfx-case-") as folder:
            document = json.loads(archive.read("case.json"))
            if document["format"] != "qfx-case" or document["version"] not in (1, VERSION):
                raise QfxError(f"{path}: not a fuzz case of version 1 to {VERSION}")
            # Version 1 had one design, of the stream architecture.
            designs = document["rtl"] if document["version"] > 1 else [document["rtl"]]
            graph_file = Path(folder) / "graph.qfx"
            graph_file.write_bytes(archive.read("graph.qfx"))
            arrays = {
                name: np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
            return Case(
                graph=load_graph(graph_file),
                x=arrays.pop("input.npy"),
                hls=dict(document["hls"]),
                rtl=tuple(dict(options) for options in designs),
                simulations=tuple(dict(options) for options in document["simulations"]),
                module=document["module"],
                state={
                    name.removeprefix("state/").removesuffix(".npy"): value for name, value in arrays.items()
                },
                found=dict(document["found"]),
            )
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise QfxError(f"{path}: not a fuzz case ({error}); give a file that `qfx fuzz` saved") from error


@dataclass(frozen=True)
class Outcome:
    """What checking a case gave, by implementation: `equal`, `refused` with the reason, or `failed` with what
    was wrong."""

    equal: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def check(case: Case, against: Sequence[str]) -> Outcome:
    """Verify a case, each implementation by itself so that one fault does not hide another.

    "torch" stands for the trained torch model where the case has one; a case that began as an integer graph
    is compared with the integer reference (:mod:`qfx.graph.reference`) in its place, as "reference". "rtl"
    stands for every design of the case, each under its architecture: "rtl stream", "rtl parallel"."""
    equal: list[str] = []
    refused, failed = {}, {}
    runs: list[tuple[str, Callable[[], str]]] = []
    for name in against:
        if name == "torch" and case.module is None:
            runs.append(("reference", lambda: _check_reference(case)))
        elif name == "rtl":
            runs += [
                (f"rtl {architecture(options)}", lambda o=options: _check_one(case, "rtl", o))  # type: ignore[misc]
                for options in case.rtl
            ]
        else:
            runs.append((name, lambda n=name: _check_one(case, n)))  # type: ignore[misc]
    for label, run in runs:
        try:
            wrong = run()
        except UnsupportedError as error:
            refused[label] = str(error)
        except qfx.MissingToolError:
            raise
        except Exception as error:  # every way of going wrong is a finding, also one that nobody thought of
            failed[label] = f"{type(error).__name__}: {error}"
        else:
            if wrong:
                failed[label] = wrong
            else:
                equal.append(label)
    return Outcome(tuple(equal), refused, failed)


def _check_reference(case: Case) -> str:
    trace, reference = case.graph.trace(case.x), trace_reference(case.graph, case.x)
    for node in case.graph.nodes:
        if (trace[node.name] != reference[node.name]).any():
            return f"interpreter and integer reference differ at {node.where}"
    return ""


def _check_one(case: Case, name: str, rtl: Mapping[str, Any] | None = None) -> str:
    simulations = []
    for options in case.simulations:
        stalls = options.get("stalls")
        simulations.append({**options, **({"stalls": Stalls(**stalls)} if stalls else {})})
    report = verify(
        case.graph,
        case.x,
        (name,),
        torch_model=_torch_model(case) if name == "torch" else None,
        # Building takes the time here, not running.
        hls={"optimize": 1, **case.hls},
        rtl=rtl,
        simulations=simulations,
    )
    comparison = report[name]
    if not comparison.ok:
        return str(report)
    facts = comparison.details
    if name == "rtl" and facts.get("latency") is not None:
        if facts["latency"] != facts["latency_predicted"]:
            return f"rtl: latency is {facts['latency']} cycles, predicted {facts['latency_predicted']}"
        if facts["frames_not_as_predicted"]:
            return (
                f"rtl: {facts['frames_not_as_predicted']} of {len(case.x)} frames end in another cycle than "
                f"predicted; interval {facts['interval']} cycles, predicted {facts['interval_predicted']}"
            )
    return ""


def _torch_model(case: Case) -> Any:
    if case.graph.torch_model is not None:
        return case.graph.torch_model
    import torch

    from qfx.sim import draw_torch

    assert case.module is not None
    model = draw_torch.prepare(case.module)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in case.state.items()})
    return model.eval()
