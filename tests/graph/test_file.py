"""Graph files: what is written comes back, and nothing else is read."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from qfx.errors import GraphFileError, QfxError
from qfx.formats import FixedPoint
from qfx.graph import Graph, GraphBuilder, ops
from qfx.graph.file import load
from tests.graph.test_interpreter import Draw, hard_inputs

ODD_PATHS = ["a'; rm -rf $(x)", "module", "größe.ß漢字", "*/ `endmodule", "x\ny", ""]


def small_graph(path: str = "fc") -> Graph:
    builder = GraphBuilder()
    x = builder.add(ops.Input((2,), FixedPoint(4, 1)))
    weight = np.array([[1, 2], [3, -4]])
    y = builder.add(ops.Linear(weight, FixedPoint(4, (0, 2)), np.array([1, 2]), FixedPoint(4, 1)), [x], path)
    return builder.build(builder.add(ops.Cast(FixedPoint(5, 0, True, "TRN", "WRAP")), [y]))


@pytest.mark.parametrize("seed", range(12))
def test_round_trip(seed, tmp_path):
    shape = [(5,), (4, 7), (3, 6, 5)][seed % 3]
    graph = Draw(seed, shape, None).graph(8)
    graph.save(tmp_path / "g.qfx")
    again = load(tmp_path / "g.qfx")
    assert again.summary() == graph.summary()
    x = hard_inputs(graph, np.random.default_rng(seed), 4)
    np.testing.assert_array_equal(again.run_codes(x), graph.run_codes(x))
    again.save(tmp_path / "again.qfx")
    assert (tmp_path / "again.qfx").read_bytes() == (tmp_path / "g.qfx").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.qfx", "g.qfx"]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_names_are_identifiers_whatever_the_path(path, tmp_path):
    graph = small_graph(path)
    name = graph.nodes[1].name
    assert name.isascii() and name.isidentifier() and name[0] == "n" and name[1].isdigit()
    graph.save(tmp_path / "g.qfx")
    assert load(tmp_path / "g.qfx").nodes[1].path == path


def test_every_truncation_is_refused(tmp_path):
    small_graph().save(tmp_path / "g.qfx")
    data = (tmp_path / "g.qfx").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "cut.qfx").write_bytes(data[:length])
        with pytest.raises(GraphFileError, match=r"cut\.qfx"):
            load(tmp_path / "cut.qfx")


def test_every_changed_byte_is_refused_or_harmless(tmp_path):
    """A changed byte either cannot be read, or sits where it changes nothing (zip time "
    "stamps and the like)."""
    graph = small_graph()
    graph.save(tmp_path / "g.qfx")
    data = (tmp_path / "g.qfx").read_bytes()
    x = np.array([[0.5, -3.0], [3.5, 3.5]])
    expected = graph.run_codes(x)
    refused = 0
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x24
        (tmp_path / "g.qfx").write_bytes(changed)
        try:
            again = load(tmp_path / "g.qfx")
        except GraphFileError:
            refused += 1
        else:
            np.testing.assert_array_equal(again.run_codes(x), expected)
    assert refused > len(data) / 2


def rewrite(source: Path, target: Path, change, sign: bool = True) -> None:
    """Alter graph.json as someone would who also repairs the digest."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members["graph.json"])
    change(document, members)
    members["graph.json"] = json.dumps(document).encode()
    if sign:
        members["graph.sha256"] = hashlib.sha256(members["graph.json"]).hexdigest().encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _node(index, **changes):
    return lambda document, members: document["nodes"][index].update(changes)


def _attribute(index, **changes):
    return lambda document, members: document["nodes"][index]["attributes"].update(changes)


def _format(index, name, **changes):
    return lambda document, members: document["nodes"][index]["attributes"][name].update(changes)


ALTERED = {
    "newer version": (lambda d, m: d.update(version=3), "version 3"),
    "version as text": (lambda d, m: d.update(version="1"), "version '1'"),
    "another format": (lambda d, m: d.update(format="onnx"), "not a graph file"),
    "extra entry": (lambda d, m: d.update(code="import os"), "expected the entries"),
    "unknown operator": (_node(1, op="eval"), "unknown operator 'eval'"),
    "node name": (_node(1, name="rm -rf"), "node name"),
    "operand later": (_node(1, inputs=["n2_cast"]), "does not stand before"),
    "no operand": (_node(1, inputs=[]), "0 operands"),
    "path not text": (_node(1, path=3), "must be text"),
    "attribute missing": (_node(2, attributes={}), "expected the entries"),
    "output unknown": (lambda d, m: d.update(output="n9_x"), "is not a node"),
    "shape negative": (_attribute(0, shape=[-2]), "shape"),
    "shape not integer": (_attribute(0, shape=[2.0]), "expected an integer"),
    "array from elsewhere": (_attribute(1, weight={"array": "../../etc/passwd"}), "does not list"),
    "array as list": (_attribute(1, weight=[[1, 2], [3, 4]]), "expected the entries"),
    "wide format": (_format(2, "format", width=5000), "outside 1..62"),
    "rounding": (_format(2, "format", rounding="UP"), "unknown rounding"),
    "signed as number": (_format(2, "format", signed=1), "true or false"),
    "no binary point": (_format(2, "format", frac=None), "binary point"),
    "codes out of range": (_format(1, "weight_format", width=2), "outside the range"),
    "binary points of other channels": (_format(1, "weight_format", frac=[1, 2, 3]), "3 binary points for 2"),
    "array not listed": (lambda d, m: m.update({"arrays/x.npy": b""}), "not those that graph.json lists"),
    "array altered": (lambda d, m: m.update({"arrays/n1_fc.weight.npy": b"x"}), "was altered"),
    "nodes missing": (lambda d, m: d.update(nodes=[]), "not valid"),
    "nodes not a list": (lambda d, m: d.update(nodes=3), "not valid"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_altered_files_are_refused(name, tmp_path):
    small_graph().save(tmp_path / "g.qfx")
    change, message = ALTERED[name]
    rewrite(tmp_path / "g.qfx", tmp_path / "altered.qfx", change)
    with pytest.raises(GraphFileError, match=r"altered\.qfx.*" + message):
        load(tmp_path / "altered.qfx")


def test_altered_without_repairing_the_digest(tmp_path):
    small_graph().save(tmp_path / "g.qfx")
    rewrite(tmp_path / "g.qfx", tmp_path / "altered.qfx", _format(2, "format", width=6), sign=False)
    with pytest.raises(GraphFileError, match="SHA-256"):
        load(tmp_path / "altered.qfx")


def test_pickles_are_never_opened(tmp_path):
    """An object array would be unpickled by a careless reader."""
    small_graph().save(tmp_path / "g.qfx")

    def poison(document, members):
        import io

        class Bomb:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "exploded"),))

        stream = io.BytesIO()
        np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
        members["arrays/n1_fc.weight.npy"] = stream.getvalue()
        document["arrays"]["arrays/n1_fc.weight.npy"] = hashlib.sha256(stream.getvalue()).hexdigest()

    rewrite(tmp_path / "g.qfx", tmp_path / "bomb.qfx", poison)
    with pytest.raises(GraphFileError):
        load(tmp_path / "bomb.qfx")
    assert not (tmp_path / "exploded").exists()


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(GraphFileError, match="no such file"):
        load(tmp_path / "none.qfx")
    with pytest.raises(QfxError, match="create the folder first"):
        small_graph().save(tmp_path / "none" / "g.qfx")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError):
        small_graph().save(tmp_path / "g.qfx")
    assert list(tmp_path.iterdir()) == []
