"""The compiled quantizer against the one of torch operators: every bit forward, the same gradient."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

import qfx
from qfx import Config, FixedPoint, Minifloat, QfxError
from qfx.formats import ROUNDING
from qfx.formats.base import Format
from qfx.learn import training
from qfx.nn import Quantizer, device, fused, fused_build
from tests.learn.networks import FOUR_BITS, Net, images, net, step

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    not fused_build.status()[0], reason=f"not compiled: {fused_build.status()[1]}"
)


@st.composite
def formats(draw: st.DrawFn) -> Format:
    """Whatever the compiled operators take."""
    rounding, signed = draw(st.sampled_from(ROUNDING)), draw(st.booleans())
    if draw(st.booleans()):
        overflow = draw(st.sampled_from(["SAT", "SAT_SYM"]))
        width = draw(st.integers(2 if overflow == "SAT_SYM" else 1, 22))
        return FixedPoint(width, None, signed, rounding, overflow)
    specials = draw(st.sampled_from(["none", "fn", "ieee"]))
    exponent, mantissa = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    return Minifloat(exponent, mantissa, signed=signed, specials=specials, rounding=rounding)


def eager(q: Quantizer, x: torch.Tensor) -> torch.Tensor:
    """The cast by torch operators."""
    return q._cast(x, q._frac())


def both(
    q: Quantizer, x: torch.Tensor, grad: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Result, gradient of x and of the binary point: by torch operators, and compiled."""
    results = []
    for cast in (eager, fused.cast):
        leaf = x.clone().requires_grad_()
        q.shift.grad = None
        y = cast(q, leaf)
        assert y is not None
        y.backward(grad)
        assert leaf.grad is not None and q.shift.grad is not None
        results.append((y.detach(), leaf.grad, q.shift.grad))
    return results[0], results[1]


def numbers(fmt: Format, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Numbers within and around the range, every third one a tie or on the grid."""
    generator = torch.Generator().manual_seed(seed)
    reach = float(min(fmt.integer_max, 1 << 22)) + 1.0
    x = (
        torch.randn(shape, generator=generator)
        * reach
        * 2.0 ** -torch.randint(0, 12, shape, generator=generator).float()
    )
    x.view(-1)[::3] = (2 * x.view(-1)[::3]).round() / 2
    return x


def assert_same(q: Quantizer, x: torch.Tensor, grad: torch.Tensor) -> None:
    expected, found = both(q, x, grad)
    # The bits, so that the sign of a zero counts.
    assert torch.equal(expected[0].contiguous().view(torch.int32), found[0].contiguous().view(torch.int32))
    assert torch.equal(expected[1], found[1])
    assert found[0].stride() == x.stride() and found[1].stride() == x.stride()
    # In float32 the difference of two large sums is no reference for the gradient of the binary point.
    wide = x.double().requires_grad_()
    (exact,) = torch.autograd.grad(eager(q, wide), q.shift, grad.double())
    # Rounding errors are kept to half a code each, of 1/65400 of the range that they can have: six standard
    # deviations of a sum of them; and what float32 does to products with them.
    size = 2.0 if q.fmt.rounding == "TRN_ZERO" else 1.5 if q.fmt.rounding == "TRN" else 1.0  # type: ignore
    step = 2.0 ** -torch.as_tensor(q.frac).double()
    gain = torch.as_tensor(q.gain(x.numel() / q.channels / (x.shape[0] if q.axis == 1 else 1))).double()
    axes = [i for i in range(x.ndim) if q.channels == 1 or i != q.axis]
    noise = grad.double().square().sum(dim=axes).sqrt() * step * size / 65400 / 12**0.5 * gain
    product = (grad.double() * eager(q, x).detach().double()).square().sum(dim=axes).sqrt() * gain
    allowed = 6 * noise + 2e-7 * product + 1e-6 * exact.double().abs()
    off = (found[2].double() - exact.double()).abs()
    assert bool((off <= allowed).all()), f"{q.fmt}: {found[2]} for {exact}, off by {off}, allowed {allowed}"


@settings(max_examples=120, deadline=None)
@given(formats(), st.integers(-6, 9), st.integers(0, 1 << 16), st.booleans())
def test_equals_the_torch_operators(fmt: Format, frac: int, seed: int, channels_last: bool) -> None:
    q = Quantizer(fmt, axis=1)
    q.set(frac, 1.0)
    x = numbers(fmt, (3, 5, 7, 11), seed) * 2.0**-frac
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    assert_same(q, x, torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)))


@settings(max_examples=60, deadline=None)
@given(formats(), st.integers(0, 1 << 16), st.sampled_from([0, 1]), st.booleans())
def test_one_binary_point_per_channel(fmt: Format, seed: int, axis: int, channels_last: bool) -> None:
    q = Quantizer(fmt, 5, axis)
    q.set([3, -1, 0, 7, 2], [1.0, 2.0, 0.5, 1.0, 3.0])
    x = numbers(fmt, (5, 5, 4, 3), seed) / 4
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    assert_same(q, x, torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)))


def test_special_numbers_and_empty_tensors() -> None:
    q = Quantizer(FixedPoint(6))
    q.set(2)
    x = torch.tensor([torch.inf, -torch.inf, 1e38, -1e38, 1e-45, -1e-45, 0.0, -0.0, torch.nan])
    expected, found = eager(q, x), fused.cast(q, x)
    assert found is not None
    assert torch.equal(expected[:-1].detach().view(torch.int32), found[:-1].detach().view(torch.int32))
    assert found[-1].isnan()
    empty = fused.cast(q, torch.zeros(0, 3, requires_grad=True))
    assert empty is not None and empty.shape == (0, 3)
    empty.sum().backward()
    assert q.shift.grad is not None and float(q.shift.grad) == 0.0


@pytest.mark.parametrize("shape", [(16384,), (16385,), (3, 40000), (100003,)])
def test_the_sum_does_not_depend_on_threads(shape: tuple[int, ...]) -> None:
    """Partial sums are those of fixed pieces: training repeats itself on a machine with more processors."""
    q = Quantizer(FixedPoint(5))
    q.set(1)
    x, grad = torch.randn(shape), torch.randn(shape)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(both(q, x, grad)[1])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_strange_gradients() -> None:
    """An expanded gradient, one in another memory format, none at all."""
    q = Quantizer(FixedPoint(5), axis=1)
    q.set(1)
    x = torch.randn(2, 3, 4, 5)
    assert_same(q, x, torch.tensor(0.5).expand(x.shape))
    assert_same(q, x, torch.randn(x.shape).to(memory_format=torch.channels_last))
    assert_same(q, x.transpose(1, 3).contiguous().transpose(1, 3), torch.randn(x.shape))
    # Not dense: a copy is cast.
    wide = torch.randn(2, 3, 4, 10)
    assert torch.equal(eager(q, wide[..., ::2]), fused.cast(q, wide[..., ::2]))


def test_second_derivatives() -> None:
    q = Quantizer(FixedPoint(4), 3, 0)
    q.set([1, 2, 0])
    x = (3 * torch.randn(3, 40)).requires_grad_()
    found = []
    for cast in (eager, fused.cast):
        y = cast(q, x)
        assert y is not None
        first = torch.autograd.grad(y.pow(3).sum(), (x, q.shift), create_graph=True)
        second = torch.autograd.grad(first[0].pow(2).sum() + first[1].sum(), x)
        found.append((*first, *second))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# -- whole networks ------------------------------------------------------------------------------------------


def plain_and_fused(config: Config) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Result and gradients of a training pass: with every module by itself, and fused."""
    results = []
    for hooked in (True, False):
        q = net(config).train()
        if hooked:
            for module in q.modules():
                module.register_forward_hook(lambda m, a, y: None)
        y = q(images(16))
        y.square().mean().backward()
        gradients = [p.grad for p in q.parameters() if p.requires_grad]
        results.append([y.detach(), *[g for g in gradients if g is not None]])
    return results[0], results[1]


@pytest.mark.parametrize(
    "config",
    [
        FOUR_BITS,
        Config(weight=FixedPoint(5), activation=FixedPoint(6), per_channel=True),
        Config(weight=Minifloat(2, 1), activation=Minifloat(3, 2)),
        Config(batch_norm="keep", unsigned=False),
    ],
    ids=["4 bits", "channels", "minifloat", "BatchNorm"],
)
def test_fusing_changes_nothing(config: Config) -> None:
    expected, found = plain_and_fused(config)
    assert torch.equal(expected[0], found[0])
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-8)


def test_relu_is_fused_unless_somebody_looks() -> None:
    q = net().train()
    q(images(4))
    assert q._qfx_calls is not None
    program = q._qfx_calls
    relus = [n for n, call in enumerate(program) if type(call.module).__name__ == "QuantReLU"]
    assert len(relus) == 3 and training._fused_relus(program) == set(relus)
    assert len(training._small_constants(program)) == 4
    seen: list[torch.Tensor] = []
    handle = program[relus[0]].module.register_forward_hook(lambda m, a, y: seen.append(y))
    q(images(4))
    assert len(seen) == 1 and float(seen[0].min()) == 0.0
    handle.remove()
    with torch.nn.modules.module.register_module_forward_hook(lambda m, a, y: seen.append(y)):
        q(images(4))
    assert len(seen) > len(program)


def test_less_is_kept_for_backward() -> None:
    """One byte per number with a frozen binary point, two with a learned one; x and y take eight."""
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    for frozen, size in ((True, 1), (False, 2)):
        q = Quantizer(FixedPoint(8), axis=1)
        q.set(3)
        if frozen:
            q.freeze()
        x = torch.randn(4, 1000, requires_grad=True)
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            q(x)
        assert sum(t.numel() * t.element_size() for t in kept if t.numel() >= 4000) == 4000 * size


def test_a_frozen_input_asks_for_no_gradient() -> None:
    q = net(Config(input=FixedPoint(8, 7))).train()
    seen: list[bool] = []
    q.get_submodule("stem.0").register_forward_pre_hook(lambda m, a: seen.append(a[0].requires_grad))
    x = images(4)
    q(x)
    assert seen == [False] and not x.requires_grad


def test_gradient_checkpointing() -> None:
    for reentrant in (False, True):
        results = []
        for recompute in (False, True):
            q = net().train()
            # Reentrant checkpoints want an input that has a gradient.
            x = images(8).requires_grad_(reentrant)
            y = checkpoint(q, x, use_reentrant=reentrant) if recompute else q(x)
            y.square().mean().backward()
            results.append([y.detach(), *(p.grad for p in q.parameters() if p.grad is not None)])
        assert len(results[0]) == len(results[1]) > 10
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_channels_last() -> None:
    """The memory format goes through casts, and the result is the same up to the order of sums."""
    q = net().train()
    seen: list[bool] = []
    for name, module in q.named_modules():
        if name.endswith(".output") and name != "fc.output":
            module.register_forward_hook(
                lambda m, a, y: seen.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    expected = q(images(8))
    seen.clear()
    q = q.to(memory_format=torch.channels_last)
    y = q(images(8).to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    assert len(seen) >= 4 and all(seen)
    y.square().mean().backward()


# -- without looking at the binary point ---------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(formats(), st.integers(-6, 9), st.integers(0, 1 << 16), st.booleans())
def test_the_way_for_other_devices(fmt: Format, frac: int, seed: int, channels: bool) -> None:
    """Torch operators that never read the binary point, as on a GPU: equal to the eager way in every bit."""
    q = Quantizer(fmt, 3 if channels else 1, axis=1)
    q.set([frac, frac + 2, frac - 1] if channels else frac, 1.0)
    x = numbers(fmt, (4, 3, 50), seed) * 2.0**-frac
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    results = []
    for cast in (eager, device.cast):
        leaf = x.clone().requires_grad_()
        q.shift.grad = None
        y = cast(q, leaf)
        y.backward(grad)
        assert leaf.grad is not None and q.shift.grad is not None
        results.append((y.detach(), leaf.grad, q.shift.grad))
    assert torch.equal(results[0][0].view(torch.int32), results[1][0].view(torch.int32))
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-5, atol=1e-12)


def test_nothing_is_read_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training step without item(), tolist() or bool() of a tensor: each of them waits for a GPU."""
    q = net().train()
    q(images(4))

    def refuse(self: torch.Tensor, *args: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(device, "wanted", lambda x: True)
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, refuse, raising=False)
    y = q(images(4))
    y.square().mean().backward()
    monkeypatch.undo()
    assert all(p.grad is not None for p in q.parameters() if p.requires_grad)


def test_compiled_whole() -> None:
    """torch.compile takes the whole model as one graph, and later positions need no new one."""
    q = net().train()
    torch._dynamo.reset()
    compiled = torch.compile(q, fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD(q.parameters(), lr=0.05)
    twin = net().train()
    twin_optimizer = torch.optim.SGD(twin.parameters(), lr=0.05)
    for seed in range(3):
        step(compiled, optimizer, seed)
        step(twin, twin_optimizer, seed)
    for (name, a), b in zip(q.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_traced_shapes() -> None:
    """The compiled operators say what they would give without computing it."""
    q = Quantizer(FixedPoint(8), 3, 1)
    q.set([1, 2, 3])
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    arguments = (x, q.start, q.shift, None, q.fused_arguments, False, False)
    torch.library.opcheck(torch.ops.qfx.cast_forward.default, (*(_detached(arguments)), 2))
    torch.library.opcheck(
        torch.ops.qfx.cast.default,
        arguments,
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_static"),
    )


def _detached(arguments: tuple[object, ...]) -> list[object]:
    return [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]


# -- building ------------------------------------------------------------------------------------------------


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


TRAIN = """
import torch, qfx
from qfx.nn import fused_build
q = qfx.prepare(torch.nn.Linear(4, 3), torch.zeros(1, 4))
qfx.calibrate(q, [torch.ones(2, 4)])
for _ in range(2):
    q.train()(torch.ones(2, 4)).sum().backward()
print(fused_build.status())
"""


def test_without_a_compiler_training_goes_on(tmp_path: Path) -> None:
    done = run_python(TRAIN, PATH=str(tmp_path), CXX="", QFX_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training uses plain torch operators") == 1
    assert "no C++ compiler" in done.stderr and "(False, 'there is no C++ compiler" in done.stdout


def test_a_compiler_that_fails_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "g++").write_text("#!/bin/sh\necho 'fused.cpp:1: error: no such luck' >&2\nexit 1\n")
    (tmp_path / "g++").chmod(0o755)
    done = run_python(TRAIN, CXX=str(tmp_path / "g++"), QFX_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no such luck") == 1


def test_it_can_be_switched_off() -> None:
    done = run_python(TRAIN, QFX_FUSED="0")
    assert done.returncode == 0 and done.stderr == "" and "switched off" in done.stdout


def test_before_calibration_the_message_is_the_same() -> None:
    q = qfx.prepare(Net(), images(2), FOUR_BITS).train()
    with pytest.raises(QfxError, match="calibrate"):
        q(images(2))
    q = net().train()
    with torch.no_grad():
        q.get_submodule("fc").weight_quantizer.shift.fill_(torch.nan)
    with pytest.raises(QfxError, match=r"fc: .*diverged"):
        q(images(2))
