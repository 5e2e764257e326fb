"""Training as people do it: optimizers, copies, checkpoints, autocast, several processes; and a network that
learns.
"""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qfx
from qfx import Config, FixedPoint, QfxError
from qfx.exact import exact_float32
from tests.learn.networks import FOUR_BITS, WIDE, Net, images, joined_steps, net, step
from tests.learn.test_quantizer import formats

ROOT = Path(__file__).resolve().parents[2]


# -- optimizers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", ["fold", "keep"])
@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4), id="SGD"),
        pytest.param(lambda p: torch.optim.Adam(p, lr=1e-3), id="Adam"),
        pytest.param(lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1), id="AdamW"),
        pytest.param(lambda p: torch.optim.RMSprop(p, lr=1e-3), id="RMSprop"),
        pytest.param(lambda p: torch.optim.Adagrad(p, lr=1e-2), id="Adagrad"),
        pytest.param(lambda p: torch.optim.NAdam(p, lr=1e-3, foreach=False), id="NAdam"),
    ],
)
def test_any_optimizer(batch_norm: str, optimizer: Callable) -> None:
    """The loss on one batch falls, every learned point gets a gradient, and none runs away."""
    config = Config(weight=FixedPoint(4), activation=FixedPoint(4), batch_norm=batch_norm)
    q = net(config).train()
    start = {name: m.frac for name, m in qfx.quantizers(q).items()}
    update = optimizer(q.parameters())
    losses = [step(q, update, seed=1) for _ in range(25)]
    assert losses[-1] < 0.95 * losses[0]
    for name, quantizer in qfx.quantizers(q).items():
        assert quantizer.shift.grad is not None and float(quantizer.shift.grad.abs().sum()) > 0, name
        assert abs(float(quantizer.point) - start[name]) < 3, name
    x = images(40, seed=9)
    np.testing.assert_array_equal(q.eval()(x).detach().double().numpy(), qfx.freeze(q).run(x))


def test_gradient_clipping_and_parameter_groups() -> None:
    q = net().train()
    groups = qfx.parameter_groups(q, lr=0.1, point_lr=0.01, weight_decay=1e-3)
    weights, points = groups
    assert (
        weights["lr"] == 0.1
        and weights["weight_decay"] == 1e-3
        and points["lr"] == 0.01
        and points["weight_decay"] == 0.0
    )
    # 4 layers with weight and bias, 5 activations; the frozen input has nothing to learn.
    assert len(points["params"]) == 4 * 2 + 5
    everything = {id(p) for p in q.parameters() if p.requires_grad}
    assert {id(p) for g in groups for p in g["params"]} == everything
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
    loss = F.cross_entropy(q(images(16)), torch.arange(16) % 10)
    loss.backward()
    total = nn.utils.clip_grad_norm_(q.parameters(), 0.1)
    assert torch.isfinite(total)
    optimizer.step()
    # Binary points must not be what clipping sees.
    share = sum(float(p.grad.square().sum()) for p in points["params"]) / sum(
        float(p.grad.square().sum()) for g in groups for p in g["params"]
    )
    assert share < 0.5


def test_freezing_points_ends_their_learning() -> None:
    q = net().train()
    optimizer = torch.optim.Adam(q.parameters(), lr=0.05)
    for seed in range(5):
        step(q, optimizer, seed)
    qfx.freeze_points(q)
    before = {name: m.frac for name, m in qfx.quantizers(q).items()}
    weight = q.get_submodule("fc").weight.detach().clone()
    for seed in range(5):
        step(q, optimizer, seed)
    assert before == {name: m.frac for name, m in qfx.quantizers(q).items()}
    assert not torch.equal(weight, q.get_submodule("fc").weight)


def test_a_frozen_input_format_asks_for_no_input_gradient() -> None:
    """The first convolution then skips the gradient of its input, the largest one of the network."""
    seen: list[bool] = []
    for config, wanted in ((FOUR_BITS, False), (Config(), True)):
        q = net(config).train()
        q.get_submodule("stem.0").register_forward_pre_hook(lambda m, a: seen.append(a[0].requires_grad))
        q(images(4))
        assert seen[-1] is wanted


# -- copies and checkpoints ----------------------------------------------------------------------------------


def test_training_goes_on_from_a_checkpoint_exactly() -> None:
    """Two steps, a checkpoint, two steps: the same as four steps in one go; through deepcopy alike."""
    q = net().train()
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-2)
    for seed in range(2):
        step(q, optimizer, seed)
    buffer = io.BytesIO()
    torch.save({"model": q.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    twin = copy.deepcopy(q)
    twin_optimizer = torch.optim.Adam(twin.parameters(), lr=1e-2)
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(2, 4):
        step(q, optimizer, seed)
        step(twin, twin_optimizer, seed)

    buffer.seek(0)
    stored = torch.load(buffer, weights_only=True)
    resumed = qfx.prepare(Net(), images(2), FOUR_BITS).train()
    resumed.load_state_dict(stored["model"])
    resumed_optimizer = torch.optim.Adam(resumed.parameters(), lr=1e-2)
    resumed_optimizer.load_state_dict(stored["optimizer"])
    for seed in range(2, 4):
        step(resumed, resumed_optimizer, seed)
    for name, value in q.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_eval_notices_every_change() -> None:
    """The plan of eval() is kept between calls; whatever changes parameters must make a new one."""
    q = net()
    x = images(8, seed=3)

    def check() -> None:
        with torch.no_grad():
            y = q(x).double().numpy()
        training = q.training
        np.testing.assert_array_equal(y, qfx.freeze(q).run(x))
        assert q.training == training

    q.eval()
    check()
    with torch.no_grad():
        q(x)
        kept = q._qfx_plan
        q(x)
        assert kept is not None and q._qfx_plan is kept, "nothing changed, nothing is computed anew"
    with torch.no_grad():
        q.get_submodule("fc").weight.mul_(40.0)
    check()
    qfx.quantizers(q)["fc.weight_quantizer"].set(9)
    check()
    optimizer = torch.optim.SGD(q.parameters(), lr=0.5)
    step(q, optimizer, 0)  # training in eval mode, as with frozen statistics
    check()
    q.load_state_dict(net(seed=5).state_dict())
    check()
    q.get_submodule("fc").weight.data.mul_(3.0)
    q.eval()
    check()
    q.double()
    check()


def test_calibration_without_training_is_a_baseline() -> None:
    """Eight bits by calibration alone: nearly the float model; a second calibration changes nothing."""
    torch.manual_seed(0)
    model = Net().eval()
    x = images(200)
    q = qfx.calibrate(qfx.prepare(model, x[:2], Config()), x.split(50)).eval()
    with torch.no_grad():
        y, expected = q(x), model(x)
    assert float((y - expected).abs().mean()) < 0.03 * float(expected.std())
    before = {n: m.frac for n, m in qfx.quantizers(q).items()}
    qfx.calibrate(q, x.split(50))
    assert before == {n: m.frac for n, m in qfx.quantizers(q).items()}


# -- exactness against everything torch could do -------------------------------------------------------------


@pytest.fixture
def _flags() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.mkldnn.conv.fp32_precision
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.mkldnn.conv.fp32_precision = before[1]
    torch._C._set_mkldnn_enabled(True)


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("trap", ["matmul precision", "convolution precision", "autocast", "no oneDNN"])
def test_low_precision_flags_do_not_reach_eval(trap: str) -> None:
    q = net(WIDE)
    g = qfx.freeze(q)
    x = images(32, seed=7)
    expected = g.run(x)
    if trap == "matmul precision":
        torch.set_float32_matmul_precision("medium")
    elif trap == "convolution precision":
        torch.backends.mkldnn.conv.fp32_precision = "bf16"
    elif trap == "no oneDNN":
        torch._C._set_mkldnn_enabled(False)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=trap == "autocast"):
        y = q(x)
        np.testing.assert_array_equal(y.double().numpy(), expected)
    if trap == "matmul precision":
        assert torch.get_float32_matmul_precision() == "medium", "the user's setting is restored"


def test_the_environment_switch_of_onednn(tmp_path: Path) -> None:
    """ONEDNN_DEFAULT_FPMATH_MODE is read once when a process starts, so a process of its own must find the
    results of this one.
    """
    q = net(WIDE)
    g = qfx.freeze(q)
    x = images(32, seed=7)
    g.save(tmp_path / "graph.qfx")
    torch.save(
        {"state": q.state_dict(), "x": x, "expected": torch.from_numpy(g.run(x))}, tmp_path / "expected.pt"
    )
    code = """
        import sys, torch, qfx
        import torch.nn.functional as F
        from networks import Net, WIDE
        folder = sys.argv[1]
        stored = torch.load(folder + "/expected.pt", weights_only=True)
        x, expected = stored["x"], stored["expected"]
        q = qfx.prepare(Net(), x, WIDE)
        q.load_state_dict(stored["state"])
        with torch.no_grad():
            assert torch.equal(q.eval()(x).double(), expected), "torch"
        assert torch.equal(torch.from_numpy(qfx.load(folder + "/graph.qfx").run(x)), expected), "interpreter"
        a, b = torch.full((8, 8, 9, 9), 1.0 + 2.0**-12), torch.ones(8, 8, 3, 3)
        switched = not torch.equal(F.conv2d(a, b).double(), F.conv2d(a.double(), b.double()))
        assert switched, "the switch has no effect here"
    """
    environment = {
        **os.environ,
        "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
        "PYTHONPATH": str(ROOT / "tests/learn"),
    }
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if "the switch has no effect here" in done.stderr:
        pytest.skip("this processor has no bfloat16 instructions that oneDNN would use")
    assert done.returncode == 0, done.stderr[-2000:]


def test_exact_float32_restores_what_it_changes() -> None:
    (before,) = torch.backends.nnpack.set_flags(True)
    try:
        with exact_float32():
            assert torch.backends.nnpack.set_flags(False) == (False,)
        assert torch.backends.nnpack.set_flags(True) == (True,)
    finally:
        torch.backends.nnpack.set_flags(before)


@settings(max_examples=60)
@given(formats(14), formats(14), formats(16), formats(20), formats(20), st.integers(0, 2**16), st.booleans())
def test_any_formats_at_all(
    weight: FixedPoint,
    activation: FixedPoint,
    first: FixedPoint,
    bias: FixedPoint,
    output: FixedPoint,
    seed: int,
    unsigned: bool,
) -> None:
    """Random frozen formats with random modes everywhere, on numbers around and beyond their ranges: torch
    equals the graph.
    """
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(12, 4),
        nn.ReLU(),
        nn.Linear(4, 2),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) * abs(float(weight.max) + 2.0**-weight.frac)
            )
    x = torch.randn(20, 2, 4, generator=generator, dtype=torch.float64) * (abs(first.max) + 2.0**-first.frac)
    x[0, 0, :2] = torch.tensor([torch.inf, -torch.inf])
    config = Config(weight, activation, first, bias, output=output, unsigned=unsigned)
    q = qfx.prepare(model, x[:2].float(), config).eval()
    with torch.no_grad():
        try:
            y = q(x)
        except QfxError as error:
            assert "62 is the most" in str(error)
            with pytest.raises(QfxError, match="62 is the most"):
                qfx.freeze(q)
            return
    np.testing.assert_array_equal(y.double().numpy(), qfx.freeze(q).run(x))
    single = x.float()
    np.testing.assert_array_equal(q(single).detach().double().numpy(), qfx.freeze(q).run(single))


# -- several processes ---------------------------------------------------------------------------------------


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """DistributedDataParallel over gloo gives the parameters of one process that sees whole batches."""
    script = [sys.executable, str(ROOT / "tests/learn/networks.py")]
    processes = [
        subprocess.Popen([*script, str(n), "2", str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    q = net().train()
    joined_steps(q, torch.optim.SGD(q.parameters(), lr=0.05, momentum=0.9), slice(None))
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-2000:]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    moved = 0.0
    start = net().state_dict()
    for name, value in q.state_dict().items():
        torch.testing.assert_close(
            state[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )
        moved = max(moved, float((value - start[name]).abs().max()))
    assert moved > 1e-3


# -- learning ------------------------------------------------------------------------------------------------


def test_digits_at_three_bits() -> None:
    """Scikit-learn's digits: float, then three bits by calibration alone, then learned. Learning wins most of
    the loss back.
    """
    datasets = pytest.importorskip("sklearn.datasets")
    data, labels = datasets.load_digits(return_X_y=True)
    x, y = torch.as_tensor(data / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.as_tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1347], order[1347:]

    def fit(model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 21)
        model.train()
        for _ in range(epochs):
            for batch in train[torch.randperm(len(train))][: 21 * 64].split(64):
                optimizer.zero_grad()
                F.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
                schedule.step()

    @torch.no_grad()
    def accuracy(model: nn.Module) -> float:
        return 100 * float((model.eval()(x[test]).argmax(1) == y[test]).float().mean())

    torch.manual_seed(0)
    model = Net()
    fit(model, torch.optim.Adam(model.parameters(), 3e-3), 8)
    in_float = accuracy(model)
    config = Config(weight=FixedPoint(3), activation=FixedPoint(3), input=FixedPoint(5, 4, signed=False))
    calibrated = qfx.calibrate(qfx.prepare(model, x[:2], config), x[train[:512]].split(128))
    baseline = accuracy(calibrated)
    for name, optimizer in (
        ("Adam", torch.optim.Adam),
        ("SGD", lambda p, lr: torch.optim.SGD(p, lr=5 * lr, momentum=0.9)),
    ):
        q = copy.deepcopy(calibrated)
        fit(q, optimizer(q.parameters(), lr=5e-3), 6)
        learned = accuracy(q)
        assert learned > baseline and learned >= in_float - 1.5, (name, in_float, baseline, learned)
        np.testing.assert_array_equal(q(x[test]).detach().double().numpy(), qfx.freeze(q).run(x[test]))
