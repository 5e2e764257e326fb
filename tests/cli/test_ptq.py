"""`qfx ptq` on a model of the user's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import qfx
from qfx.cli.app import app

MODEL = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4,
    3))

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    package = tmp_path / "nets_of_a_user"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(MODEL)
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("nets_of_a_user")]:
        del sys.modules[name]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["ptq", *arguments])
    return result.exit_code, result.output


def test_an_array(folder: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32)
    np.save(folder / "x.npy", x)
    code, output = run(
        "nets_of_a_user.net:small", "--data", "x.npy", "--weight", "e2m3", "--activation", "6",
        "--calibration", "24",
        "--evaluation", "16", "--methods", "calibration, gptq", "--out", "out/net.qfx", "--json",
    )  # fmt: skip
    assert code == 0, output
    facts = json.loads(output)
    assert facts["methods"] == ["calibration", "gptq"]
    assert (facts["calibration"], facts["evaluation"]) == (24, 16)
    assert facts["sqnr_db"] > 10 and 0 <= facts["agreement"] <= 1 and "accuracy" not in facts
    graph = qfx.load(folder / "out" / "net.qfx")

    # The same by hand.
    import nets_of_a_user.net as net

    order = np.random.default_rng(0).permutation(40)
    config = qfx.Config(weight=qfx.Minifloat(2, 3), activation=qfx.FixedPoint(6), per_channel=True)
    batches = list(torch.from_numpy(x[order][:24]).split(16))
    q = qfx.ptq.quantize(net.small().eval(), batches, config, ("calibration", "gptq"), progress=False)
    assert (qfx.freeze(q).run(x) == graph.run(x)).all()


def test_a_folder_of_images(folder: Path) -> None:
    random = np.random.default_rng(0)
    for label in ("0", "2"):
        (folder / "images" / label).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(
                folder / "images" / label / f"{i}.png"
            )
    code, output = run(
        "nets_of_a_user.net:small", "--data", "images", "--size", "12", "--calibration", "6", "--json"
    )
    assert code == 0, output
    facts = json.loads(output)
    assert facts["evaluation"] == 6 and {"accuracy", "float_accuracy"} <= set(facts)
    assert facts["methods"] == "best" and (folder / "build" / "ptq.qfx").is_file()
    code, output = run("nets_of_a_user.net:small", "--data", "images", "--size", "12", "--evaluation", "0")
    assert code == 0 and "agreement" not in output


def test_bytes_of_images(folder: Path) -> None:
    """The graph takes bytes, and what is printed is measured with them."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for i in range(12):
        image = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        image.save(folder / "images" / f"{i}.png")
    code, output = run(
        "nets_of_a_user.net:small", "--data", "images", "--size", "12", "--calibration", "8", "--json",
        "--byte-input", "--out", "bytes.qfx",
    )  # fmt: skip
    assert code == 0, output
    assert json.loads(output)["sqnr_db"] > 25
    graph = qfx.load(folder / "bytes.qfx")
    assert graph.nodes[0].tensor.format == qfx.FixedPoint(8, 0, signed=False)

    import nets_of_a_user.net as net

    x = torch.from_numpy(random.integers(0, 256, (4, 3, 12, 12))).float()
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (qfx.data.images.MEAN, qfx.data.images.STD))
    with torch.no_grad():
        wanted = net.small().eval()((x / 255 - mean) / std).double().numpy()
    assert np.square(graph.run(x.numpy()) - wanted).sum() < 0.01 * np.square(wanted).sum()
    np.save(folder / "x.npy", np.zeros((4, 3, 12, 12)))
    code, output = run("nets_of_a_user.net:small", "--data", "x.npy", "--byte-input")
    assert code != 0 and "--byte-input: needs a folder of images" in " ".join(output.split())


def test_messages(folder: Path) -> None:
    np.save(folder / "x.npy", np.zeros((4, 3, 8, 8)))
    for arguments, message in (
        (("nets_of_a_user.net", "--data", "x.npy"), "expected package.module:function"),
        (("nets_of_a_user.net:large", "--data", "x.npy"), "has no attribute 'large'"),
        (("no_such_package:f", "--data", "x.npy"), "No module named 'no_such_package'"),
        (("nets_of_a_user.net:number", "--data", "x.npy"), "gives int, expected a torch.nn.Module"),
        (("nets_of_a_user.net:small", "--data", "y.npy"), "neither a folder nor a .npy file"),
        (("nets_of_a_user.net:small", "--data", "x.npy", "--weight", "four"), "expected a number of bits"),
        (("nets_of_a_user.net:small", "--data", "x.npy", "--methods", "magic"), "unknown method 'magic'"),
        (("nets_of_a_user.net:small", "--data", "x.npy", "--batch", "0"), "must be at least 1"),
    ):
        code, output = run(*arguments)
        assert code == 2 and message in " ".join(output.split()), (arguments, output)
