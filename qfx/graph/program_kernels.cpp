#include "program_kernels.h"

#include <algorithm>
#include <utility>

#include "convolution.h"
#include "rounding.h"

namespace qfx {
namespace {

// Twice the width of AVX2 where the processor has it; GCC would not choose it by itself.
#ifdef __AVX512F__
#define QFX_WIDE __attribute__((target("prefer-vector-width=512")))
#else
#define QFX_WIDE
#endif

template <typename T>
inline T clamped(T v, T low, T high) {
    v = v < low ? low : v;
    return v > high ? high : v;
}

template <int kind, int rounding, typename T>
inline T one(T a, T b, T fa, T fb, T offset, T inner_low, T inner_high, T low, T high) {
    T v = a;
    if constexpr (kind == SCALE) v = a * fa + offset;
    if constexpr (kind == SUM) v = a * fa + b * fb;
    if constexpr (kind == PRODUCT) v = a * b * fa;
    if constexpr (kind == LEAKY) v = a * (a >= T(0) ? fa : fb);
    if constexpr (kind == CAST_SUM) v = clamped(rounded<RND_CONV>(a), inner_low, inner_high) * fa + b * fb;
    return clamped(rounded<rounding>(v), low, high);
}

template <typename T, int kind, int rounding>
QFX_WIDE void pointwise_loop(const T* a, const T* b, T* y, int64_t n, Parameters<T> p) {
    if constexpr (kind != SUM && kind != PRODUCT && kind != CAST_SUM) b = a;
    if (p.period == 1) {
        const T fa = *p.fa, fb = *p.fb, offset = *p.offset, inner_low = *p.inner_low, inner_high = *p.inner_high,
                low = *p.low, high = *p.high;
#pragma GCC ivdep
        for (int64_t i = 0; i < n; i++)
            y[i] = one<kind, rounding>(a[i], b[i], fa, fb, offset, inner_low, inner_high, low, high);
        return;
    }
    for (int64_t start = 0; start < n; start += p.period) {
        const int64_t size = std::min(p.period, n - start);
        const T *from = a + start, *other = b + start;
        T* to = y + start;
#pragma GCC ivdep
        for (int64_t i = 0; i < size; i++)
            to[i] = one<kind, rounding>(from[i], other[i], p.fa[i], p.fb[i], p.offset[i], p.inner_low[i],
                                        p.inner_high[i], p.low[i], p.high[i]);
    }
}

template <typename T, int kind, int... roundings>
Pointwise<T> of_kind(int rounding, std::integer_sequence<int, roundings...>) {
    static constexpr Pointwise<T> TABLE[] = {pointwise_loop<T, kind, roundings>...};
    return TABLE[rounding];
}

template <typename T, int... kinds>
Pointwise<T> choose(int kind, int rounding, std::integer_sequence<int, kinds...>) {
    Pointwise<T> found = nullptr;
    constexpr auto roundings = std::make_integer_sequence<int, AS_IT_IS + 1>();
    ((kinds == kind ? void(found = of_kind<T, kinds>(rounding, roundings)) : void()), ...);
    return found;
}

template <bool maximum, typename T>
QFX_WIDE void pool(const T* x, T* y, Window w) {
    for (int64_t row = 0; row < w.out_height; row++) {
        const int64_t top = row * w.stride_height - w.top;
        const int64_t first_row = std::max<int64_t>(0, top), last_row = std::min(w.height, top + w.kernel_height);
        for (int64_t column = 0; column < w.out_width; column++) {
            const int64_t left = column * w.stride_width - w.left;
            const int64_t first = std::max<int64_t>(0, left), last = std::min(w.width, left + w.kernel_width);
            T* __restrict to = y + (row * w.out_width + column) * w.channels;
            bool started = false;
            for (int64_t r = first_row; r < last_row; r++)
                for (int64_t c = first; c < last; c++) {
                    const T* __restrict from = x + (r * w.width + c) * w.channels;
                    if (!started)
                        for (int64_t i = 0; i < w.channels; i++) to[i] = from[i];
                    else if constexpr (maximum)
                        for (int64_t i = 0; i < w.channels; i++) to[i] = to[i] < from[i] ? from[i] : to[i];
                    else
                        for (int64_t i = 0; i < w.channels; i++) to[i] += from[i];
                    started = true;
                }
            // A window that lies in the padding: a sum of nothing. Maxima have none (docs/graph.md).
            if (!started) std::fill(to, to + w.channels, T(0));
        }
    }
}

template <int rounding, typename X>
QFX_WIDE bool encode_row(const X* __restrict x, X* __restrict codes, int64_t n, X scale, X low, X high) {
    int32_t nan = 0;
    for (int64_t i = 0; i < n; i++) {
        nan |= x[i] != x[i];
        // Infinities and numbers far out come near enough for rounding to be exact, and stay out of range.
        codes[i] = clamped(rounded<rounding>(clamped(x[i] * scale, low - X(1), high + X(1))), low, high);
    }
    return nan == 0;
}

template <typename X>
bool encode_row(int rounding, const X* x, X* codes, int64_t n, X scale, X low, X high) {
    switch (rounding) {
        case RND: return encode_row<RND>(x, codes, n, scale, low, high);
        case RND_ZERO: return encode_row<RND_ZERO>(x, codes, n, scale, low, high);
        case RND_INF: return encode_row<RND_INF>(x, codes, n, scale, low, high);
        case RND_MIN_INF: return encode_row<RND_MIN_INF>(x, codes, n, scale, low, high);
        default: return encode_row<RND_CONV>(x, codes, n, scale, low, high);
    }
}

}  // namespace

template <typename T>
Pointwise<T> pointwise(int kind, int rounding) {
    if (kind < 0 || kind >= KINDS || rounding < 0 || rounding > AS_IT_IS) return nullptr;
    return choose<T>(kind, rounding, std::make_integer_sequence<int, KINDS>());
}

template <typename T>
void pad(const T* x, T* padded, Image m) {
    const int64_t line = m.width * m.channels, padded_line = m.padded_width * m.channels;
    const int64_t before = m.left * m.channels, after = padded_line - before - line;
    std::fill(padded, padded + m.top * padded_line, T(0));
    for (int64_t row = 0; row < m.height; row++) {
        T* to = padded + (m.top + row) * padded_line;
        std::fill(to, to + before, T(0));
        std::copy(x + row * line, x + (row + 1) * line, to + before);
        std::fill(to + before + line, to + before + line + after, T(0));
    }
    std::fill(padded + (m.top + m.height) * padded_line, padded + m.padded_height * padded_line, T(0));
}

template <typename T>
QFX_WIDE void convolve(const T* x, T* y, const T* packed, const T* bias, Convolution convolution, int64_t begin,
                       int64_t end) {
    convolve_places(x, y, packed, bias, convolution, begin, end);
}

template <typename T>
int64_t packed_outputs(int64_t outputs) {
    return padded_outputs<T>(outputs);
}

template <typename T>
void pack_weights(const T* weights, T* packed, int64_t outputs, int64_t length) {
    pack(weights, packed, outputs, length);
}

template <typename T>
void max_pool(const T* x, T* y, Window window) {
    pool<true>(x, y, window);
}

template <typename T>
void sum_pool(const T* x, T* y, Window window) {
    pool<false>(x, y, window);
}

template <typename X, typename T>
bool encode(const X* x, T* codes, int64_t n, int64_t stride, X scale, X low, X high, int rounding, X* scratch) {
    const bool good = encode_row(rounding, x, scratch, n, scale, low, high);
    if (stride == 1)
        std::copy(scratch, scratch + n, codes);
    else
        for (int64_t i = 0; i < n; i++) codes[i * stride] = T(scratch[i]);
    return good;
}

template <typename T>
void decode(const T* codes, double* values, int64_t n, int64_t stride, double scale) {
    for (int64_t i = 0; i < n; i++) values[i] = double(codes[i * stride]) * scale + 0.0;
}

#define QFX_KERNELS(T)                                                                          \
    template Pointwise<T> pointwise<T>(int, int);                                               \
    template void pad<T>(const T*, T*, Image);                                                  \
    template void convolve<T>(const T*, T*, const T*, const T*, Convolution, int64_t, int64_t); \
    template void pack_weights<T>(const T*, T*, int64_t, int64_t);                              \
    template int64_t packed_outputs<T>(int64_t);                                                \
    template void max_pool<T>(const T*, T*, Window);                                            \
    template void sum_pool<T>(const T*, T*, Window);                                            \
    template void decode<T>(const T*, double*, int64_t, int64_t, double);
QFX_KERNELS(float)
QFX_KERNELS(double)

#define QFX_ENCODE(X, T) \
    template bool encode<X, T>(const X*, T*, int64_t, int64_t, X, X, X, int, X*);
QFX_ENCODE(float, float)
QFX_ENCODE(float, double)
QFX_ENCODE(double, float)
QFX_ENCODE(double, double)

}  // namespace qfx
