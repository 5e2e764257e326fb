// The loops of a compiled plan (program.cpp) on codes in float or double. Plain C++, no torch.
//
// Tensors lie in memory as rows of channels: (samples, height, width, channels), or (samples, features). All numbers
// on the way are integers times powers of two that the type holds exactly (qfx/graph/compiled.py has the proof
// obligation), so that neither the order of operations nor a fused multiply-add changes a bit.
#pragma once

#include <cstdint>

namespace qfx {

// What `pointwise` computes before it rounds and clamps.
enum Kind : int {
    KEEP,      // a
    SCALE,     // a * fa + offset
    SUM,       // a * fa + b * fb
    PRODUCT,   // a * b * fa
    LEAKY,     // a * fa where a >= 0, a * fb elsewhere
    CAST_SUM,  // (a rounded to nearest even, clamped to inner_low..inner_high) * fa + b * fb
    KINDS,
};

// One number per place of a row of `period` numbers, or one for all where period is 1.
template <typename T>
struct Parameters {
    const T *fa, *fb, *offset, *inner_low, *inner_high, *low, *high;
    int64_t period;
};

// y = clamp(round(expression)); `n` numbers from place 0 of the period on. y may be a or b.
template <typename T>
using Pointwise = void (*)(const T* a, const T* b, T* y, int64_t n, Parameters<T> parameters);
template <typename T>
Pointwise<T> pointwise(int kind, int rounding);

// One sample of a convolution: `x` (height, width, channels) is padded by copying it to `scratch`, if need be.
struct Image {
    int64_t channels, height, width, top, left, padded_height, padded_width;
};
template <typename T>
void pad(const T* x, T* padded, Image image);

// A convolution of a padded sample. A place of the result sees `rows` runs of `run` contiguous numbers each,
// `row_step` apart; the next place to the right sees numbers `step_right` further, the one below `step_down` further.
struct Convolution {
    int64_t outputs, rows, run, row_step, out_width, step_down, step_right;
};
constexpr int64_t PLACES = 8;  // computed together

// Places begin..end-1 of the result of one sample. Weights are those of `pack_weights`; there is a bias for each of
// `packed_outputs`.
template <typename T>
void convolve(const T* x, T* y, const T* packed, const T* bias, Convolution convolution, int64_t begin, int64_t end);

// Weights (outputs, length) as `convolve` reads them: packed_outputs(outputs) * length numbers.
template <typename T>
void pack_weights(const T* weights, T* packed, int64_t outputs, int64_t length);
template <typename T>
int64_t packed_outputs(int64_t outputs);

struct Window {
    int64_t channels, height, width, out_height, out_width;
    int64_t kernel_height, kernel_width, stride_height, stride_width, top, left;  // top, left: the padding
};

// The largest number, or the sum, of each window of one sample; padding counts as nothing.
template <typename T>
void max_pool(const T* x, T* y, Window window);
template <typename T>
void sum_pool(const T* x, T* y, Window window);

// Codes of real numbers: one channel of one sample, to places `stride` apart. False when there is a NaN.
// `scratch` holds `n` numbers of the type of x.
template <typename X, typename T>
bool encode(const X* x, T* codes, int64_t n, int64_t stride, X scale, X low, X high, int rounding, X* scratch);

// One channel of one sample times `scale`, from places `stride` apart; no negative zeros.
template <typename T>
void decode(const T* codes, double* values, int64_t n, int64_t stride, double scale);

}  // namespace qfx
