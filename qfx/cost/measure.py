"""Measure a kernel or a design, and keep the result."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qfx.cost import nextpnr, yosys
from qfx.cost.kernel import Kernel
from qfx.cost.result import Cost, InstanceCost, count, unknown
from qfx.errors import QfxError

# Raised whenever the same sources would be counted differently.
_REVISION = 1
FAMILIES = ("xc7", "xcu", "xcup")


def cache_dir() -> Path:
    """Where results are kept: ``$QFX_CACHE/cost``, by default ``~/.cache/qfx/cost``."""
    root = os.environ.get("QFX_CACHE")
    if not root:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "qfx")
    return Path(root) / "cost"


def measure(
    target: Any,
    *,
    parameters: Mapping[str, int | str] | None = None,
    data_files: Sequence[Path | str] | None = None,
    per_layer: bool = False,
    dsp: bool = True,
    family: str = "xc7",
    fmax: bool = False,
    cache: bool = True,
    timeout_s: float = 3600.0,
) -> Cost:
    """Synthesise with Yosys and count what is used.

    Args:
        target: a :class:`Kernel`, or an object with ``top`` and ``files`` such as a design of
            :func:`qfx.rtl.generate`; those of its files that are not Verilog are memory contents.
        parameters: of the top module, on top of those of the target.
        data_files: memory files, on top of those of the target.
        per_layer: also count each instance of the top module (a second synthesis, in which each of them stays
            a module of its own).
        dsp: whether multipliers may go into DSP blocks; without, everything is counted in LUTs.
        family: Yosys' name of the device family; ``xc7`` is the one whose counts were checked.
        fmax: also place and route for a Lattice ECP5-85F (the ``fmax`` extra) and report the clock frequency
            there.
        cache: keep results, and reuse them while sources, memory files, parameters, options and tool versions
            are the same.
        timeout_s: limit of each tool run in seconds.

    Raises:
        QfxError: for a target that cannot be measured; :class:`~qfx.errors.MissingToolError` when a tool is
            missing; :class:`~qfx.cost.yosys.SynthesisError` with the end of the log when it fails.
    """
    if family not in FAMILIES:
        raise QfxError(f"cost: unknown family {family!r}; supported: {', '.join(FAMILIES)}")
    kernel = _kernel(target, parameters or {}, data_files or ())
    # Instances were once synthesised with all of the hierarchy kept.
    layers = "instances" if per_layer else False
    options = {"per_layer": layers, "dsp": dsp, "family": family, "fmax": fmax}
    versions = {"yosys": yosys.version(), **({"nextpnr": nextpnr.version()} if fmax else {})}
    place = cache_dir() / f"{_key(kernel, options, versions)}.json"
    if cache and place.is_file():
        try:
            return Cost.from_dict(json.loads(place.read_text()))
        except (ValueError, TypeError, KeyError):
            place.unlink(missing_ok=True)  # damaged, or of another version of this package: measure again
    cost = _measure(kernel, timeout_s, per_layer=per_layer, dsp=dsp, family=family, fmax=fmax)
    if cache:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=place.parent, prefix=place.stem, suffix=".tmp")
        with os.fdopen(handle, "w") as file:
            json.dump(cost.to_dict(), file)
        os.replace(scratch, place)
    return cost


def _measure(
    kernel: Kernel, timeout_s: float, *, per_layer: bool, dsp: bool, family: str, fmax: bool
) -> Cost:
    with tempfile.TemporaryDirectory(prefix="qfx-cost-") as scratch:
        (flat_dir := Path(scratch) / "flat").mkdir()
        flat = yosys.synthesize(kernel, flat_dir, flatten=True, dsp=dsp, family=family, timeout_s=timeout_s)
        cells = flat.cells()
        strange = unknown(cells)
        if strange:
            raise QfxError(
                f"cost of {kernel.top}: cells of unknown cost: {', '.join(strange)}; are all "
                "modules among the files?"
            )
        cost = Cost(
            top=kernel.top,
            **count(cells),
            cells=dict(sorted(cells.items())),
            tool="yosys",
            version=yosys.version(),
            warnings=flat.warnings,
        )
        if per_layer:
            (tree_dir := Path(scratch) / "tree").mkdir()
            tree = yosys.synthesize(
                kernel, tree_dir, flatten=False, dsp=dsp, family=family, timeout_s=timeout_s
            )
            cost = replace(cost, instances=tuple(_instance(tree, *entry) for entry in tree.instances.items()))
        if fmax:
            (pnr_dir := Path(scratch) / "pnr").mkdir()
            mhz = nextpnr.fmax(kernel, pnr_dir, timeout_s)
            cost = replace(cost, fmax=mhz, fmax_device=nextpnr.DEVICE)
    return cost


def _instance(tree: yosys.Netlist, name: str, module: str) -> InstanceCost:
    # A module that optimisation emptied or removed costs nothing.
    counts = count(tree.cells(module) if module in tree.modules else {})
    kept = {key: counts[key] for key in ("lut", "lutram", "ff", "carry", "dsp", "bram")}
    return InstanceCost(name, _module_name(module), **kept)


def _module_name(module: str) -> str:
    """``$paramod$<hash>\\name`` and ``$paramod\\name\\P=..`` are Yosys' names of a module with parameters."""
    if not module.startswith("$paramod"):
        return module
    return module.split("\\")[1]


def _kernel(target: Any, parameters: Mapping[str, int | str], data_files: Sequence[Path | str]) -> Kernel:
    if isinstance(target, Kernel):
        files, data, given = target.paths, target.data_paths, dict(target.parameters)
    elif hasattr(target, "top") and hasattr(target, "files"):
        paths = [Path(path) for path in target.files]
        files = tuple(path for path in paths if path.suffix in (".v", ".sv"))
        data = tuple(path for path in paths if path.suffix not in (".v", ".sv", ".vh", ".svh"))
        given = {}
    else:
        raise QfxError(
            f"cost: cannot measure {type(target).__name__}; give a qfx.cost.Kernel or a "
            "design of qfx.rtl.generate"
        )
    data = (*data, *(Path(path) for path in data_files))
    return Kernel(target.top, files, {**given, **parameters}, tuple(dict.fromkeys(data)))


def _key(kernel: Kernel, options: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    head = {
        "revision": _REVISION,
        "top": kernel.top,
        "parameters": sorted(kernel.parameters.items()),
        **options,
        **versions,
    }
    digest.update(json.dumps(head, sort_keys=True).encode())
    for path in (*kernel.paths, *kernel.data_paths):
        content = path.read_bytes()
        # Sources are renamed before Yosys reads them, memory files are not.
        name = path.name if path in kernel.data_paths else ""
        digest.update(f"\0{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:40]
