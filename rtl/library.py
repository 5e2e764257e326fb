"""The Verilog kernels as the generator sees them: ports, parameters, latency, step sequence
(docs/kernels.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qfx.rtl.design import Kernel

#: What a step does, as bits: takes a beat from input 0, from input 1, makes a beat; waits for a beat at
#: input 1 and leaves it there.
TAKE0, TAKE1, MAKE, PEEK1 = 1, 2, 4, 8


def clog2(n: int) -> int:
    """The smallest ``k`` with ``2**k >= n``."""
    return (n - 1).bit_length()


@dataclass(frozen=True)
class Module:
    """A kernel module.

    Attributes:
        name: of the module and of its file.
        parameters: all of them, in order.
        inputs: prefixes of the input streams' ports.
        latency: cycles from a step to its beat.
        steps: one period of the step sequence, ``uint8`` of :data:`TAKE0`, :data:`TAKE1`, :data:`MAKE`;
            ``None`` for the modules that the timing model treats by themselves (FIFO, fork, window, reorder).
    """

    name: str
    parameters: tuple[str, ...]
    inputs: tuple[str, ...] = ("s_axis",)
    latency: Callable[[Kernel], int] = lambda _: 1
    steps: Callable[[Kernel], np.ndarray] | None = None


def _sequence(*codes: int) -> np.ndarray:
    return np.array(codes, dtype=np.uint8)


def _every(_: Kernel) -> np.ndarray:
    return _sequence(TAKE0 | MAKE)


def _gather(count: int) -> np.ndarray:
    """``count`` beats in, one beat out with the last."""
    steps = np.full(count, TAKE0, dtype=np.uint8)
    steps[-1] |= MAKE
    return steps


def _matvec_steps(kernel: Kernel) -> np.ndarray:
    sf, nf = kernel.number("SF"), kernel.number("NF")
    steps = np.zeros((nf, sf), dtype=np.uint8)
    steps[0] |= TAKE0
    steps[:, -1] |= MAKE
    return steps.reshape(-1)


def dot_latency(kernel: Kernel, pairs: int) -> int:
    """Registers of ``qfx_dot`` for so many pairs, with the parameters of the kernel that holds it."""
    n = kernel.number
    rows = clog2(-(-pairs // 4))
    match n("KIND"):
        case 2:
            return int(n("FINE") > 1) + 1 + rows + clog2(n("DIGITS"))
        case 3:
            bits = n("A_WIDTH") - n("A_SIGNED") + n("W_WIDTH") - n("W_SIGNED")
            return 2 + int(bits > 6) + rows
        case 4:
            return 1 + clog2(-(-pairs // 3))
    return 1 + clog2(pairs)


def _matvec_latency(kernel: Kernel) -> int:
    simd, block = kernel.number("SIMD"), kernel.number("BLOCK")
    if not block:
        return 2 + dot_latency(kernel, simd)
    return 3 + dot_latency(kernel, block) + clog2(simd // block)


def _downsize_steps(kernel: Kernel) -> np.ndarray:
    steps = np.full(kernel.number("IN") // kernel.number("OUT"), MAKE, dtype=np.uint8)
    steps[0] |= TAKE0
    return steps


def _concat_steps(kernel: Kernel) -> np.ndarray:
    first = TAKE0 | MAKE | (PEEK1 if kernel.number("WAIT") else 0)
    return _sequence(*[first] * kernel.number("BEATS0"), *[TAKE1 | MAKE] * kernel.number("BEATS1"))


def _slice_steps(kernel: Kernel) -> np.ndarray:
    hits = []
    for axis in "ABC":
        start, step, count = (kernel.number(f"{axis}_{what}") for what in ("START", "STEP", "COUNT"))
        hit = np.zeros(kernel.number(axis), dtype=bool)
        hit[start : start + step * count : step] = True
        hits.append(hit)
    wanted = hits[0][:, None, None] & hits[1][:, None] & hits[2]
    return np.where(wanted.reshape(-1), TAKE0 | MAKE, TAKE0).astype(np.uint8)


def _repeat_steps(kernel: Kernel) -> np.ndarray:
    steps = np.full((kernel.number("TIMES"), kernel.number("BLOCK")), MAKE, dtype=np.uint8)
    steps[0] |= TAKE0
    return steps.reshape(-1)


def _insert_zeros_steps(kernel: Kernel) -> np.ndarray:
    n = kernel.number
    size = [(n(f"IN_{axis}") - 1) * n(f"FACTOR_{axis}") + 1 for axis in "HW"]
    steps = np.full((*size, n("BEATS")), MAKE, dtype=np.uint8)
    steps[:: n("FACTOR_H"), :: n("FACTOR_W")] |= TAKE0
    return steps.reshape(-1)


def _reduce_steps(kernel: Kernel) -> np.ndarray:
    steps = np.full((kernel.number("N"), kernel.number("INNER")), TAKE0, dtype=np.uint8)
    steps[-1] |= MAKE
    return steps.reshape(-1)


def matmul_load(kernel: Kernel) -> int:
    """Beats of a matrix, the second operand of ``qfx_matmul``."""
    n = kernel.number
    return n("SF") * n("NF") * (n("SIMD") if n("B_LAYOUT") else n("PE"))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_MODULES = (
    Module("qfx_fifo", _words("WIDTH DEPTH STYLE")),
    Module("qfx_fork", _words("WIDTH N"), latency=lambda _: 0),
    Module("qfx_upsize", _words("WIDTH IN OUT"), steps=lambda k: _gather(k.number("OUT") // k.number("IN"))),
    Module("qfx_downsize", _words("WIDTH IN OUT"), steps=_downsize_steps),
    Module(
        "qfx_window",
        _words(
            "WIDTH BEATS GROUPS IN_H IN_W OUT_H OUT_W KERNEL_H KERNEL_W STRIDE_H STRIDE_W DILATION_H "
            "DILATION_W PAD_TOP PAD_LEFT PAD_VALUE DEPTH RAM_STYLE"
        ),
    ),
    Module(
        "qfx_matvec",
        _words(
            "SIMD PE SF NF GROUPS A_WIDTH A_SIGNED W_WIDTH W_SIGNED ACC_WIDTH SHIFT HAS_BIAS "
            "KIND DIGITS FINE PLACES ZERO A_EXP W_EXP BLOCK HOLD SCALE_WIDTH WEIGHT_FILE BIAS_FILE "
            "SCALES_FILE RAM_STYLE ROM_STYLE"
        ),
        latency=_matvec_latency,
        steps=_matvec_steps,
    ),
    Module(
        "qfx_matvec_stream",
        _words(
            "SIMD PE SF NF GROUPS A_WIDTH A_SIGNED W_WIDTH W_SIGNED ACC_WIDTH SHIFT HAS_BIAS "
            "KIND DIGITS FINE PLACES ZERO A_EXP W_EXP BLOCK HOLD SCALE_WIDTH BIAS_FILE SCALES_FILE RAM_STYLE"
        ),
        inputs=("s0_axis", "s1_axis"),
        latency=_matvec_latency,
        # As if weights were always there: a port outside the design brings them.
        steps=_matvec_steps,
    ),
    Module(
        "qfx_depthwise",
        _words(
            "P K GROUPS A_WIDTH A_SIGNED W_WIDTH W_SIGNED ACC_WIDTH SHIFT HAS_BIAS "
            "KIND DIGITS FINE PLACES ZERO A_EXP W_EXP WEIGHT_FILE BIAS_FILE ROM_STYLE"
        ),
        latency=lambda k: 2 + dot_latency(k, 1),
        steps=lambda k: _gather(k.number("K")),
    ),
    Module(
        "qfx_affine",
        _words(
            "P BEATS IN_WIDTH IN_SIGNED SCALE_WIDTH SCALE_SIGNED OUT_WIDTH SHIFT HAS_OFFSET "
            "KIND DIGITS FINE PLACES ZERO SCALE_FILE OFFSET_FILE ROM_STYLE"
        ),
        latency=lambda k: 2 + dot_latency(k, 1),
        steps=_every,
    ),
    Module(
        "qfx_pool",
        _words("P K MODE IN_WIDTH IN_SIGNED OUT_WIDTH SCALE_WIDTH SCALE"),
        latency=lambda k: 2 if k.number("MODE") == 1 and k.number("SCALE") != 1 else 1,
        steps=lambda k: _gather(k.number("K")),
    ),
    Module(
        "qfx_cast_stream",
        _words(
            "P IN_WIDTH IN_SIGNED SHIFT OUT_WIDTH OUT_SIGNED ROUNDING OVERFLOW PER_CHANNEL BEATS "
            "ALIGN_MAX ALIGN_FILE"
        ),
        latency=lambda k: 1 + k.number("PER_CHANNEL"),
        steps=_every,
    ),
    Module(
        "qfx_cast_minifloat",
        _words("P IN_WIDTH IN_SIGNED SHIFT PRECISION OUT_WIDTH OUT_SIGNED ROUNDING SATURATE LIMIT"),
        latency=lambda _: 3,
        steps=_every,
    ),
    Module(
        "qfx_cast_khot",
        _words("P IN_WIDTH IN_SIGNED SHIFT K CSD OUT_WIDTH OUT_SIGNED SATURATE LIMIT"),
        latency=lambda k: k.number("K") + (5 if k.number("CSD") else 2),
        steps=_every,
    ),
    Module(
        "qfx_cast_block",
        _words("P IN_WIDTH IN_SIGNED SIZE TOP PRECISION OUT_WIDTH OUT_SIGNED ROUNDING SATURATE LARGEST"),
        latency=lambda _: 5,
        steps=_every,
    ),
    Module("qfx_encode_minifloat", _words("P IN_WIDTH IN_SIGNED EXP MAN"), latency=lambda _: 2, steps=_every),
    Module("qfx_decode_float", _words("P EXP MAN SIGNED OUT_WIDTH"), latency=lambda _: 2, steps=_every),
    Module("qfx_encode_binary", _words("P IN_WIDTH"), steps=_every),
    Module("qfx_cast_binary", _words("P IN_WIDTH IN_SIGNED OUT_WIDTH"), steps=_every),
    Module("qfx_relu", _words("P IN_WIDTH IN_SIGNED OUT_WIDTH"), steps=_every),
    Module(
        "qfx_leaky_relu",
        _words("P IN_WIDTH IN_SIGNED OUT_WIDTH SLOPE_FRAC SLOPE_WIDTH SLOPE"),
        steps=_every,
    ),
    Module(
        "qfx_clip",
        _words(
            "P IN_WIDTH IN_SIGNED OUT_WIDTH SHIFT BOUND_WIDTH HAS_LOW LOW HAS_HIGH HIGH PER_CHANNEL "
            "BEATS LOW_FILE HIGH_FILE"
        ),
        steps=_every,
    ),
    Module(
        "qfx_binary",
        _words("P WIDTH0 SIGNED0 SHIFT0 WIDTH1 SIGNED1 SHIFT1 MODE OUT_WIDTH"),
        inputs=("s0_axis", "s1_axis"),
        latency=lambda k: 2 if k.number("MODE") == 2 else 1,
        steps=lambda _: _sequence(TAKE0 | TAKE1 | MAKE),
    ),
    Module(
        "qfx_concat", _words("WIDTH BEATS0 BEATS1 WAIT"), inputs=("s0_axis", "s1_axis"), steps=_concat_steps
    ),
    Module("qfx_reorder", _words("WIDTH LENGTH ADDRESS_FILE RAM_STYLE")),
    Module(
        "qfx_table",
        _words("P IN_WIDTH IN_SIGNED PRECISION FIRST DEPTH OUT_WIDTH TABLE_FILE ROM_STYLE"),
        latency=lambda k: 3 if k.number("PRECISION") else 2,
        steps=_every,
    ),
    Module(
        "qfx_piecewise",
        _words(
            "P IN_WIDTH IN_SIGNED FIRST SHIFT SEGMENTS DEGREE C_WIDTH LEFT0 LEFT1 LEFT2 OUT_WIDTH "
            "COEFFICIENT_FILE ROM_STYLE"
        ),
        latency=lambda _: 4,
        steps=_every,
    ),
    Module(
        "qfx_inverse_root",
        _words(
            "P IN_WIDTH IN_SIGNED WIDE OFFSET LEAST ROOT PARITY TOP BITS SHIFT SEGMENTS DEGREE C_WIDTH "
            "GUARD OUT_WIDTH COEFFICIENT_FILE ROM_STYLE"
        ),
        latency=lambda _: 7,
        steps=_every,
    ),
    Module(
        "qfx_slice",
        _words("WIDTH A A_START A_STEP A_COUNT B B_START B_STEP B_COUNT C C_START C_STEP C_COUNT"),
        steps=_slice_steps,
    ),
    Module("qfx_repeat", _words("P WIDTH SPREAD BLOCK TIMES RAM_STYLE"), steps=_repeat_steps),
    Module(
        "qfx_insert_zeros",
        _words("WIDTH IN_H IN_W BEATS FACTOR_H FACTOR_W"),
        steps=_insert_zeros_steps,
    ),
    Module(
        "qfx_reduce",
        _words("P SIMD N INNER MODE IN_WIDTH IN_SIGNED OUT_WIDTH RAM_STYLE"),
        latency=lambda k: 2 + clog2(k.number("SIMD")),
        steps=_reduce_steps,
    ),
    Module(
        "qfx_constant",
        _words("WIDTH BEATS DATA_FILE ROM_STYLE"),
        inputs=(),
        steps=lambda _: _sequence(MAKE),
    ),
    Module(
        "qfx_gather",
        _words("IN_WIDTH IN_SIGNED ROWS BEATS P WIDTH TABLE_FILE ROM_STYLE"),
        latency=lambda _: 2,
        steps=lambda k: _sequence(TAKE0 | MAKE, *[MAKE] * (k.number("BEATS") - 1)),
    ),
    Module(
        "qfx_matmul",
        _words("SIMD PE SF NF ROWS B_LAYOUT A_WIDTH A_SIGNED B_WIDTH B_SIGNED OUT_WIDTH RAM_STYLE"),
        inputs=("s0_axis", "s1_axis"),
        latency=lambda k: 3 + clog2(k.number("SIMD")),
        steps=lambda k: np.tile(_matvec_steps(k), k.number("ROWS")),
    ),
)

MODULES: dict[str, Module] = {module.name: module for module in _MODULES}

#: What a module is that was written for one instance: a beat in and a beat out in every cycle.
GENERATED = Module("", (), latency=lambda k: k.latency, steps=_every)


def latency(kernel: Kernel) -> int:
    """Cycles from a step to its beat on the output (with ``en`` high)."""
    return MODULES.get(kernel.module, GENERATED).latency(kernel)


def steps(kernel: Kernel) -> np.ndarray:
    """One period of the step sequence of a kernel that has one."""
    sequence = MODULES.get(kernel.module, GENERATED).steps
    assert sequence is not None, kernel.module
    return sequence(kernel)


# -- qfx_window ----------------------------------------------------------------------------------------------


def window_span(kernel: Kernel) -> int:
    """The smallest buffer, in beats, with which a window kernel makes progress and gives nothing of a frame
    before the frame's first beat is in.
    """
    n = kernel.number
    rows, columns = (n("KERNEL_H") - 1) * n("DILATION_H"), (n("KERNEL_W") - 1) * n("DILATION_W")
    padding = n("PAD_TOP") * n("IN_W") + n("PAD_LEFT")
    return max((rows * n("IN_W") + columns + 1) * n("BEATS"), padding * n("BEATS") + 1)


def window_usual_depth(kernel: Kernel) -> int:
    """A buffer with room for the whole next window, wherever it is, while the reader is in the present one.

    The longest way is from the end of a row to the next, or from the end of a frame to the next. This is
    enough where the input comes about as fast as the windows move on; :func:`window_full_depth` always is.
    """
    return window_span(kernel) + int(window_advances(kernel).max())


def window_full_depth(kernel: Kernel) -> int:
    """A buffer with room for a whole frame ahead of the window: the reader never waits for a writer that was
    held up before.
    """
    return window_span(kernel) + kernel.number("IN_H") * kernel.number("IN_W") * kernel.number("BEATS")


def window_advances(kernel: Kernel) -> np.ndarray:
    """By how many beats the window's first beat moves on after each output pixel of a frame: int64
    ``(OUT_H * OUT_W,)``.
    """
    n = kernel.number
    beats, in_h, in_w = n("BEATS"), n("IN_H"), n("IN_W")
    last_x = min(n("OUT_W") - 1, (in_w - 1 + n("PAD_LEFT")) // n("STRIDE_W"))
    last_y = min(n("OUT_H") - 1, (in_h - 1 + n("PAD_TOP")) // n("STRIDE_H"))
    y = np.minimum(np.arange(n("OUT_H")), last_y)[:, None] * n("STRIDE_H") * in_w
    x = np.minimum(np.arange(n("OUT_W")), last_x)[None, :] * n("STRIDE_W")
    base = ((y + x) * beats).reshape(-1)
    return np.asarray(np.append(base[1:], in_h * in_w * beats + base[0]) - base)


def window_sequence(kernel: Kernel) -> tuple[np.ndarray, np.ndarray, int]:
    """The reader's steps of one frame.

    Returns:
        need: int64 per step; the step's condition is ``fill > need``;
        drop: int64 per step; by how much ``fill`` falls when it fires;
        fill0: ``fill`` after reset.
    """
    n = kernel.number
    beats, groups, in_h, in_w = n("BEATS"), n("GROUPS"), n("IN_H"), n("IN_W")
    group_beats = beats // groups
    fill0 = (n("PAD_TOP") * in_w + n("PAD_LEFT")) * beats
    oy, ox, g, ky, kx, b = np.ix_(
        *(
            np.arange(size)
            for size in (n("OUT_H"), n("OUT_W"), groups, n("KERNEL_H"), n("KERNEL_W"), group_beats)
        )
    )
    iy = oy * n("STRIDE_H") - n("PAD_TOP") + ky * n("DILATION_H")
    ix = ox * n("STRIDE_W") - n("PAD_LEFT") + kx * n("DILATION_W")
    inside = (iy >= 0) & (iy < in_h) & (ix >= 0) & (ix < in_w)
    off = (ky * n("DILATION_H") * in_w + kx * n("DILATION_W")) * beats + g * group_beats + b
    never_waits = np.int64(-(1 << 62))
    need = np.where(inside, off, never_waits).astype(np.int64)
    need = np.array(np.broadcast_to(need, np.broadcast_shapes(inside.shape, off.shape))).reshape(-1)
    need[0] = max(int(need[0]), min(fill0 + 1, n("DEPTH")) - 1)

    advances = window_advances(kernel)
    drop = np.zeros(need.shape, dtype=np.int64)
    per_pixel = need.size // advances.size
    drop[per_pixel - 1 :: per_pixel] = advances
    return need, drop, fill0
