// Convolution of codes as a product of matrices that is never written out. Plain C++, no torch.
//
// A place of the result sees one run of contiguous numbers per row of the kernel. A tile is PLACES places times some
// vectors of result channels; its sums stay in registers. Every product and sum is exact, whatever the order
// (compiled.py).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "program_kernels.h"

namespace qfx {
namespace {  // depends on the processor that this is compiled for

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, MOST_VECTORS = 2;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, MOST_VECTORS = 1;
#else
constexpr int VECTOR_BYTES = 16, MOST_VECTORS = 1;
#endif

template <typename T>
constexpr int LANES = VECTOR_BYTES / int(sizeof(T));

// Result channels are taken in groups: as many vectors as registers allow, then one.
template <typename T>
inline int64_t group_size(int64_t outputs_left) {
    return LANES<T> * (outputs_left > LANES<T> ? MOST_VECTORS : 1);
}

template <typename T>
inline int64_t padded_outputs(int64_t outputs) {
    int64_t size = 0;
    while (size < outputs) size += group_size<T>(outputs - size);
    return size;
}

// Weights (outputs, rows, run) as `convolve` reads them, (groups of outputs, rows, run, outputs of a group).
template <typename T>
void pack(const T* weights, T* packed, int64_t outputs, int64_t length) {
    for (int64_t first = 0; first < outputs;) {
        const int64_t group = group_size<T>(outputs - first);
        for (int64_t k = 0; k < length; k++)
            for (int64_t o = 0; o < group; o++)
                *packed++ = first + o < outputs ? weights[(first + o) * length + k] : T(0);
        first += group;
    }
}

template <typename T, int vectors>
inline void tile(const T* const* places, const T* weights, const T* bias, T* result, int64_t rows, int64_t run,
                 int64_t row_step) {
    typedef T Vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));
    Vector sums[PLACES][vectors];
#pragma GCC unroll 8
    for (int p = 0; p < PLACES; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sums[p][v] = reinterpret_cast<const Vector*>(bias)[v];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = r * row_step; k < r * row_step + run; k++) {
            Vector w[vectors];
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) w[v] = reinterpret_cast<const Vector*>(weights)[v];
            weights += vectors * LANES<T>;
#pragma GCC unroll 8
            for (int p = 0; p < PLACES; p++)
#pragma GCC unroll 2
                for (int v = 0; v < vectors; v++) sums[p][v] += w[v] * places[p][k];
        }
#pragma GCC unroll 8
    for (int p = 0; p < PLACES; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) reinterpret_cast<Vector*>(result)[p * vectors + v] = sums[p][v];
}

// Places begin..end-1 of the result. `bias` has padded_outputs numbers.
template <typename T>
inline void convolve_places(const T* x, T* y, const T* packed, const T* bias, const Convolution& c, int64_t begin,
                            int64_t end) {
    T result[PLACES * MOST_VECTORS * LANES<T>];
    for (int64_t first = 0; first < c.outputs;) {
        const int64_t group = group_size<T>(c.outputs - first), kept = std::min(group, c.outputs - first);
        int64_t column = begin % c.out_width;
        const T* line = x + begin / c.out_width * c.step_down;
        for (int64_t start = begin; start < end; start += PLACES) {
            const T* places[PLACES];
            for (int p = 0; p < PLACES; p++) {
                if (start + p >= end) {  // a tile that is not full computes its last place again
                    places[p] = places[p - 1];
                    continue;
                }
                places[p] = line + column * c.step_right;
                if (++column == c.out_width) column = 0, line += c.step_down;
            }
            if (group == LANES<T>)
                tile<T, 1>(places, packed, bias + first, result, c.rows, c.run, c.row_step);
            else
                tile<T, MOST_VECTORS>(places, packed, bias + first, result, c.rows, c.run, c.row_step);
            const int64_t full = std::min<int64_t>(PLACES, end - start);
            for (int64_t p = 0; p < full; p++)
                std::memcpy(y + (start + p) * c.outputs + first, result + p * group, sizeof(T) * kept);
        }
        packed += group * c.rows * c.run;
        first += group;
    }
}

}  // namespace
}  // namespace qfx
