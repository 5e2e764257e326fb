// The cast of a row of numbers in one pass, and its gradient in another. Plain C++, no torch.
//
// Forward: y = clamp(round(x * scale)) * step with scale = 2**frac, step = 2**-frac, as Format.round_scaled and
// FakeQuantize (qfx/nn/functional.py) compute it; every product is exact, so that results are equal on every bit.
//
// What backward needs is one short code per number instead of x and y: how it was clipped, or the rounding error
// x - y in units of the step, to 1/65400 of its range. That is as fine as float32 itself resolves numbers at the
// top of an 8-bit range, and the sum of the errors in which it ends is good to about 1e-5 (docs/training.md).
#pragma once

#include <cstdint>

#include "../graph/rounding.h"

namespace qfx {

// Codes of backward that are no rounding errors, which stay within -32700 to 32700.
constexpr int16_t HIGH = 32767;  // clipped to the largest number
constexpr int16_t LOW = -32768;  // clipped to the smallest number, or not positive in front of a fused ReLU
constexpr int16_t FAR = -32767;  // between numbers that lie apart: passes the gradient, tells nothing of the point

enum Save : int { NOTHING, MASK, ERRORS };

// Everything about a format but its binary point; numbers are in units of 2**-frac.
struct Format {
    float low, high;            // the smallest and the largest number
    float pass_low, pass_high;  // between these numbers are rounded, beyond they are clipped
    float dense;                // below this all integers are numbers of the format
    int mantissa;               // stored bits of the significand; -1: all integers are numbers of the format
    float floor;                // 0: a ReLU in front of the cast; -infinity: none
};

// How a rounding error x - y in units of the step is written down: `code * per_code + centre`.
struct ErrorCodes {
    float centre, per_code;
};
ErrorCodes error_codes(int rounding);

// Casts `n` numbers: y, and what backward needs (uint8_t for MASK, int16_t for ERRORS, not touched for NOTHING).
using CastRow = void (*)(const float* x, float* y, void* codes, int64_t n, float scale, Format format);
CastRow cast_row(int rounding, bool gaps, int save);

// The gradient of x under a mask.
void mask_row(const float* grad, const uint8_t* mask, float* grad_x, int64_t n);

// The gradient of x (where grad_x is not null), and the sum of grad times the derivative of y by the binary point, in
// units of ln2 * step. `high` and `low` are what numbers were clipped to: behind a fused ReLU, low is 0.
double errors_row(const float* grad, const int16_t* codes, float* grad_x, int64_t n, int rounding, bool gaps,
                  float low, float high);

}  // namespace qfx
