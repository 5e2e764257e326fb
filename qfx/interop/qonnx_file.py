"""Reading ONNX files of strangers: what is used is checked first, by size, kind and shape."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from qfx.errors import GraphFileError, MissingToolError
from qfx.interop.problems import Refused

_MAX_FILE_BYTES = 2 << 30  # the limit of protobuf itself
_MAX_NODES = 100_000
_MAX_AXES = 8
_MAX_CONSTANT = 1 << 29
_MAX_SIDE = 1 << 20
#: No tensor of a network that fits an FPGA comes near this many elements.
MAX_ELEMENTS = 1 << 23


def read_model(path: str | Path) -> Any:
    """The ``ModelProto`` of a file whose structure is sound: one input, one output, plain nodes in order.

    Raises:
        GraphFileError: the file is missing, not ONNX, damaged, or uses parts of ONNX that no network of
            layers needs (functions, subgraphs, external and sparse data).
        MissingToolError: the package onnx is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingToolError(
            "from_qonnx needs the package onnx; install it with: pip install qfx[qonnx]"
        ) from error
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise GraphFileError(
                f"{path}: {path.stat().st_size} bytes; {_MAX_FILE_BYTES} is the most that is read"
            )
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise GraphFileError(f"{path}: no such file") from error
    except OSError as error:
        raise GraphFileError(f"{path}: cannot be read ({error.strerror})") from error
    except (DecodeError, ValueError, UnicodeDecodeError) as error:
        raise GraphFileError(f"{path}: not an ONNX file, or damaged ({error})") from error
    graph = model.graph
    if not graph.node or len(graph.node) > _MAX_NODES:
        raise GraphFileError(
            f"{path}: {len(graph.node)} nodes; 1 to {_MAX_NODES} are read (is it an ONNX file?)"
        )
    if model.functions or graph.sparse_initializer or any(_has_subgraph(n) for n in graph.node):
        raise GraphFileError(f"{path}: holds functions, subgraphs or sparse data; only plain nodes are read")
    if not all(isinstance(text, str) for text in _texts(graph)):
        raise GraphFileError(f"{path}: damaged: a name is not text")
    constants = [t.name for t in graph.initializer]
    inputs = [v for v in graph.input if v.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise GraphFileError(
            f"{path}: {len(inputs)} inputs and {len(graph.output)} outputs; one of each is supported"
        )
    known = {*constants, inputs[0].name, ""}
    if len(known) != len(constants) + 2:
        raise GraphFileError(f"{path}: two constants have one name")
    for node in graph.node:
        missing = [name for name in node.input if name not in known]
        twice = [name for name in node.output if name and name in known]
        if missing or twice or not node.output or not node.output[0]:
            what = (
                f"takes {missing[0]!r}, which nothing before it makes"
                if missing
                else "has no result of its own"
            )
            raise GraphFileError(f"{path}: node {label(node)} {what}")
        known.update(node.output)
    if graph.output[0].name not in known:
        raise GraphFileError(f"{path}: no node makes the output {graph.output[0].name!r}")
    return model


def _texts(graph: Any) -> Iterator[Any]:
    """Every name that the reader uses; protobuf hands out what is not UTF-8 as bytes."""
    yield from (v.name for values in (graph.input, graph.output, graph.initializer) for v in values)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (a.name for a in node.attribute)
        yield from (text for entry in node.metadata_props for text in (entry.key, entry.value))


def _has_subgraph(node: Any) -> bool:
    return any(a.HasField("g") or a.graphs or a.HasField("sparse_tensor") for a in node.attribute)


def label(node: Any) -> str:
    """How messages name a node."""
    return f"{node.name or node.output[0] if node.output else node.name}"


def input_shape(path: str | Path, value: Any) -> tuple[int | None, tuple[int, ...]]:
    """Size of the batch axis (``None`` when it is open) and the shape behind it.

    Raises:
        GraphFileError: not a float tensor of known shape.
    """
    tensor = value.type.tensor_type
    sizes = [d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim]
    rest = [s for s in sizes[1:] if s is not None]
    if tensor.elem_type != 1 or not 2 <= len(sizes) <= 4 or len(rest) != len(sizes) - 1:
        raise GraphFileError(
            f"{path}: input {value.name!r} has element type {tensor.elem_type} and shape {sizes}; "
            "supported are float32 tensors (batch, ...) with one to three axes of known size behind the batch"
        )
    if any(s < 1 for s in rest) or prod(rest) > MAX_ELEMENTS or (sizes[0] is not None and sizes[0] < 1):
        raise GraphFileError(
            f"{path}: input {value.name!r} has shape {sizes}; sizes must be positive, "
            f"and {MAX_ELEMENTS} elements are the most"
        )
    return sizes[0], tuple(rest)


def tensor_values(tensor: Any) -> np.ndarray:
    """The numbers of a constant: float64, or int64 for integers.

    Raises:
        Refused: not plain numbers, or not as many as its shape says.
    """
    from onnx import TensorProto, numpy_helper

    if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
        raise Refused(f"constant {tensor.name!r} lies in another file; save the model with its data inside")
    shape = tuple(tensor.dims)
    if len(shape) > _MAX_AXES or any(s < 0 for s in shape) or prod(shape) > _MAX_CONSTANT:
        raise Refused(f"constant {tensor.name!r} has shape {shape}")
    kinds = {
        TensorProto.FLOAT: (4, np.float64),
        TensorProto.DOUBLE: (8, np.float64),
        TensorProto.FLOAT16: (2, np.float64),
        TensorProto.INT64: (8, np.int64),
        TensorProto.INT32: (4, np.int64),
        TensorProto.INT8: (1, np.int64),
        TensorProto.UINT8: (1, np.int64),
        TensorProto.BOOL: (1, np.int64),
    }
    if tensor.data_type not in kinds:
        raise Refused(f"constant {tensor.name!r} has element type {tensor.data_type}; use float32 or int64")
    size, kind = kinds[tensor.data_type]
    if tensor.HasField("raw_data") and len(tensor.raw_data) != prod(shape) * size:
        raise Refused(f"constant {tensor.name!r} has {len(tensor.raw_data)} bytes for shape {shape}")
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise Refused(f"constant {tensor.name!r}: {error}") from error
    if values.shape != shape or not np.isfinite(values).all():
        raise Refused(f"constant {tensor.name!r} holds values that are infinite or not numbers")
    return np.asarray(values, dtype=kind)


class Attributes:
    """The attributes of a node by name and type; what nobody asked for is refused by :meth:`finish`."""

    def __init__(self, node: Any) -> None:
        self._found = {a.name: a for a in node.attribute}
        self._asked: set[str] = set()
        if len(self._found) != len(node.attribute):
            raise Refused("an attribute is given twice")

    def _get(self, name: str, kind: str, number: int) -> Any:
        self._asked.add(name)
        attribute = self._found.get(name)
        if attribute is not None and attribute.type != number:
            raise Refused(f"attribute {name} must be {kind}, found type {attribute.type}")
        return attribute

    def integer(self, name: str, default: int) -> int:
        found = self._get(name, "an integer", 2)
        return default if found is None else int(found.i)

    def flag(self, name: str, default: bool) -> bool:
        value = self.integer(name, int(default))
        if value not in (0, 1):
            raise Refused(f"attribute {name} must be 0 or 1, found {value}")
        return bool(value)

    def number(self, name: str, default: float) -> float:
        found = self._get(name, "a float", 1)
        return default if found is None else float(found.f)

    def text(self, name: str, default: str) -> str:
        found = self._get(name, "a string", 3)
        return default if found is None else found.s.decode("utf-8", "replace")

    def integers(self, name: str, default: list[int]) -> list[int]:
        found = self._get(name, "a list of integers", 7)
        values = default if found is None else [int(v) for v in found.ints]
        if any(abs(v) > _MAX_SIDE for v in values):
            raise Refused(f"attribute {name} is {values}")
        return values

    def expect(self, name: str, kind: str, only: Any, advice: str = "") -> None:
        """An attribute that may only have its usual value."""
        value = getattr(self, kind)(name, only)
        if value != only:
            raise Refused(f"{name}={value} is not supported; it must be {only}{advice}")

    def finish(self, *ignored: str) -> None:
        """Refuse attributes that were not looked at."""
        rest = sorted(set(self._found) - self._asked - set(ignored))
        if rest:
            raise Refused(f"attribute {rest[0]} is not supported")


def metadata(node: Any) -> dict[str, str]:
    """What ``metadata_props`` of a node holds."""
    return {entry.key: entry.value for entry in node.metadata_props}
