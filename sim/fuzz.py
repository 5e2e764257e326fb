"""Random networks, every implementation against the integer graph; failing cases are shrunk and saved.

`run` draws networks, half of them as torch modules (prepared, calibrated, trained for two steps, frozen),
half directly as integer graphs, which reach formats and geometries that no torch module has. Each is verified
by :func:`qfx.sim.case.check`. Network `i` of a seed is the same whatever the number of networks."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qfx.errors import QfxError
from qfx.graph import Graph, ops
from qfx.sim import case as cases
from qfx.sim import verilator
from qfx.sim.case import Case, Outcome
from qfx.sim.draw import draw_graph, draw_input
from qfx.sim.shrink import describe, shrink
from qfx.sim.workers import Died, Workers
from qfx.verification import IMPLEMENTATIONS

SAMPLES = 16
ARCHITECTURES = ("stream", "parallel", "mixed")
#: Products with nonzero weights, and look-up tables by the estimate, up to which a network is unrolled.
PARALLEL_PRODUCTS = 4_000
PARALLEL_LUT = 8_000
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class _Task:
    """For a worker: check the network of a seed, or the case in a file; only draw and save it when `against`
    is empty."""

    against: tuple[str, ...]
    seed: int = 0
    index: int = 0
    load: str = ""
    save: str = ""
    every_format: bool = False
    every_layer: bool = False
    architectures: tuple[str, ...] = ARCHITECTURES
    hardware: bool = False


@dataclass(frozen=True)
class _Answer:
    outcome: Outcome
    operators: tuple[str, ...] = ()
    seconds: float = 0.0
    refused: str = ""


def run(
    networks: int,
    seed: int = 1,
    against: Sequence[str] = IMPLEMENTATIONS,
    *,
    every_format: bool = True,
    every_layer: bool | None = None,
    architectures: Sequence[str] = ("stream", "parallel"),
    first: int = 0,
    jobs: int | None = None,
    out_dir: Path | str = "build/fuzz",
    shrink_attempts: int = 40,
    progress: bool = True,
) -> dict[str, Any]:
    """Verify random networks.

    Args:
        networks: how many. seed: equal seeds draw equal networks. first: number of the first network.
        against: implementations, as for :func:`qfx.verify`.
        every_format: draw every number format, not only fixed point.
        every_layer: draw every operator, also those that the parallel architecture has no hardware for;
            default is to do so in two networks of four where that architecture is built, else in all.
        architectures: of the Verilog: ``"stream"``, ``"parallel"``, ``"mixed"`` (a stream design with some
            layers unrolled). A network that is too large to unroll here, or drawn from all operators, has
            no parallel design, and one without layers that can be unrolled no mixed one.
        jobs: processes; default is the number of processors.
        out_dir: where failing cases are saved, ``<seed>-<number>.case``.
        shrink_attempts: how many simplifications of a failing case are tried.
        progress: show a bar.

    Returns:
        ``networks``; ``refused``, how many networks an implementation refused by its documented limits;
        ``mismatches``, how many an implementation failed; ``failures``, a list of dictionaries (`network`,
        `found` by implementation, `file`, `case`); ``refusals``, reasons by how often they came; ``equal``,
        how many networks each implementation computed without a difference (``rtl stream`` and
        ``rtl parallel`` each for itself); ``operators``, how often each was drawn; ``seconds``.
    """
    chosen = tuple(dict.fromkeys(against))
    unknown = [name for name in chosen if name not in IMPLEMENTATIONS]
    if unknown or not chosen or networks < 1:
        raise QfxError(
            f"fuzz: {networks} networks against {', '.join(against) or 'nothing'}; "
            f"supported: at least 1 network, against {', '.join(IMPLEMENTATIONS)}"
        )
    built = _checked(architectures)
    if "rtl" in chosen:
        verilator.check_tools()
    else:
        built = ()
    start = time.monotonic()
    report = _Report()
    tasks = [
        _Task(
            chosen,
            seed,
            first + number,
            every_format=every_format,
            every_layer=_draws_every_layer(every_layer, built, first + number),
            architectures=built,
            hardware=bool({"hls", "rtl"} & set(chosen)),
        )
        for number in range(networks)
    ]
    with Workers(_work, jobs or os.cpu_count() or 1, _TIMEOUT_S) as workers, _Bar(networks, progress) as bar:
        failing: list[tuple[int, dict[str, str]]] = []
        for number, answer in workers.map(tasks):
            failed = report.add(answer)
            if failed:
                failing.append((tasks[number].index, failed))
            bar.advance(len(failing))
        for index, failed in sorted(failing, key=lambda item: item[0]):
            bar.say(f"shrinking network {index}")
            report.failures.append(
                _save_failure(workers, tasks[index - first], failed, Path(out_dir), shrink_attempts)
            )
    return {
        "networks": networks,
        "refused": report.refused,
        "mismatches": len(report.failures),
        "failures": report.failures,
        "refusals": dict(sorted(report.refusals.items(), key=lambda item: -item[1])),
        "equal": dict(sorted(report.equal.items())),
        "operators": dict(sorted(report.operators.items())),
        "seconds": round(time.monotonic() - start, 1),
    }


def replay(
    path: Path | str, against: Sequence[str] = IMPLEMENTATIONS, architectures: Sequence[str] = ARCHITECTURES
) -> dict[str, Any]:
    """Check a saved case again, those of its designs that are of these architectures; the result has the form
    of :func:`run`'s."""
    case = cases.load(path)
    built = _checked(architectures)
    if "rtl" in against:
        verilator.check_tools()
    report = _Report()
    with Workers(_work, 1, _TIMEOUT_S) as workers:
        task = _Task(tuple(dict.fromkeys(against)), load=str(Path(path).resolve()), architectures=built)
        answer = workers.call(task)
        failed = report.add(answer)
    failures = (
        [{"network": str(path), "found": failed, "file": str(path), "case": describe(case)}] if failed else []
    )
    return {
        "networks": 1,
        "refused": report.refused,
        "mismatches": len(failures),
        "failures": failures,
        "refusals": report.refusals,
        "equal": report.equal,
        "operators": report.operators,
        "seconds": round(getattr(answer, "seconds", 0.0), 1),
    }


def _checked(architectures: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in architectures if name not in ARCHITECTURES]
    if unknown or not architectures:
        raise QfxError(
            f"fuzz: architectures {', '.join(architectures) or 'none'}; supported: {', '.join(ARCHITECTURES)}"
        )
    return tuple(dict.fromkeys(architectures))


def draw(
    seed: int,
    index: int,
    *,
    every_format: bool = False,
    every_layer: bool = False,
    architectures: Sequence[str] = ("stream", "parallel"),
    hardware: bool = False,
) -> Case:
    """Network `index` of a seed with its inputs and options; with `every_format` not only fixed point, with
    `every_layer` every operator, and a design for each of `architectures` that it is small enough for; for
    `hardware` no block takes in a whole sample of many places, which hardware refuses.

    Raises QfxError when what was drawn cannot be prepared or frozen."""
    rng = np.random.default_rng([seed, index])
    make = _draw_torch_case if index % 2 == 0 else _draw_graph_case
    case = make(rng, every_format, every_layer, hardware)
    stalls = {
        "input": float(rng.choice([0.0, 0.2, 0.6])),
        "output": float(rng.choice([0.1, 0.3, 0.7])),
        "burst": int(rng.choice([1, 2, 8, 32])),
        "ready_after_valid": bool(rng.random() < 0.3),
        "seed": int(rng.integers(1, 1 << 30)),
    }
    simulations: list[dict[str, Any]] = [{}, {"stalls": stalls, "seed": int(rng.integers(1, 1 << 30))}]
    if rng.random() < 0.5:
        # Anywhere from the first beat to somewhere behind the first frames.
        simulations[1]["reset_after"] = int(rng.integers(1, 200))
    hls: dict[str, Any] = {"io": str(rng.choice(["parallel", "stream"]))}
    if rng.random() < 0.25:
        hls["backend"] = "Vivado"
    if rng.random() < 0.25:
        hls |= {"strategy": "Resource", "reuse_factor": int(rng.choice([1, 2, 4]))}
    designs: list[dict[str, Any]] = []
    if "stream" in architectures:
        folding = _draw_folding(rng, case)
        designs.append(_with_arithmetic(np.random.default_rng([seed, index, 3]), case.graph, folding))
    if "parallel" in architectures and not every_layer:
        # Numbers of its own, so that a network has the same options with and without its other design.
        levels = int(np.random.default_rng([seed, index, 1]).choice([1, 2, 3, 4, 6]))
        if _can_be_unrolled(case.graph):
            designs.append({"architecture": "parallel", "levels": levels})
    if "mixed" in architectures:
        layers = _draw_unrolled(np.random.default_rng([seed, index, 2]), case.graph)
        if layers:
            designs.append({"architecture": dict.fromkeys(layers, "parallel")})
    return case.replace(simulations=tuple(simulations), hls=hls, rtl=tuple(designs))


def _draws_every_layer(wish: bool | None, architectures: Sequence[str], index: int) -> bool:
    """Whether a network is drawn from all operators; torch modules and graphs alternate."""
    if wish is not None or "parallel" not in architectures:
        return wish is None or wish
    return "stream" in architectures and index % 4 >= 2


def _draw_unrolled(rng: np.random.Generator, graph: Graph) -> list[str]:
    """Some of the layers that can be unrolled within a stream design, by path."""
    import qfx.rtl

    paths = [node.path for node in graph.nodes if isinstance(node.op, ops.Weighted)]
    found = []
    for node in graph.nodes:
        small = isinstance(node.op, ops.Linear | ops.Conv) and (
            np.count_nonzero(node.op.weight) <= PARALLEL_PRODUCTS // 4
        )
        if not small or paths.count(node.path) != 1 or rng.random() < 0.3:
            continue
        try:
            qfx.rtl.plan(graph, architecture={node.path: "parallel"})
        except QfxError:
            continue  # several groups, or the network has no stream design at all
        found.append(node.path)
    return found


def _can_be_unrolled(graph: Graph) -> bool:
    """Whether the parallel design is small enough to be compiled and simulated here in seconds. What the
    architecture itself refuses counts as small: it is the check that shall meet it."""
    import qfx.rtl

    products = 0
    for node in graph.nodes:
        if isinstance(node.op, ops.Weighted):
            places = node.tensor.size // node.tensor.channels
            products += int(np.count_nonzero(node.op.weight)) * places
    if products > PARALLEL_PRODUCTS:
        return False
    try:
        return qfx.rtl.plan(graph, architecture="parallel").estimate["lut"] <= PARALLEL_LUT
    except QfxError:
        return True


def _draw_torch_case(rng: np.random.Generator, every_format: bool, every_layer: bool, hardware: bool) -> Case:
    from qfx.sim import draw_torch

    description = draw_torch.draw_module(
        rng, every_format=every_format, every_layer=every_layer, hardware=hardware
    )
    model = draw_torch.train(description)
    graph = draw_torch.freeze(model)
    x = draw_input(rng, graph, SAMPLES)
    if rng.random() < 0.5:
        x = x.astype(np.float32)
    state = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    return Case(graph, x, module=description, state=state)


def _draw_graph_case(rng: np.random.Generator, every_format: bool, every_layer: bool, hardware: bool) -> Case:
    graph = draw_graph(rng, every_format=every_format, every_layer=every_layer, hardware=hardware)
    return Case(graph, draw_input(rng, graph, SAMPLES))


def _draw_folding(rng: np.random.Generator, case: Case) -> dict[str, Any]:
    """Nothing, an interval, or folds of some layers, whichever the generator accepts."""
    import qfx.rtl

    kind = str(rng.choice(["default", "interval", "fold"], p=[0.3, 0.3, 0.4]))
    try:
        plain = qfx.rtl.plan(case.graph)
    except QfxError:
        return {}  # the check itself shall meet it
    if kind == "interval":
        return {"interval": int(plain.interval * rng.choice([1, 1.5, 3, 10]) + rng.integers(0, 5))}
    for _ in range(4 if kind == "fold" else 0):
        layers = [plain.layers[i] for i in rng.permutation(len(plain.layers))[: int(rng.integers(1, 4))]]
        fold = {}
        for layer in layers:
            tensor = case.graph[layer.node].tensor
            fold[layer.node] = {"pe": int(rng.choice(_divisors(tensor.channels)))}
            if layer.simd is not None:
                operand = case.graph.operands(case.graph[layer.node])[0]
                inner = operand.shape[-1] if layer.kind in ("matmul", "reduce_sum", "reduce_max") else 0
                fold[layer.node]["simd"] = int(rng.choice(_divisors(inner or operand.channels)))
        try:
            qfx.rtl.plan(case.graph, fold=fold)
        except QfxError:
            continue
        return {"fold": fold}
    return {}


def _with_arithmetic(rng: np.random.Generator, graph: Graph, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a stream design and, where the generator accepts it, how it multiplies and where the
    weights of some layers are."""
    import qfx.rtl

    layers = [node.name for node in graph.nodes if isinstance(node.op, ops.Linear | ops.Conv)]
    more: list[dict[str, Any]] = [{"multipliers": str(rng.choice(["lut", "shift"]))}] * bool(
        rng.random() < 0.5
    )
    more += [
        {"weights": {name: str(rng.choice(["lut", "block", "stream"]))}}
        for name in layers
        if rng.random() < 0.4
    ]
    for wish in more:
        weights = {**options.get("weights", {}), **wish.get("weights", {})}
        wider = {**options, **wish, **({"weights": weights} if weights else {})}
        try:
            qfx.rtl.plan(graph, **wider)
        except QfxError:
            continue
        options = wider
    return options


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


# -- in the workers
# ----------------------------------------------------------------------------------------------------


def _work(task: _Task) -> _Answer:
    start = time.monotonic()
    try:
        case = (
            cases.load(task.load)
            if task.load
            else draw(
                task.seed,
                task.index,
                every_format=task.every_format,
                every_layer=task.every_layer,
                architectures=task.architectures,
                hardware=task.hardware,
            )
        )
        case = case.designs(*task.architectures)
    except QfxError as error:
        return _Answer(Outcome(), refused=f"{type(error).__name__}: {error}")
    if task.save:
        case.save(task.save)
    outcome = cases.check(case, task.against) if task.against else Outcome()
    operators = tuple(node.op.kind for node in case.graph.nodes)
    return _Answer(outcome, operators, time.monotonic() - start)


# -- in the main process
# -----------------------------------------------------------------------------------------------


@dataclass
class _Report:
    refused: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)
    equal: dict[str, int] = field(default_factory=dict)
    operators: dict[str, int] = field(default_factory=dict)

    def add(self, answer: _Answer | Died) -> dict[str, str]:
        """Count an answer; what failed, by implementation."""
        if isinstance(answer, Died):
            return {"process": answer.reason}
        for kind in answer.operators:
            self.operators[kind] = self.operators.get(kind, 0) + 1
        for name in dict.fromkeys(answer.outcome.equal):
            self.equal[name] = self.equal.get(name, 0) + 1
        reasons = [f"{name}: {text}" for name, text in answer.outcome.refused.items()]
        if answer.refused:
            reasons.append(f"torch: {answer.refused}")
        self.refused += bool(reasons)
        for reason in reasons:
            self.refusals[reason] = self.refusals.get(reason, 0) + 1
        return answer.outcome.failed


def _save_failure(
    workers: Workers,
    task: _Task,
    failed: dict[str, str],
    out_dir: Path,
    attempts: int,
) -> dict[str, Any]:
    """Save the case of a failing network, as small as it becomes."""
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / f"{task.seed}-{task.index}.case"
    failure: dict[str, Any] = {"network": task.index, "found": failed}
    with tempfile.TemporaryDirectory(prefix="qfx-shrink-") as folder:
        trial = Path(folder) / "trial.case"
        answer = workers.call(dataclasses.replace(task, against=(), save=str(trial)))
        if isinstance(answer, Died) or not trial.is_file():
            return failure  # drawing itself fails: the seed and the number are the case
        # Only what failed is run again: "rtl parallel" is "rtl" with one design.
        names = task.against
        if "process" not in failed:
            names = tuple(dict.fromkeys("torch" if n == "reference" else n.partition(" ")[0] for n in failed))

        def fails(candidate: Case) -> str:
            candidate.save(trial)
            result = workers.call(_Task(names, load=str(trial)))
            if isinstance(result, Died):
                return result.reason
            return "; ".join(f"{name}: {text}" for name, text in result.outcome.failed.items())

        case = cases.load(trial)
        architectures = [n.partition(" ")[2] for n in failed if n.startswith("rtl ")]
        if architectures:
            case = case.designs(*architectures)
        # A torch model can only be shrunk as the integer graph that it became, so not when torch itself is
        # wrong.
        smaller = case if "torch" in failed else shrink(case, fails, attempts)
        smaller.replace(found=failed).save(path)
    return {**failure, "file": str(path), "case": describe(smaller)}


class _Bar:
    """A progress bar, or nothing."""

    def __init__(self, total: int, show: bool) -> None:
        self._total, self._show = total, show

    def __enter__(self) -> _Bar:
        if self._show:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            # On standard error: standard output is for the result, which may be JSON.
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task("networks", total=self._total)
        return self

    def __exit__(self, *details: object) -> None:
        if self._show:
            self._progress.stop()

    def advance(self, failing: int) -> None:
        """One network is done."""
        if self._show:
            text = f"networks, {failing} failing" if failing else "networks"
            self._progress.update(self._task, advance=1, description=text)

    def say(self, text: str) -> None:
        """What goes on now."""
        if self._show:
            self._progress.update(self._task, description=text)
