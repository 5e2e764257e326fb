"""The examples run, on little data, and their networks are exact."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import qfx

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    path = EXAMPLES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 80


@pytest.mark.parametrize("name", ["cnn", "transformer", "lstm"])
def test_an_example_learns_and_is_exact(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = example(name).main(epochs=4, samples=600)
    assert result["mismatches"] == 0
    assert result["frozen"] > 0.2  # a tenth would be chance
    assert "0 mismatches" in capsys.readouterr().out


def test_the_cnn_becomes_verilog(tmp_path: Path) -> None:
    example("cnn").main(epochs=1, samples=100, out=str(tmp_path / "rtl"))
    design = qfx.rtl.load(tmp_path / "rtl")
    x = np.random.default_rng(0).integers(0, 17, (3, 1, 8, 8)) / 16
    graph = qfx.load(tmp_path / "rtl" / "graph.qfx")
    np.testing.assert_array_equal(qfx.sim.run(design, x).outputs, graph.run(x))


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Files of CIFAR-10's binary version: a label byte, then 1024 bytes of red, green and blue each. Three
    classes, each with a colour of its own."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    random = np.random.default_rng(0)
    files = [*((f"data_batch_{i}", 25) for i in range(1, 6)), ("test_batch", 40)]
    for name, samples in files:
        labels = random.integers(0, 3, samples)
        pixels = random.integers(0, 96, (samples, 3, 1024))
        pixels[np.arange(samples), labels] += 128
        rows = np.concatenate([labels[:, None], pixels.reshape(samples, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.astype(np.uint8).tobytes())
    return folder


def test_resnet20_reads_cifar_and_goes_on(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("resnet20")
    images, labels = module.read(cifar, False)
    assert images.shape == (40, 3, 32, 32) and int(labels.max()) == 2
    assert all(int(image.mean((1, 2)).argmax()) == label for image, label in zip(images, labels, strict=True))

    result = module.main(cifar, tmp_path / "whole", 2)
    assert result["mismatches"] == 0  # a handful of steps: nothing is said about accuracy

    # The same, killed after the first epoch: the checkpoint takes the second run to the same bits.
    kept, saved = qfx.save_checkpoint, []

    def killed(*arguments: object) -> None:
        kept(*arguments)  # type: ignore[arg-type]
        saved.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(qfx, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        module.main(cifar, tmp_path / "killed", 2)
    monkeypatch.setattr(qfx, "save_checkpoint", kept)
    torch.manual_seed(99)
    assert len(saved) == 1 and module.main(cifar, tmp_path / "killed", 2) == result
    first, second = (qfx.load(tmp_path / name / "resnet20.qfx") for name in ("whole", "killed"))
    x = images[:8].numpy()
    np.testing.assert_array_equal(first.run(x), second.run(x))
    for a, b in zip(first.nodes, second.nodes, strict=True):
        assert (a.name, str(a.tensor.format)) == (b.name, str(b.tensor.format))


def test_resnet20_says_which_files_it_wants(tmp_path: Path) -> None:
    with pytest.raises(qfx.QfxError, match=r"data_batch_1\.bin: no such file; unpack the binary version"):
        example("resnet20").main(tmp_path, tmp_path / "out", 1)
