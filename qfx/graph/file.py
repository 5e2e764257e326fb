"""Graph files: plain data, checked as they are read (docs/graph.md, section 4)."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from qfx.errors import GraphFileError, QfxError
from qfx.formats.base import Format
from qfx.formats.data import from_data, to_data
from qfx.formats.fixed import FixedPoint
from qfx.graph.graph import Graph, GraphBuilder
from qfx.graph.ops import OPS, Op

VERSION = 2
# A file from a stranger must not fill the memory: no real graph comes near these.
_MAX_JSON_BYTES = 64 << 20
_MAX_ARRAY_BYTES = 4 << 30
# What zipfile and zlib raise on damaged archives.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
)
# What version 1 did not have.
_ADDED_IN_2 = {"weight_encoding", "scale_encoding"}


def save(graph: Graph, path: str | Path) -> None:
    """Write a graph file under a temporary name and rename it when it is whole.

    Raises:
        QfxError: the folder does not exist or cannot be written.
    """
    path = Path(path)
    arrays: dict[str, bytes] = {}
    nodes = []
    for node in graph.nodes:
        attributes = {}
        for field in dataclasses.fields(node.op):
            value = getattr(node.op, field.name)
            attributes[field.name] = _to_data(value, f"arrays/{node.name}.{field.name}.npy", arrays)
        nodes.append(
            {
                "name": node.name,
                "op": node.op.kind,
                "path": node.path,
                "inputs": list(node.inputs),
                "attributes": attributes,
            }
        )
    document = {
        "format": "qfx-graph",
        "version": VERSION,
        "nodes": nodes,
        "output": graph.output,
        "arrays": {name: hashlib.sha256(data).hexdigest() for name, data in arrays.items()},
    }
    text = json.dumps(document, indent=1, ensure_ascii=True).encode()
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    except OSError as error:
        raise QfxError(
            f"{path}: cannot write a graph file here ({error.strerror}); create the folder first"
        ) from error
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {
                "graph.json": text,
                "graph.sha256": hashlib.sha256(text).hexdigest().encode(),
                **arrays,
            }.items():
                # A fixed date keeps equal graphs equal as files.
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: str | Path) -> Graph:
    """Read a graph file.

    Raises:
        GraphFileError: the file is missing, truncated, altered, newer than this version of QFX, or not a
            graph file.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except FileNotFoundError as error:
        raise GraphFileError(f"{path}: no such file") from error
    except GraphFileError:
        raise
    except _UNREADABLE as error:
        raise GraphFileError(
            f"{path}: not a whole graph file ({error}); write it again with Graph.save()"
        ) from error
    except (QfxError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise GraphFileError(f"{path}: the graph in this file is not valid: {error}") from error


def _read(archive: zipfile.ZipFile, path: Path) -> Graph:
    names = set(archive.namelist())
    if "graph.json" not in names:
        raise GraphFileError(f"{path}: not a graph file: it has no graph.json")
    text = _member(archive, "graph.json", _MAX_JSON_BYTES, path)
    digest = _member(archive, "graph.sha256", 1024, path).decode("ascii", "replace").strip()
    if hashlib.sha256(text).hexdigest() != digest:
        raise GraphFileError(f"{path}: graph.json was altered: its SHA-256 differs from graph.sha256")
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != "qfx-graph":
        raise GraphFileError(f"{path}: not a graph file: 'format' is not 'qfx-graph'")
    version = document.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise GraphFileError(
            f"{path}: graph version {version!r}; this QFX reads versions 1 to {VERSION}: use a newer QFX"
        )
    _keys(document, {"format", "version", "nodes", "output", "arrays"}, "graph.json")
    if set(document["arrays"]) != {n for n in names if n.startswith("arrays/")} or len(names) != len(
        archive.namelist()
    ):
        raise GraphFileError(f"{path}: the arrays in the file are not those that graph.json lists")

    def array(name: Any) -> np.ndarray:
        if name not in document["arrays"]:
            raise GraphFileError(f"{path}: graph.json names an array {name!r} that it does not list")
        data = _member(archive, name, _MAX_ARRAY_BYTES, path)
        if hashlib.sha256(data).hexdigest() != document["arrays"][name]:
            raise GraphFileError(
                f"{path}: {name} was altered: its SHA-256 differs from the one in graph.json"
            )
        values = np.load(io.BytesIO(data), allow_pickle=False)
        if values.dtype != np.int64:
            raise GraphFileError(f"{path}: {name} holds {values.dtype}, expected int64")
        return np.ascontiguousarray(values)

    builder = GraphBuilder()
    for entry in document["nodes"]:
        _keys(entry, {"name", "op", "path", "inputs", "attributes"}, "a node")
        if not isinstance(entry["path"], str) or not isinstance(entry["name"], str):
            raise ValueError("node names and paths must be text")
        kind = OPS.get(entry["op"])
        if kind is None:
            raise GraphFileError(
                f"{path}: unknown operator {entry['op']!r} at {entry['name']!r}; known: {', '.join(OPS)}"
            )
        if version == 1:
            missing = _ADDED_IN_2 & {field.name for field in dataclasses.fields(kind)}
            entry["attributes"] = {**dict.fromkeys(missing), **entry["attributes"]}
        builder.add(_operator(kind, entry, array), entry["inputs"], entry["path"], entry["name"])
    return builder.build(document["output"])


def _operator(kind: type[Op], entry: dict[str, Any], array: Any) -> Op:
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    _keys(entry["attributes"], set(fields), f"{entry['name']}.attributes")
    values = {}
    for name, annotation in fields.items():
        try:
            values[name] = _from_data(entry["attributes"][name], annotation, array)
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{entry['name']}.{name}: {error}") from error
    return kind(**values)


def _to_data(value: Any, file: str, arrays: dict[str, bytes]) -> Any:
    if isinstance(value, Format):
        return to_data(value)
    if isinstance(value, np.ndarray):
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(value, dtype=np.int64), allow_pickle=False)
        arrays[file] = stream.getvalue()
        return {"array": file}
    if isinstance(value, tuple):
        return [_to_data(v, file, arrays) for v in value]
    if value is None or isinstance(value, int | str):
        return value
    raise TypeError(f"cannot save {value!r}")


def _from_data(value: Any, annotation: str, array: Any) -> Any:
    """One attribute, checked against the type that the operator declares for it."""
    if annotation.endswith("| None"):
        if value is None:
            return None
        annotation = annotation.removesuffix("| None").strip()
    if annotation in ("FixedPoint", "Format"):
        fmt = from_data(value)
        if annotation == "FixedPoint" and not isinstance(fmt, FixedPoint):
            raise ValueError(f"expected a fixed-point format, found {fmt}")
        return fmt
    if annotation == "np.ndarray":
        _keys(value, {"array"}, "array attribute")
        return array(value["array"])
    if annotation == "int":
        return _integer(value)
    if annotation == "str":
        if not isinstance(value, str):
            raise ValueError(f"expected text, found {value!r}")
        return value
    if annotation in ("tuple[int, ...]", "Shape"):
        return tuple(_integer(v) for v in value)
    if annotation == "Padding":
        return tuple((_integer(a), _integer(b)) for a, b in value)
    raise TypeError(f"no reader for attributes of type {annotation}")


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected an integer, found {value!r}")
    return value


def _keys(value: Any, expected: set[str], what: str) -> None:
    if not isinstance(value, dict) or set(value) != expected:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{what}: expected the entries {sorted(expected)}, found {found}")


def _member(archive: zipfile.ZipFile, name: str, limit: int, path: Path) -> bytes:
    size = archive.getinfo(name).file_size
    if size > limit:
        raise GraphFileError(f"{path}: {name} would unpack to {size} bytes; {limit} is the most that is read")
    return archive.read(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
