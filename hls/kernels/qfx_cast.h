#ifndef QFX_CAST_H_
#define QFX_CAST_H_

// Words of fixed-point types as integers ("codes"), and the cast of docs/graph.md on codes.
//
// A binary point per channel cannot be expressed by a C++ type, and the vendor library has no type for every overflow mode. The kernels
// of QFX therefore compute on codes, where a cast is a shift by a constant of the channel, rounding, and overflow handling.

#include "ap_fixed.h"
#include "ap_int.h"

namespace qfx {

// The order is that of the tables in docs/graph.md.
enum rounding_mode { TRN, TRN_ZERO, RND, RND_ZERO, RND_INF, RND_MIN_INF, RND_CONV };
enum overflow_mode { SAT, SAT_ZERO, SAT_SYM, WRAP, WRAP_SM };

template <class T> struct word;

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct word<ap_fixed<W, I, Q, O, N>> {
    static const int width = W;
    static const bool is_signed = true;
    typedef ap_int<W> code_t;
};

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct word<ap_ufixed<W, I, Q, O, N>> {
    static const int width = W;
    static const bool is_signed = false;
    typedef ap_uint<W> code_t;
};

// The bits of a fixed-point value, read as an integer.
template <class T> typename word<T>::code_t code_of(const T &value) {
    #pragma HLS INLINE
    ap_uint<word<T>::width> bits = value.range(word<T>::width - 1, 0);
    return typename word<T>::code_t(bits);
}

// The fixed-point value with the given bits.
template <class T> T from_bits(const ap_uint<word<T>::width> &bits) {
    #pragma HLS INLINE
    T value;
    value.range(word<T>::width - 1, 0) = bits;
    return value;
}

// CONFIG_T: rounding, overflow, max_left (largest left shift that occurs, as a non-negative number).
// shift: bits to drop (positive) or to append (negative).
template <class res_T, class CONFIG_T, int N> res_T cast_code(const ap_int<N> &code, int shift) {
    #pragma HLS INLINE
    static const int W = word<res_T>::width;
    // Shifts are at most N + 1, so that N + 2 bits hold the remainder; and there must be a bit W, which WRAP_SM looks at.
    static const int SHIFTED = N + CONFIG_T::max_left + 2;
    static const int WIDE = SHIFTED > W + 2 ? SHIFTED : W + 2;
    typedef ap_int<WIDE> wide_t;

    wide_t floor, rounded;
    if (shift <= 0) {
        floor = wide_t(code) << (-shift);
        rounded = floor;
    } else {
        floor = wide_t(code) >> shift;
        wide_t rest = wide_t(code) - (floor << shift);
        wide_t half = wide_t(1) << (shift - 1);
        bool above = rest > half;
        bool tie = rest == half;
        bool negative = code < 0;
        bool up = false;
        switch (CONFIG_T::rounding) {
        case TRN:
            break;
        case TRN_ZERO:
            up = negative && rest != 0;
            break;
        case RND:
            up = above || tie;
            break;
        case RND_ZERO:
            up = above || (tie && negative);
            break;
        case RND_INF:
            up = above || (tie && !negative);
            break;
        case RND_MIN_INF:
            up = above;
            break;
        case RND_CONV:
            up = above || (tie && bool(floor[0]));
            break;
        }
        rounded = up ? wide_t(floor + 1) : floor;
    }

    const wide_t top = word<res_T>::is_signed ? wide_t((wide_t(1) << (W - 1)) - 1) : wide_t((wide_t(1) << W) - 1);
    const wide_t lowest = word<res_T>::is_signed ? wide_t(-top - 1) : wide_t(0);
    const wide_t bottom = (word<res_T>::is_signed && CONFIG_T::overflow == SAT_SYM) ? wide_t(-top) : lowest;
    wide_t kept = rounded;
    switch (CONFIG_T::overflow) {
    case SAT:
    case SAT_SYM:
        if (rounded > top)
            kept = top;
        else if (rounded < bottom)
            kept = bottom;
        break;
    case SAT_ZERO:
        if (rounded > top || rounded < lowest)
            kept = 0;
        break;
    case WRAP: // the low bits, below
        break;
    case WRAP_SM:
        if (rounded > top || rounded < lowest) {
            bool deleted = floor[W];
            if (deleted != bool(rounded[W - 1])) {
                kept = ~rounded;
                kept[W - 1] = deleted;
            }
        }
        break;
    }
    return from_bits<res_T>(ap_uint<W>(kept));
}

} // namespace qfx

#endif
