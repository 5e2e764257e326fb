"""How each of the demo's networks is trained and built."""

from __future__ import annotations

from dataclasses import dataclass

from qfx.errors import QfxError


@dataclass(frozen=True)
class Recipe:
    """Settings of one run.

    Attributes:
        float_epochs, learned_epochs: passes over the training data, before and after quantization.
        batch_size: samples per step.
        float_rate, learned_rate: learning rates (AdamW, cosine schedule).
        calibration: training images that set the binary points at first.
        interval: target initiation interval of the RTL in cycles per frame.
        rtl_frames: test images that are simulated in RTL, each once without and once with stalls.
        weight_bits, activation_bits, input_bits: word lengths.
        seed: of weights and shuffling.
        threads: of torch while training; more than one slows steps as small as those of the 8x8 network.
    """

    float_epochs: int
    learned_epochs: int
    batch_size: int
    float_rate: float
    learned_rate: float
    calibration: int
    interval: int
    rtl_frames: int
    weight_bits: int = 4
    activation_bits: int = 4
    input_bits: int = 4
    seed: int = 2
    threads: int = 1


DIGITS = Recipe(
    float_epochs=20,
    learned_epochs=30,
    batch_size=64,
    float_rate=1e-2,
    learned_rate=2e-3,
    calibration=512,
    interval=1024,
    rtl_frames=64,
)

FASHION = Recipe(
    float_epochs=4,
    learned_epochs=6,
    batch_size=128,
    float_rate=4e-3,
    learned_rate=2e-3,
    calibration=1024,
    interval=28800,
    rtl_frames=100,
    threads=2,
)


def for_image_size(size: int) -> Recipe:
    """The recipe for square images of 8 or 28 pixels.

    Raises:
        QfxError: any other size.
    """
    if size not in (8, 28):
        raise QfxError(f"demo: images of {size}x{size} pixels; there are networks for 8x8 (digits) and 28x28")
    return DIGITS if size == 8 else FASHION
