#ifndef QFX_FUNCTIONS_H_
#define QFX_FUNCTIONS_H_

// Functions of one number, as operators of the drivers in qfx_pointwise.h.

#include "qfx_pointwise.h"

namespace qfx {

// The place of the highest set bit of a positive number.
template <int W> int leading_one(const ap_uint<W> &x) {
    #pragma HLS INLINE
    int place = 0;
Bits:
    for (int i = 0; i < W; i++) {
        #pragma HLS UNROLL
        if (x[i])
            place = i;
    }
    return place;
}

// A table. CONFIG_T: up(channel); significant; first and entries(index), the index of a code as in the graph's lookup: less
// `first`, or with `significant` the place among all numbers of so many significant bits, those below zero in the upper `half`.
struct op_table {
    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T &x, unsigned channel) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::wide_t wide_t;
        const wide_t code = wide_t(x) << CONFIG_T::up(channel);
        if (CONFIG_T::significant == 0)
            return CONFIG_T::entries(unsigned(wide_t(code - CONFIG_T::first(0))));
        const ap_uint<wide_t::width> magnitude = code < 0 ? ap_uint<wide_t::width>(-code) : ap_uint<wide_t::width>(code);
        const int above = leading_one<wide_t::width>(magnitude) + 1 - int(CONFIG_T::significant);
        const unsigned exponent = above > 0 ? above : 0;
        const unsigned place = (exponent << (CONFIG_T::significant - 1)) + unsigned(magnitude >> exponent);
        return CONFIG_T::entries(place + (code < 0 ? CONFIG_T::half : 0u));
    }
};

// Polynomials in segments. CONFIG_T: up(channel), first, places (bits of a distance in a segment), degree, and
// constant(segment), linear(segment), square(segment), brought to one binary point by left0, left1, left2.
struct op_piecewise {
    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T &x, unsigned channel) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::acc_t acc_t;
        typedef typename CONFIG_T::wide_t wide_t;
        const wide_t place = (wide_t(x) << CONFIG_T::up(channel)) - CONFIG_T::first(0);
        const unsigned segment = unsigned(wide_t(place >> CONFIG_T::places));
        const acc_t t = acc_t(place - (wide_t(segment) << CONFIG_T::places));
        acc_t sum = acc_t(CONFIG_T::constant(segment)) << CONFIG_T::left0;
        if (CONFIG_T::degree > 0)
            sum += acc_t(CONFIG_T::linear(segment) * t) << CONFIG_T::left1;
        if (CONFIG_T::degree > 1)
            sum += acc_t(CONFIG_T::square(segment) * acc_t(t * t)) << CONFIG_T::left2;
        return sum;
    }
};

// An inverse root. CONFIG_T: up(channel), offset, least, wide_t (holds a code shifted left by bits + 1), root, odd (whether
// exponents of a square root are odd), top (the largest exponent), bits, places, degree, guard, constant, linear as above.
struct op_inverse_root {
    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T &x, unsigned channel) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::acc_t acc_t;
        typedef typename CONFIG_T::wide_t wide_t;
        wide_t code = (wide_t(x) << CONFIG_T::up(channel)) + CONFIG_T::offset(0);
        if (code < CONFIG_T::least(0))
            code = CONFIG_T::least(0);
        int exponent = leading_one<wide_t::width>(ap_uint<wide_t::width>(code));
        if (CONFIG_T::root == 2 && (exponent & 1) != int(CONFIG_T::odd))
            exponent--;
        const unsigned mantissa =
            unsigned(wide_t((code << (CONFIG_T::bits + 1)) >> (exponent + 1))) - (1u << CONFIG_T::bits);
        const unsigned segment = mantissa >> CONFIG_T::places;
        const unsigned t = mantissa & ((1u << CONFIG_T::places) - 1);
        typename CONFIG_T::poly_t value = CONFIG_T::constant(segment);
        if (CONFIG_T::degree > 0)
            value += typename CONFIG_T::poly_t(CONFIG_T::linear(segment) * ap_uint<32>(t));
        return acc_t(value >> CONFIG_T::guard) << ((CONFIG_T::top - exponent) / int(CONFIG_T::root));
    }
};

} // namespace qfx

#endif
