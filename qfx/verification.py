"""Compare the implementations of a graph with its interpreter, bit for bit, and say where a difference
begins."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.errors import QfxError

if TYPE_CHECKING:
    from qfx.graph import Graph

IMPLEMENTATIONS = ("torch", "hls", "rtl")
# float64 carries the results of torch; beyond its mantissa it could hide a wrong low bit.
_EXACT_BITS = 53


@dataclass(frozen=True)
class Difference:
    """The first place where an implementation leaves the graph.

    Attributes:
        sample: number of the sample. index: place in the tensor without the batch axis; ``index[0]`` is the
        channel. expected: code of the interpreter. found: code of the implementation; not a whole number when
        it gave a value off the grid, NaN or infinite likewise. node, op, path: the graph node, its operator,
        and the module path in the torch model.
    """

    sample: int
    index: tuple[int, ...]
    expected: int
    found: int | float
    node: str
    op: str
    path: str

    @property
    def channel(self) -> int:
        """The channel."""
        return self.index[0]

    def __str__(self) -> str:
        where = f"{self.path} ({self.node}, {self.op})" if self.path else f"{self.node} ({self.op})"
        return (
            f"{where}: sample {self.sample}, channel {self.channel}, index {self.index}: "
            f"code {self.found}, expected {self.expected}"
        )


@dataclass(frozen=True)
class Comparison:
    """One implementation against the interpreter.

    Attributes:
        samples: how many were compared. mismatches: samples with at least one differing bit in the output,
        or, where layers were compared, in any of them. first_difference: of the output, in the first sample
        that differs. first_layer: the earliest node of the graph whose tensor differs; ``None`` when nothing
        does or layers could not be
            seen.
        layers: how many nodes were compared.
        seconds: of running the samples and of building what runs them.
        details: what else the run measured (RTL: cycles, latency, interval).
    """

    samples: int
    mismatches: int
    first_difference: Difference | None = None
    first_layer: Difference | None = None
    layers: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every compared bit was right."""
        return self.mismatches == 0


class Report(dict[str, Comparison]):
    """Comparisons by implementation; prints as a table."""

    @property
    def ok(self) -> bool:
        """Whether all implementations agree with the interpreter."""
        return all(comparison.ok for comparison in self.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {name: dataclasses.asdict(comparison) for name, comparison in self.items()}

    def __str__(self) -> str:
        lines = []
        for name, comparison in self.items():
            state = "equal" if comparison.ok else f"{comparison.mismatches} differ"
            layers = f", {comparison.layers} layers compared" if comparison.layers else ""
            lines.append(f"{name:6} {comparison.samples} samples: {state}{layers}")
            if comparison.first_difference:
                lines.append(f"       output: {comparison.first_difference}")
            if comparison.first_layer:
                lines.append(f"       begins at {comparison.first_layer}")
        return "\n".join(lines)


def verify(
    graph: Graph,
    x: Any,
    against: Sequence[str] = IMPLEMENTATIONS,
    *,
    tap: bool = False,
    limits: Mapping[str, int] | None = None,
    simulations: Sequence[Mapping[str, Any]] = ({}, {"stalls": 0.3}),
    torch_model: Any = None,
    hls: Mapping[str, Any] | None = None,
    rtl: Mapping[str, Any] | None = None,
    directory: Path | str | None = None,
) -> Report:
    """Run implementations of `graph` on the same samples and compare every bit with the interpreter.

    Args:
        graph: from :func:`qfx.freeze` or :func:`qfx.load`. x: real numbers, ``(samples, *input shape)``.
        against: any of ``"torch"`` (the prepared model in ``eval()``), ``"hls"`` (C simulation), ``"rtl"``
        (Verilator). tap: compare the intermediate tensors too. Without it they are looked at only after a
        difference, to find where it begins. limits: most samples by implementation, for those that are slow:
        ``{"rtl": 64}``. simulations: one RTL simulation of all samples for each of these, with these options
        of :func:`qfx.sim.run`. The first one without
            options gives `latency` and `interval` in the details.
        torch_model: the model that `graph` was frozen from, when the graph does not know it (after
        :func:`qfx.load`). hls: options of :func:`qfx.hls.convert`, and ``optimize`` of ``Project.compile``.
        rtl: options of :func:`qfx.rtl.generate`. directory: keep generated projects here (`hls/`, `rtl/`,
        `sim/`); by default they are removed.

    Raises:
        QfxError: an unknown implementation, no torch model, a graph that a backend does not support, a
        missing tool.
    """
    unknown = [name for name in against if name not in IMPLEMENTATIONS]
    if unknown or not against:
        raise QfxError(f"verify: against={tuple(against)!r}; supported: {', '.join(IMPLEMENTATIONS)}")
    values = _batch(graph, x)
    widest = graph.output_node.tensor.format.width
    if widest > _EXACT_BITS and "torch" in against:
        raise QfxError(
            f"verify: the output has {widest} bits, and float64 results of torch hold {_EXACT_BITS}; "
            "end the network with a cast, or leave 'torch' out of against="
        )
    runners = {
        "torch": lambda folder: _Torch(graph, torch_model),
        "hls": lambda folder: _Hls(graph, folder, hls or {}),
        "rtl": lambda folder: _Rtl(graph, folder, rtl or {}, simulations),
    }
    report = Report()
    with tempfile.TemporaryDirectory(prefix="qfx-verify-") as scratch:
        folder = Path(directory) if directory is not None else Path(scratch)
        for name in dict.fromkeys(against):
            count = min(len(values), (limits or {}).get(name, len(values)))
            start = time.perf_counter()
            runner: _Runner = runners[name](folder)
            built = time.perf_counter() - start
            report[name] = _compare(graph, values[:count], runner, tap, built)
    return report


def _batch(graph: Graph, x: Any) -> np.ndarray:
    values = x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)
    shape = graph.input_node.tensor.shape
    if values.ndim != len(shape) + 1 or values.shape[1:] != shape or len(values) == 0:
        raise QfxError(
            f"verify: input of shape {values.shape}, expected (samples, {', '.join(map(str, shape))})"
        )
    return values


class _Runner:
    """One implementation: `outputs` gives output codes, `layers` codes by node name as far as they can be
    seen."""

    details: dict[str, Any]

    def outputs(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def layers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        raise NotImplementedError


def _compare(graph: Graph, x: np.ndarray, runner: _Runner, tap: bool, built: float) -> Comparison:
    expected = graph.run_codes(x)
    start = time.perf_counter()
    layers = runner.layers(x) if tap else {}
    found = runner.outputs(x)
    seconds = {"build": round(built, 3), "run": round(time.perf_counter() - start, 3)}
    if found.shape != expected.shape:
        raise QfxError(f"verify: outputs of shape {found.shape}, expected {expected.shape}")
    wrong = _wrong_samples(expected, found)
    if wrong.any() and not tap:
        layers = runner.layers(x)
    first_layer, trace = None, graph.trace(x) if layers else {}
    for node in graph.nodes:
        if node.name in layers:
            bad = _wrong_samples(trace[node.name], layers[node.name])
            wrong |= bad
            if bad.any() and first_layer is None:
                first_layer = _difference(node, trace[node.name], layers[node.name])
    return Comparison(
        samples=len(x),
        mismatches=int(wrong.sum()),
        first_difference=_difference(graph.output_node, expected, found),
        first_layer=first_layer,
        layers=len(layers),
        seconds=seconds,
        details=runner.details,
    )


def _wrong_samples(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    # A NaN differs from everything, as it should.
    return np.asarray((expected != found).reshape(len(expected), -1).any(axis=1))


def _difference(node: Any, expected: np.ndarray, found: np.ndarray) -> Difference | None:
    places = np.argwhere(expected != found)
    if len(places) == 0:
        return None
    place = tuple(int(i) for i in places[0])
    value = found[place]
    code = int(value) if np.isfinite(value) and value == int(value) else float(value)
    return Difference(place[0], place[1:], int(expected[place]), code, node.name, node.op.kind, node.path)


def _codes(tensor: Any, values: np.ndarray) -> np.ndarray:
    """Values as codes of the tensor's format, without rounding: a value off the grid stays visible as a
    fraction."""
    values = np.asarray(values, dtype=np.float64)
    fracs = np.asarray(tensor.fracs).reshape(-1, *(1,) * (len(tensor.shape) - 1))
    codes = np.ldexp(values, fracs)
    whole = np.isfinite(codes) & (codes == np.rint(codes)) & (np.abs(codes) < 2.0**62)
    return codes.astype(np.int64) if whole.all() else codes


class _Torch(_Runner):
    def __init__(self, graph: Graph, model: Any) -> None:
        self.details = {}
        self.graph = graph
        self.model = model if model is not None else graph.torch_model
        if self.model is None:
            raise QfxError(
                "verify: this graph does not know its torch model (it was loaded from a file); "
                "give torch_model=, or leave 'torch' out of against="
            )
        self.taps: dict[str, str] = getattr(graph, "torch_taps", None) or {}

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return _codes(self.graph.output_node.tensor, self._forward(x))

    def layers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                values[name] = output.detach().cpu().numpy()

            return hook

        modules = dict(self.model.named_modules())
        handles = [
            modules[target].register_forward_hook(keep(name))
            for name, target in self.taps.items()
            if target in modules and self.graph[name].tensor.format.width <= _EXACT_BITS
        ]
        try:
            self._forward(x)
        finally:
            for handle in handles:
                handle.remove()
        return {name: _codes(self.graph[name].tensor, value) for name, value in values.items()}

    def _forward(self, x: np.ndarray) -> np.ndarray:
        import torch

        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                result = self.model(torch.from_numpy(np.ascontiguousarray(x)))
        finally:
            self.model.train(training)
        return np.asarray(result.detach().cpu().numpy(), dtype=np.float64)


class _Hls(_Runner):
    def __init__(self, graph: Graph, folder: Path, options: Mapping[str, Any]) -> None:
        import qfx.hls

        self.details = {}
        options = dict(options)
        optimize = {"optimize": options.pop("optimize")} if "optimize" in options else {}
        self.project = qfx.hls.convert(graph, folder / "hls", **options).compile(**optimize)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return self.project.predict_codes(x)

    def layers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return self.project.trace(x)


class _Rtl(_Runner):
    def __init__(
        self, graph: Graph, folder: Path, options: Mapping[str, Any], simulations: Sequence[Mapping[str, Any]]
    ) -> None:
        import qfx.rtl

        if not simulations:
            raise QfxError(
                "verify: simulations=() leaves nothing to compare rtl with; give at least one, ({},)"
            )
        self.graph = graph
        self.folder = folder
        self.simulations = simulations
        self.design = qfx.rtl.generate(graph, folder / "rtl", **options)
        self.details = {"latency_predicted": self.design.latency, "interval_predicted": self.design.interval}

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return self._run(x, tap=False)[0]

    def layers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return self._run(x, tap=True)[1]

    def _run(self, x: np.ndarray, tap: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Output codes and codes of tapped nodes; of several simulations and streams, those of the first that
        is wrong."""
        import qfx.sim

        expected = self.graph.run_codes(x)
        trace = self.graph.trace(x) if tap else {}
        codes = expected
        layers: dict[str, np.ndarray] = {}
        for number, options in enumerate(self.simulations):
            result = qfx.sim.run(self.design, x, tap=tap, directory=self.folder / f"sim{number}", **options)
            if (codes == expected).all():
                codes = result.codes
            # A stream can carry the tensor of one node through several registers and FIFOs.
            for stream in result.streams:
                # What the generator took channels out of is checked by what comes of it.
                made, wanted = (g[stream.node].tensor for g in (self.design.graph, self.graph))
                if (made.shape, made.fracs) != (wanted.shape, wanted.fracs):
                    continue
                known = layers.get(stream.node)
                if known is None or (known == trace[stream.node]).all():
                    layers[stream.node] = stream.codes
            if not options:
                self.details |= {
                    "cycles": result.cycles,
                    "latency": result.latency,
                    "interval": result.interval,
                    "frames_not_as_predicted": self._not_as_predicted(result),
                }
        return codes, layers

    def _not_as_predicted(self, result: Any) -> int:
        """How many frames end in another cycle than the timing model says. The mean distance of frames alone
        tells nothing where they come in bursts."""
        from qfx.rtl.timing import frame_ends

        ends = result.output_cycles[:, 1] - result.input_cycles[0, 0]
        return int(np.count_nonzero(ends != np.array(frame_ends(self.design, len(ends)))))
