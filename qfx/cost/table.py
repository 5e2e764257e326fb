"""The cost table: kernels measured one by one inside designs, designs measured as a whole, multipliers.

A table ships with the package (``table.json``) and is made anew by ``qfx cost-table``.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from qfx.cost import contents, yosys
from qfx.cost.designs import FAMILIES, Drawn, mixture
from qfx.cost.kernel import Kernel as Source
from qfx.cost.measure import cache_dir
from qfx.cost.result import count
from qfx.errors import QfxError

if TYPE_CHECKING:
    from qfx.rtl.design import Kernel

FORMAT, VERSION = "qfx-cost-table", 2
RESOURCES = ("lut", "ff", "dsp", "bram18")
#: Networks of the shipped table: those that give kernels, and those that are measured as a whole.
NETWORKS, WHOLES = 24, 60
# The parser that checks generated Verilog (pyverilog) has one state for all threads.
_GENERATING = Lock()
#: Widths of multipliers that are measured, unsigned activations by signed weights.
PRODUCT_WIDTHS = range(1, 9)


@dataclass(frozen=True)
class Row:
    """A kernel as it was measured inside a design, with the hierarchy kept.

    Attributes:
        module, parameters: of the instance; names of memory files are left out.
        contents: of its memories (:func:`qfx.cost.contents.of`).
        lut, ff, dsp, bram18: what it and everything below it took.
    """

    module: str
    parameters: dict[str, int | str]
    contents: dict[str, float]
    lut: int
    ff: int
    dsp: int
    bram18: int


@dataclass(frozen=True)
class Whole:
    """A design as it was measured flattened: the family of its number formats, modules, parameters and
    contents of its kernels, and what all of it took."""

    family: str
    kernels: tuple[tuple[str, dict[str, int | str], dict[str, float]], ...]
    lut: int
    ff: int
    dsp: int
    bram18: int


@dataclass(frozen=True)
class Table:
    """All measurements.

    Attributes:
        tool, version, family: what measured them.
        rows: kernels.
        wholes: designs.
        products: multipliers: widths and signednesses of both operands, LUTs, DSP blocks.
        sources: digest of the Verilog of each module and all below it.
        made: how: seed and number of the networks, their families.
    """

    tool: str
    version: str
    family: str
    rows: tuple[Row, ...]
    wholes: tuple[Whole, ...]
    products: tuple[tuple[int, ...], ...]
    sources: dict[str, str] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"format": FORMAT, "format_version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Any) -> Table:
        """The inverse of :meth:`to_dict`.

        Raises:
            QfxError: not a cost table, or one of another version.
        """
        if not isinstance(data, dict) or (data.get("format"), data.get("format_version")) != (
            FORMAT,
            VERSION,
        ):
            raise QfxError(f"not a cost table of version {VERSION}; make one with qfx cost-table")
        try:
            return cls(
                data["tool"],
                data["version"],
                data["family"],
                tuple(Row(**row) for row in data["rows"]),
                tuple(Whole(**{**whole, "kernels": _kernels(whole)}) for whole in data["wholes"]),
                tuple(tuple(product) for product in data["products"]),
                dict(data["sources"]),
                dict(data["made"]),
            )
        except (KeyError, TypeError) as error:
            raise QfxError(f"cost table: damaged ({error!r})") from error

    def save(self, path: Path | str) -> None:
        """Write JSON, a row per line; the file appears whole or not at all."""
        from qfx.report.build import write_text

        data = self.to_dict()
        lists = {name: data.pop(name) for name in ("rows", "wholes", "products")}
        text = json.dumps(data, indent=1)[:-2]
        for name, rows in lists.items():
            text += f',\n "{name}": [\n' + ",\n".join("  " + json.dumps(row) for row in rows) + "\n ]"
        write_text(path, text + "\n}\n")

    @classmethod
    def load(cls, path: Path | str) -> Table:
        """What :meth:`save` wrote.

        Raises:
            QfxError: the file is missing or damaged.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise QfxError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise QfxError(f"{path}: not JSON ({error})") from error

    def stale(self) -> list[str]:
        """The modules whose Verilog is no longer the one that was measured."""
        return [name for name, digest in self.sources.items() if source_digest(name) != digest]


def _kernels(whole: Mapping[str, Any]) -> tuple[tuple[str, dict[str, int | str], dict[str, float]], ...]:
    return tuple(
        (str(module), dict(parameters), dict(inside)) for module, parameters, inside in whole["kernels"]
    )


@cache
def shipped() -> Table:
    """The table that comes with the package."""
    text = resources.files("qfx.cost").joinpath("table.json").read_text(encoding="utf-8")
    return Table.from_dict(json.loads(text))


def build(
    networks: int = NETWORKS,
    wholes: int = WHOLES,
    *,
    seed: int = 1,
    families: Sequence[str] = FAMILIES,
    jobs: int = 1,
    family: str = "xc7",
    note: Callable[[str], None] | None = None,
) -> Table:
    """Measure the kernels of random networks (:func:`qfx.cost.designs.mixture`) and the multipliers.

    Some networks are synthesised with the hierarchy kept, for their kernels, others flattened. Results are
    kept in the cache of :func:`qfx.cost.measure`, so that an interrupted call goes on.

    Args:
        networks: how many give kernels, those of MX formats not counted.
        wholes: how many are measured as a whole, likewise.
        seed: of the former; the latter have the next one.
        families: of number formats, :data:`qfx.cost.designs.FAMILIES`.
        jobs: syntheses at a time.
        family: Yosys' name of the device family.
        note: called with a line about each measurement.
    """

    from qfx.rtl.estimate import by_structure_alone

    def one(drawn: Drawn, *, whole: bool) -> dict[str, Any]:
        found = measured(drawn, family, whole=whole)
        if note is not None:
            what = "whole" if whole else f"{len(found['rows'])} kernels"
            note(f"{drawn.family} network {drawn.number} of seed {seed + whole}: {what}")
        return found

    with ThreadPoolExecutor(max(1, jobs)) as pool, by_structure_alone():
        products = pool.submit(measured_products, family)
        kernels = [pool.submit(one, d, whole=False) for d in mixture(seed, networks, families)]
        flat = [pool.submit(one, d, whole=True) for d in mixture(seed + 1, wholes, families)]
        results = [job.result() for job in (*kernels, *flat)]
        table_of_products = products.result()
    made = {"seed": seed, "networks": networks, "wholes": wholes, "families": list(families)}
    return assemble(results, table_of_products, family, made)


def assemble(
    results: Sequence[Mapping[str, Any]],
    products: Sequence[Sequence[int]],
    family: str,
    made: Mapping[str, Any],
) -> Table:
    """A table of measured designs (:func:`measured`) and multipliers; equal kernels stand in it once each
    time they were measured."""
    rows = tuple(row for result in results for row in result.get("rows", ()))
    wholes = tuple(result["whole"] for result in results if "whole" in result)
    modules = sorted({row.module for row in rows})
    return Table(
        "yosys", yosys.version(), family, rows, wholes, tuple(tuple(p) for p in products),
        {name: source_digest(name) for name in modules}, dict(made),
    )  # fmt: skip


def measured(drawn: Drawn, family: str, *, whole: bool) -> dict[str, Any]:
    """The kernels of a network's design one by one, ``rows``, or the design flattened, ``whole``."""
    import qfx
    from qfx.rtl.estimate import by_structure_alone

    with tempfile.TemporaryDirectory(prefix="qfx-cost-") as scratch:
        with _GENERATING, by_structure_alone():
            design = qfx.rtl.generate(drawn.graph, Path(scratch) / "rtl", **drawn.arguments)
        source = Source(
            design.top,
            [path for path in design.files if path.suffix == ".v"],
            {},
            [path for path in design.files if path.suffix != ".v"],
        )
        if whole:
            found = _kept(source, family, True, lambda netlist: _resources(count(netlist.cells())))
            kernels = tuple((k.module, plain_parameters(k), contents.of(k)) for k in design.kernels)
            return {"whole": Whole(drawn.family, kernels, **found)}
        found = _kept(source, family, False, _instances)
        return {
            "rows": [
                Row(k.module, plain_parameters(k), contents.of(k), **found[k.name])
                for k in design.kernels
                if k.name in found
            ]
        }


def _instances(netlist: yosys.Netlist) -> dict[str, dict[str, int]]:
    """What each instance of the top module took, and everything below it."""
    return {
        name: _resources(count(netlist.cells(module) if module in netlist.modules else {}))
        for name, module in netlist.instances.items()
    }


def plain_parameters(kernel: Kernel) -> dict[str, int | str]:
    """Parameters without the names of memory files."""
    return {k: v for k, v in kernel.parameters.items() if not k.endswith("_FILE")}


@cache
def defaults(module: str) -> dict[str, int | str]:
    """The defaults of a module's parameters, read from its Verilog: what a kernel that was measured before a
    parameter was added has for it."""
    from qfx.rtl import emit

    path = emit.KERNELS / f"{module}.v"
    if not path.is_file():
        return {}
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(encoding="ascii"), flags=re.DOTALL)
    found = re.findall(r"^\s*parameter\s+(\w+)\s*=\s*(-?\d+|\"[^\"]*\")\s*,?\s*$", text, flags=re.MULTILINE)
    return {name: value.strip('"') if value.startswith('"') else int(value) for name, value in found}


def measured_products(family: str = "xc7") -> list[list[int]]:
    """LUTs and DSP blocks of ``qfx_mul`` for all widths of :data:`PRODUCT_WIDTHS`: ``[a width, b width,
    a signed, b signed, LUT, DSP]``."""
    from qfx.rtl import emit

    pairs = [(a, b) for a in PRODUCT_WIDTHS for b in PRODUCT_WIDTHS]
    lines = ["module qfx_products (input wire [7:0] a, input wire [7:0] b"]
    lines += [f"  , output wire [{a + b - 1}:0] y_{a}_{b}" for a, b in pairs] + [");"]
    for a, b in pairs:
        lines.append(
            f"  qfx_mul #(.A_WIDTH({a}), .A_SIGNED(0), .B_WIDTH({b}), .B_SIGNED(1)) m_{a}_{b} "
            f"(.a(a[{a - 1}:0]), .b(b[{b - 1}:0]), .y(y_{a}_{b}));"
        )
    with tempfile.TemporaryDirectory(prefix="qfx-cost-") as scratch:
        top = Path(scratch) / "qfx_products.v"
        top.write_text("\n".join([*lines, "endmodule", ""]))
        source = Source("qfx_products", [top, *emit.sources(("qfx_mul",))])

        def of(netlist: yosys.Netlist) -> list[list[int]]:
            found = []
            for a, b in pairs:
                module = netlist.instances[f"m_{a}_{b}"]
                counts = count(netlist.cells(module) if module in netlist.modules else {})
                found.append([a, b, 0, 1, counts["lut"], counts["dsp"]])
            return found

        result: list[list[int]] = _kept(source, family, False, of)
        return result


@cache
def source_digest(module: str) -> str:
    """Digest of the Verilog of a module and all modules below it, without comments and white space."""
    from qfx.rtl import emit

    digest = hashlib.sha256()
    for path in emit.sources((module,)):
        code = re.sub(r"//[^\n]*|/\*.*?\*/", " ", path.read_text(encoding="ascii"), flags=re.DOTALL)
        digest.update(f"{path.name}\0{' '.join(code.split())}\0".encode())
    return digest.hexdigest()[:16]


def _resources(counts: Mapping[str, Any]) -> dict[str, int]:
    bram18 = counts["bram18"] + 2 * counts["bram36"]
    return {"lut": counts["lut"], "ff": counts["ff"], "dsp": counts["dsp"], "bram18": bram18}


def _kept(source: Source, family: str, flat: bool, read: Callable[[yosys.Netlist], Any]) -> Any:
    """What ``read`` makes of a synthesis; kept by the content of the sources and the version of the tool."""
    from qfx.report.build import write_text

    mode = "flat" if flat else "instances"
    digest = hashlib.sha256(f"{VERSION} {yosys.version()} {family} {mode} {source.top}".encode())
    for path in sorted((*source.paths, *source.data_paths), key=lambda p: p.name):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    place = cache_dir() / "table" / f"{digest.hexdigest()[:40]}.json"
    if place.is_file():
        return json.loads(place.read_text())
    with tempfile.TemporaryDirectory(prefix="qfx-cost-") as scratch:
        netlist = yosys.synthesize(
            source, Path(scratch), flatten=flat, dsp=True, family=family, timeout_s=3600
        )
    found = read(netlist)
    write_text(place, json.dumps(found))
    return found
