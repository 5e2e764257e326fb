"""Long and large training: killed and resumed, sharded over processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import qfx
from qfx import Config, FixedPoint, QfxError
from qfx.learn import load_checkpoint, save_checkpoint
from tests.learn.networks import FOUR_BITS, Net, images, joined_steps, net

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "tests/learn/long_run.py")


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-2000:]
    return output


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """SIGKILL in the middle, twice, once after binary points were frozen; then weights, binary points,
    statistics and the optimizer's state equal those of a run that nobody disturbed."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected_run = start("train", str(whole))
    for last in (8, 29):
        process = start("train", str(killed))
        assert process.stdout is not None
        for line in process.stdout:
            if line.split() == ["step", str(last)]:
                break
        process.kill()
        process.wait()
        assert process.returncode == -9
        assert not (killed / "final.pt").exists()
    output = finish(start("train", str(killed)))
    first = int(output.split()[2])
    assert output.startswith("resumed at") and 27 <= first < 40
    finish(expected_run)
    expected = torch.load(whole / "final.pt", weights_only=True)
    found = torch.load(killed / "final.pt", weights_only=True)
    for name, value in expected["model"].items():
        assert torch.equal(value, found["model"][name]), name
    assert equal(expected["optimizer"], found["optimizer"])
    # Something was learned, so that this could have failed.
    assert any(float(v.abs().sum()) > 0 for v in expected["optimizer"]["state"][0].values())


def test_two_processes_sharded_train_as_one(tmp_path: Path) -> None:
    """fully_shard over gloo gives the parameters of one process that sees whole batches."""
    processes = [start("sharded", str(n), "2", str(tmp_path)) for n in range(2)]
    q = net().train()
    joined_steps(q, torch.optim.SGD(q.parameters(), lr=0.05, momentum=0.9), slice(None))
    for process in processes:
        finish(process)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    start_state = net().state_dict()
    assert state.keys() == start_state.keys()
    moved = {"weight": 0.0, "shift": 0.0}
    for name, value in q.state_dict().items():
        torch.testing.assert_close(state[name], value, atol=1e-5, rtol=1e-4)
        kind = name.rpartition(".")[2]
        if kind in moved:
            moved[kind] = max(moved[kind], float((value - start_state[name]).abs().max()))
    assert moved["weight"] > 1e-3 and moved["shift"] > 1e-5


# -- what does not fit ---------------------------------------------------------------------------------------


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    q = net()
    optimizer = torch.optim.SGD(q.parameters(), lr=0.1)
    save_checkpoint(path, q, {"optimizer": optimizer}, {"epoch": 3})
    with pytest.raises(QfxError, match="holds the parts optimizer, asked for were none"):
        load_checkpoint(path, net())
    other = qfx.prepare(Net(), images(2), Config(weight=FixedPoint(4), activation=FixedPoint(6)))
    with pytest.raises(QfxError, match="use the same config"):
        load_checkpoint(path, other, {"optimizer": optimizer})
    frozen = net()
    qfx.freeze_points(frozen)
    with pytest.raises(QfxError, match="stem.0.weight_quantizer is frozen here"):
        load_checkpoint(path, frozen, {"optimizer": optimizer})
    small = qfx.prepare(Net(4), images(2), FOUR_BITS)
    with pytest.raises(QfxError, match="does not fit this model"):
        load_checkpoint(path, small, {"optimizer": optimizer})
    with pytest.raises(QfxError, match="neither state_dict nor get_state"):
        save_checkpoint(path, q, {"number": 3})
    assert load_checkpoint(path, net(), {"optimizer": optimizer}) == {"epoch": 3}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x04cos\nsystem\n"])
def test_damaged_checkpoints(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(QfxError, match="is not a checkpoint, or is damaged"):
        load_checkpoint(path, net())
    torch.save({"a": 1}, path)
    with pytest.raises(QfxError, match=r"is not a checkpoint of qfx\.learn\.save_checkpoint"):
        load_checkpoint(path, net())


def test_a_failed_write_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    q = net()
    save_checkpoint(path, q, extra={"epoch": 1})
    before = path.read_bytes()

    def full(document: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, q, extra={"epoch": 2})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
