#include "fused_kernels.h"

#include <cmath>
#include <cstring>

namespace qfx {
namespace {

// Twice the width of AVX2 where the processor has it; GCC would not choose it by itself.
#ifdef __AVX512F__
#define QFX_WIDE __attribute__((target("prefer-vector-width=512")))
#else
#define QFX_WIDE
#endif

constexpr float LARGEST_CODE = 32700.0f;

inline float clamped(float v, float low, float high) {  // NaN stays NaN
    v = v < low ? low : v;
    return v > high ? high : v;
}

template <int rounding, bool gaps>
inline float projected(float v, const Format& f) {
    if constexpr (!gaps) return clamped(rounded<rounding>(v), f.low, f.high);
    v = clamped(v, 4.0f * f.low, 4.0f * f.high);
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    bits &= 0x7F800000u;
    float power, step, inverse;
    std::memcpy(&power, &bits, 4);
    uint32_t scale = uint32_t(127 - f.mantissa) << 23;
    std::memcpy(&step, &scale, 4);
    step *= power;
    step = step < 1.0f ? 1.0f : step;
    uint32_t reciprocal;
    std::memcpy(&reciprocal, &step, 4);
    reciprocal = (254u << 23) - reciprocal;
    std::memcpy(&inverse, &reciprocal, 4);
    float significand = v * inverse;
    if constexpr (rounding == RND_CONV) {
        // Without mantissa bits the even code of two is that of the even exponent field.
        bool down = (f.mantissa == 0) & (std::fabs(significand) == 1.5f) & ((bits & 0x00800000u) == 0);
        significand = down ? std::copysign(1.0f, significand) : significand;
    }
    return clamped(rounded<rounding>(significand) * step, f.low, f.high);
}

template <int rounding, bool gaps, int save>
QFX_WIDE void cast(const float* __restrict x, float* __restrict y, void* __restrict codes, int64_t n, float scale,
          const Format format) {
    const float step = 1.0f / scale;
    const ErrorCodes e = error_codes(rounding);
    const float codes_per_step = 1.0f / e.per_code;
    const Format f = format;
    uint8_t* __restrict mask = static_cast<uint8_t*>(codes);
    int16_t* __restrict errors = static_cast<int16_t*>(codes);
    for (int64_t i = 0; i < n; i++) {
        const bool dead = x[i] <= f.floor;
        const float v = (dead ? f.floor : x[i]) * scale;
        const float c = projected<rounding, gaps>(v, f);
        y[i] = c * step;
        if constexpr (save == MASK) {
            int32_t pass = dead | (v <= f.pass_low) ? 0 : 1;
            mask[i] = uint8_t(v >= f.pass_high ? 0 : pass);
        }
        if constexpr (save == ERRORS) {
            // A float of this size has its integer part in its lowest bits, rounded as an integer would be.
            const float error = ((v - c) - e.centre) * codes_per_step + 12582912.0f;
            int32_t code;
            std::memcpy(&code, &error, 4);
            if constexpr (gaps) code = std::fabs(v) >= f.dense ? FAR : code;
            code = dead | (v <= f.pass_low) ? LOW : code;
            errors[i] = int16_t(v >= f.pass_high ? HIGH : code);
        }
    }
}

template <bool want_x, bool gaps>
QFX_WIDE double gradient(const float* __restrict grad, const int16_t* __restrict codes, float* __restrict grad_x,
                         int64_t n, float low, float high, float centre, float per_code) {
    // Short sums in single precision, their sum in double: as exact as can be told from float32 gradients.
    constexpr int64_t BLOCK = 1024;
    constexpr int LANES = 32;
    double total = 0.0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int64_t size = n - start < BLOCK ? n - start : BLOCK;
        const float* __restrict g = grad + start;
        const int16_t* __restrict c = codes + start;
        float* __restrict gx = grad_x + start;
        float sums[LANES] = {};
        auto one = [&](int64_t i, float& sum) {
            const int32_t code = c[i];
            const bool top = code == HIGH, bottom = code == LOW;
            float slope = float(code) * per_code + centre;
            if constexpr (gaps) slope = code == FAR ? 0.0f : slope;
            slope = top ? -high : slope;
            slope = bottom ? -low : slope;
            sum += g[i] * slope;
            if constexpr (want_x) gx[i] = top | bottom ? 0.0f : g[i];
        };
        int64_t i = 0;
        for (; i + LANES <= size; i += LANES)
            for (int lane = 0; lane < LANES; lane++) one(i + lane, sums[lane]);
        for (int lane = 0; i < size; i++, lane++) one(i, sums[lane]);
        double block = 0.0;
        for (float sum : sums) block += sum;
        total += block;
    }
    return total;
}

template <int rounding, bool gaps>
CastRow choose(int save) {
    if (save == NOTHING) return cast<rounding, gaps, NOTHING>;
    return save == MASK ? cast<rounding, gaps, MASK> : cast<rounding, gaps, ERRORS>;
}

template <bool gaps>
CastRow choose(int rounding, int save) {
    switch (rounding) {
        case TRN: return choose<TRN, gaps>(save);
        case TRN_ZERO: return choose<TRN_ZERO, gaps>(save);
        case RND: return choose<RND, gaps>(save);
        case RND_ZERO: return choose<RND_ZERO, gaps>(save);
        case RND_INF: return choose<RND_INF, gaps>(save);
        case RND_MIN_INF: return choose<RND_MIN_INF, gaps>(save);
        default: return choose<RND_CONV, gaps>(save);
    }
}

}  // namespace

ErrorCodes error_codes(int rounding) {
    if (rounding == TRN) return {0.25f, 0.75f / LARGEST_CODE};  // -1/2 (below the smallest number) to 1
    if (rounding == TRN_ZERO) return {0.0f, 1.0f / LARGEST_CODE};  // -1 to 1
    return {0.0f, 0.5f / LARGEST_CODE};                            // -1/2 to 1/2
}

CastRow cast_row(int rounding, bool gaps, int save) {
    return gaps ? choose<true>(rounding, save) : choose<false>(rounding, save);
}

QFX_WIDE void mask_row(const float* __restrict grad, const uint8_t* __restrict mask, float* __restrict grad_x,
                       int64_t n) {
    for (int64_t i = 0; i < n; i++) grad_x[i] = mask[i] ? grad[i] : 0.0f;
}

double errors_row(const float* grad, const int16_t* codes, float* grad_x, int64_t n, int rounding, bool gaps,
                  float low, float high) {
    const ErrorCodes e = error_codes(rounding);
    const auto row = grad_x ? (gaps ? gradient<true, true> : gradient<true, false>)
                            : (gaps ? gradient<false, true> : gradient<false, false>);
    return row(grad, codes, grad_x, n, low, high, e.centre, e.per_code);
}

}  // namespace qfx
