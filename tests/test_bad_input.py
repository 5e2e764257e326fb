"""Hostile names and bad input through the whole flow: clear errors, nothing half-written or unescaped."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qfx

NAMES = [
    "a'; rm -rf $(x)",
    "module",
    "größe 漢字",
    "*/ `endmodule\n$finish",
    '"); system("x',
    "int",
    "x" * 300,
]


class Named(nn.Module):
    """Two layers, the first of which carries a name that no code generator should meet unescaped."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._modules[name] = nn.Conv2d(1, 2, 3)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self._modules[self.name](x)).flatten(1))


def frozen(model: nn.Module) -> qfx.Graph:
    torch.manual_seed(0)
    x = torch.rand(8, 1, 4, 4)
    config = qfx.Config(weight=qfx.FixedPoint(4), activation=qfx.FixedPoint(4), input=qfx.FixedPoint(4))
    q = qfx.prepare(model, x[:1], config)
    qfx.calibrate(q, [x])
    return qfx.freeze(q)


@pytest.mark.parametrize("name", NAMES)
def test_names_never_reach_generated_code(name: str, tmp_path: Path) -> None:
    graph = frozen(Named(name))
    assert name in {node.path for node in graph.nodes}
    graph.save(tmp_path / "g.qfx")
    again = qfx.load(tmp_path / "g.qfx")
    qfx.rtl.generate(again, tmp_path / "rtl")
    qfx.hls.convert(again, tmp_path / "hls")
    for path in [*(tmp_path / "rtl").rglob("*"), *(tmp_path / "hls").rglob("*")]:
        assert re.fullmatch(r"[A-Za-z0-9_.\-]+", path.name), path
        shipped = {"ap_types", "ac_types", "nnet_utils", "build"} & set(path.parts)  # by hls4ml, as they are
        if not shipped and path.suffix in (".v", ".h", ".cpp", ".tcl", ".sh", ".mem", ".xdc", ".lpf", ".yml"):
            text = path.read_text(encoding="utf-8")
            if path.is_relative_to(tmp_path / "rtl"):
                assert text.isascii(), path
            for part in ("rm -rf", "$(x)", "$finish", 'system("', "größe", "漢"):
                assert part not in re.sub(r"//[^\n]*", "", text), path
            # What a comment may show of a name must not be able to end it or to continue it on a next line.
            for comment in re.findall(r"//[^\n]*", text):
                assert not comment.endswith("\\") and "*/" not in comment, path


@pytest.mark.parametrize("name", ["a'; rm -rf $(x)", "module"])
def test_hostile_names_are_still_verified(name: str) -> None:
    x = np.random.default_rng(0).random((4, 1, 4, 4))
    report = qfx.verify(frozen(Named(name)), x, against=("torch", "rtl"))
    assert report.ok and set(report) == {"torch", "rtl"}


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = frozen(Named("conv"))
    project = qfx.hls.convert(graph, tmp_path / "hls")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(qfx.MissingToolError, match=r"g\+\+"):
        project.compile()
    with pytest.raises(qfx.MissingToolError, match="vitis|Vitis"):
        project.synthesize()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    graph = frozen(Named("conv"))
    for target in ("rtl", "hls"):
        folder = tmp_path / target
        folder.mkdir()
        (folder / "thesis.txt").write_text("ten years of work")
        with pytest.raises(qfx.QfxError, match=target):
            (qfx.rtl.generate if target == "rtl" else qfx.hls.convert)(graph, folder)
        assert [p.name for p in folder.iterdir()] == ["thesis.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hls", "rtl"]
