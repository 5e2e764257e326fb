#ifndef QFX_GAPS_H_
#define QFX_GAPS_H_

// Casts on codes (docs/graph.md), by format: `CONFIG_T::cast_t::apply<res_T, CONFIG_T>(code, channel)`.
//
// A number of a format with gaps is a multiple of a step that depends on its size. So the bits that such a number cannot have are
// marked (`drop`: ones from bit 0 up to some place), the rest is rounded as fixed point is, and the ends of the range limit it.

#include "qfx_cast.h"

namespace qfx {

// CONFIG_T: shift(channel) and the members of cast_code.
struct to_fixed {
    template <class res_T, class CONFIG_T, int N> static res_T apply(const ap_int<N> &code, unsigned channel) {
        #pragma HLS INLINE
        return cast_code<res_T, CONFIG_T>(code, CONFIG_T::shift(channel));
    }
};

struct to_binary {
    template <class res_T, class CONFIG_T, int N> static res_T apply(const ap_int<N> &code, unsigned) {
        #pragma HLS INLINE
        static const int W = word<res_T>::width;
        return from_bits<res_T>(ap_uint<W>(code < 0 ? ap_int<W + 1>(-1) : ap_int<W + 1>(1)));
    }
};

// The widths of a cast of N bits. CONFIG_T: grid (bits below the lowest place of a number, or negative: zeros to append),
// max_align (largest left shift of a channel before).
template <class CONFIG_T, int N> struct gapped_widths {
    static const int aligned = N + int(CONFIG_T::max_align);
    // Far below the lowest place only sign and "not zero" matter.
    static const int right = CONFIG_T::grid <= 0 ? 0 : (CONFIG_T::grid > aligned + 2 ? aligned + 2 : CONFIG_T::grid);
    static const int left = CONFIG_T::grid < 0 ? -CONFIG_T::grid : 0;
    static const int wide = (aligned + left > right ? aligned + left : right) + 2; // a carry may make it longer
};

// Bit i: whether any of the bits from i upwards is set.
template <int W> ap_uint<W> any_above(const ap_uint<W> &x) {
    #pragma HLS INLINE
    ap_uint<W> y = x;
Spread:
    for (int step = 1; step < W; step *= 2) {
        #pragma HLS UNROLL
        y |= y >> step;
    }
    return y;
}

// One bit per place for every place of a constant number of low places.
template <int W> ap_uint<W> low_ones(int places) {
    #pragma HLS INLINE
    ap_uint<W> y = 0;
Places:
    for (int i = 0; i < W; i++) {
        #pragma HLS UNROLL
        y[i] = i < places;
    }
    return y;
}

// The code in the width of the cast, at the binary point of its uniform step.
template <class CONFIG_T, int N>
ap_int<gapped_widths<CONFIG_T, N>::wide> align_code(const ap_int<N> &code, unsigned channel) {
    #pragma HLS INLINE
    typedef gapped_widths<CONFIG_T, N> widths;
    return ap_int<widths::wide>(code) << (CONFIG_T::align(channel) + widths::left);
}

// Rounding and saturation. CONFIG_T: rounding; saturates, limit(channel); settle(channel): zero bits that the result does not have.
// nearest: to the nearest whatever `rounding` says, a tie towards plus infinity where tie_up is set.
template <class res_T, class CONFIG_T, int RIGHT, int W>
res_T round_at(const ap_int<W> &x, const ap_uint<W> &drop, bool nearest, bool tie_up, unsigned channel) {
    #pragma HLS INLINE
    const ap_uint<W> bits = x;
    const ap_uint<W> above = drop >> 1;
    const ap_uint<W> first = drop & ~above;
    const bool half = (bits & first) != 0;
    const bool rest = (bits & above) != 0;
    const bool last = (ap_uint<W>(bits >> 1) & first) != 0;
    const bool negative = x < 0;
    bool up = false;
    switch (nearest ? -1 : CONFIG_T::rounding) {
    case TRN:
        break;
    case TRN_ZERO:
        up = negative && (half || rest);
        break;
    case RND:
        up = half;
        break;
    case RND_ZERO:
        up = half && (rest || negative);
        break;
    case RND_INF:
        up = half && (rest || !negative);
        break;
    case RND_MIN_INF:
        up = half && rest;
        break;
    case RND_CONV:
        up = half && (rest || last);
        break;
    default:
        up = half && (rest || tie_up);
        break;
    }
    // With ones in the dropped places, a carry from the bottom adds one step.
    ap_int<W> value = ap_int<W>(x | ap_int<W>(drop)) + ap_int<W>(up ? 1 : 0);
    value = ap_int<W>(value & ~ap_int<W>(drop)) >> RIGHT;
    if (CONFIG_T::saturates) {
        const ap_int<(W > 66 ? W : 66)> limit = CONFIG_T::limit(channel);
        if (value > limit)
            value = limit;
        else if (value < -limit)
            value = -limit;
    }
    if (!word<res_T>::is_signed && value < 0)
        value = 0;
    return from_bits<res_T>(ap_uint<word<res_T>::width>(value >> CONFIG_T::settle(channel)));
}

// CONFIG_T: precision (significant bits) and the members above.
struct to_minifloat {
    template <class res_T, class CONFIG_T, int N> static res_T apply(const ap_int<N> &code, unsigned channel) {
        #pragma HLS INLINE
        static const int RIGHT = gapped_widths<CONFIG_T, N>::right;
        static const int W = gapped_widths<CONFIG_T, N>::wide;
        const ap_int<W> x = align_code<CONFIG_T, N>(code, channel);
        // The leading one of the complement of a negative number is that of its magnitude, except for powers of two: they are
        // rounded one place lower than need be, to themselves.
        const ap_uint<W> magnitude = x < 0 ? ap_uint<W>(~x) : ap_uint<W>(x);
        const ap_uint<W> reached = any_above<W>(magnitude);
        const ap_uint<W> drop = ap_uint<W>(reached >> CONFIG_T::precision) | low_ones<W>(RIGHT);
        // Powers of two have no even significand: of 2**i and 2**(i+1), the one with the odd exponent has the even code; of 0
        // and 1, it is 0.
        const bool by_exponent = CONFIG_T::precision == 1 && CONFIG_T::rounding == RND_CONV;
        bool down = !bool(reached[RIGHT]);
    Exponents:
        for (int i = RIGHT + 1; i < W - 1; i += 2) {
            #pragma HLS UNROLL
            down = down || (bool(reached[i]) && !bool(reached[i + 1]));
        }
        return round_at<res_T, CONFIG_T, RIGHT, W>(x, drop, by_exponent, down == (x < 0), channel);
    }
};

// CONFIG_T: digits (the most that may be nonzero), csd, and the members above. rtl/kernels/qfx_cast_khot.v says why this
// gives the nearest number.
struct to_khot {
    template <class res_T, class CONFIG_T, int N> static res_T apply(const ap_int<N> &code, unsigned channel) {
        #pragma HLS INLINE
        static const int RIGHT = gapped_widths<CONFIG_T, N>::right;
        static const int W = gapped_widths<CONFIG_T, N>::wide;
        const ap_int<W> x = align_code<CONFIG_T, N>(code, channel);
        const bool negative = x < 0;
        const ap_uint<W> lowest = low_ones<W>(RIGHT);
        ap_uint<W> drop;
        bool tie_up;
        if (CONFIG_T::csd) {
            // x and 3x differ above the nonzero digits.
            const ap_int<W + 2> thrice = ap_int<W + 2>(x) + (ap_int<W + 2>(x) << 1);
            const ap_uint<W> plus = ap_int<W + 2>(thrice & ~ap_int<W + 2>(x)) >> 1;
            const ap_uint<W> minus = ap_int<W + 2>(ap_int<W + 2>(x) & ~thrice) >> 1;
            const ap_uint<W> nonzero = plus | minus;
            // Places that have more than `digits` of them from their own upwards; the top one holds the first digit too many.
            const ap_uint<W> reached = count_digits<CONFIG_T, W>(nonzero, CONFIG_T::digits + 1);
            ap_uint<W> joins = 0;
        Joins:
            for (int i = W - 3; i >= 0; i--) {
                #pragma HLS UNROLL
                joins[i] = bool(nonzero[i + 2]) && (bool(minus[i + 2]) != bool(minus[i]) || bool(joins[i + 2]));
            }
            const ap_uint<W> places = reached | lowest;
            const ap_uint<W> at = places & ~ap_uint<W>(places >> 1);
            const bool join = (at & nonzero & joins) != 0;
            const bool enough = (at & reached) != 0;
            tie_up = join ? negative : bool((at & minus) != 0);
            drop = enough && !join ? ap_uint<W>(places | (places << 1)) : places;
        } else {
            // The ones of the complement of a negative number, followed by ones without end, stand for its magnitude.
            const ap_uint<W> magnitude = negative ? ap_uint<W>(~x) : ap_uint<W>(x);
            drop = ap_uint<W>(count_digits<CONFIG_T, W>(magnitude, CONFIG_T::digits) >> 1) | lowest;
            const ap_uint<W> lowest_kept = ap_uint<W>((drop << 1) | ap_uint<W>(1)) & ~drop;
            const bool both = (lowest_kept & magnitude & ap_uint<W>(magnitude >> 1)) != 0;
            tie_up = both != negative;
        }
        return round_at<res_T, CONFIG_T, RIGHT, W>(x, drop, true, tie_up, channel);
    }

  private:
    // Places with at least `count` ones of x from their own upwards.
    template <class CONFIG_T, int W> static ap_uint<W> count_digits(const ap_uint<W> &x, unsigned count) {
        #pragma HLS INLINE
        ap_uint<W> left = x, reached = 0;
    Digits:
        for (unsigned i = 0; i < count; i++) {
            #pragma HLS UNROLL
            reached = any_above<W>(left);
            left &= reached >> 1;
        }
        return reached;
    }
};

// The cast that a layer's configuration names.
template <class res_T, class CONFIG_T, int N> res_T cast_to(const ap_int<N> &code, unsigned channel) {
    #pragma HLS INLINE
    return CONFIG_T::cast_t::template apply<res_T, CONFIG_T, N>(code, channel);
}

} // namespace qfx

#endif
