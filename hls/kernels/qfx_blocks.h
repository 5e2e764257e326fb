#ifndef QFX_BLOCKS_H_
#define QFX_BLOCKS_H_

// Casts to blocks of a small format with one power-of-two scale each, chosen from the data (docs/graph.md).
//
// CONFIG_T: n_in (elements), n_chan (channels, the fastest axis), block (channels that share a scale; the last block of a place has
// what is left), align(channel) (left shift to one binary point, which the result is shifted back from), code_t (an ap_int that holds
// an aligned code), top (bits of the largest element), largest(channel), symmetric (whether minus the largest is the lowest element),
// is_signed (of the element), precision (significant bits, 0: any), rounding.
//
// The scale needs no exponent: with the leading one of a block at place m, a multiple of the element's step is a multiple of
// 2**(m + 1 - top), and the largest number of the block is the largest element with its leading one at m.

#include "hls_stream.h"
#include "nnet_common.h"
#include "qfx_gaps.h"

namespace qfx {

// What round_at asks for beyond the block's own numbers.
template <class CONFIG_T> struct block_round {
    static const int rounding = CONFIG_T::rounding;
    static const bool saturates = false;
    static int limit(unsigned) { return 0; }
    static int settle(unsigned) { return 0; }
};

// One place: `size` codes from `first` on.
template <class res_T, class CONFIG_T, class code_T> void cast_block(const code_T *codes, res_T *results, unsigned first, unsigned size) {
    #pragma HLS INLINE
    // A sign, and a carry beyond the largest magnitude.
    static const int W = CONFIG_T::code_t::width + 2;
    static const int TOP = CONFIG_T::top;
    ap_int<W> number[CONFIG_T::block];
    #pragma HLS ARRAY_PARTITION variable=number complete
    ap_uint<W> any = 0;
Largest:
    for (unsigned i = 0; i < size; i++) {
        #pragma HLS UNROLL
        number[i] = ap_int<W>(codes[i]) << CONFIG_T::align(first + i);
        // An unsigned format takes negative numbers for 0, also when it looks for the largest.
        if (!CONFIG_T::is_signed && number[i] < 0)
            number[i] = 0;
        any |= ap_uint<W>(number[i] < 0 ? ap_int<W>(-number[i]) : number[i]);
    }
    const ap_uint<W> block = any_above<W>(any);
    const ap_uint<W> lead = block & ~ap_uint<W>(block >> 1);
    ap_uint<W> limit = 0;
Limit:
    for (int j = 0; j < TOP; j++) {
        #pragma HLS UNROLL
        if ((CONFIG_T::largest(first) >> (TOP - 1 - j)) & 1)
            limit |= lead >> j;
    }

Elements:
    for (unsigned i = 0; i < size; i++) {
        #pragma HLS UNROLL
        const ap_int<W> x = number[i];
        const ap_uint<W> reached = any_above<W>(ap_uint<W>(x < 0 ? ap_int<W>(-x) : x));
        ap_uint<W> drop = block >> TOP;
        if (CONFIG_T::precision > 0)
            drop |= reached >> CONFIG_T::precision;
        // Powers of two have no even significand: the tie goes to the odd exponent, counted from the step of the block.
        const bool by_exponent = CONFIG_T::precision == 1 && CONFIG_T::rounding == RND_CONV;
        bool down = (TOP - 1) % 2 == 1;
    Exponents:
        for (int k = 1; k < W - 1; k += 2) {
            #pragma HLS UNROLL
            down = down != (bool(reached[k]) && !bool(reached[k + 1]));
            down = down != bool(lead[k]);
        }
        const ap_uint<W> bits =
            round_at<ap_fixed<W, W>, block_round<CONFIG_T>, 0, W>(x, drop, by_exponent, down == (x < 0), first).range(W - 1, 0);
        ap_int<W> value = ap_int<W>(bits);
        const ap_int<W> high = ap_int<W>(limit);
        if (value > high)
            value = high;
        else if (CONFIG_T::symmetric && value < -high)
            value = -high;
        results[i] = from_bits<res_T>(ap_uint<word<res_T>::width>(value >> CONFIG_T::align(first + i)));
    }
}

template <class data_T, class res_T, class CONFIG_T> void blocks(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor

Blocks:
    for (unsigned p = 0; p < CONFIG_T::n_in; p += CONFIG_T::n_chan) {
        #pragma HLS UNROLL
    Parts:
        for (unsigned c = 0; c < CONFIG_T::n_chan; c += CONFIG_T::block) {
            #pragma HLS UNROLL
            const unsigned size = CONFIG_T::n_chan - c < CONFIG_T::block ? CONFIG_T::n_chan - c : CONFIG_T::block;
            typename word<data_T>::code_t codes[CONFIG_T::block];
            res_T results[CONFIG_T::block];
            for (unsigned i = 0; i < size; i++) {
                #pragma HLS UNROLL
                codes[i] = code_of(data[p + c + i]);
            }
            cast_block<res_T, CONFIG_T>(codes, results, c, size);
            for (unsigned i = 0; i < size; i++) {
                #pragma HLS UNROLL
                res[p + c + i] = results[i];
            }
        }
    }
}

template <class data_T, class res_T, class CONFIG_T> void blocks(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    typedef typename data_T::value_type data_element_t;
    typedef typename res_T::value_type element_t;

Beats:
    for (unsigned p = 0; p < CONFIG_T::n_in / res_T::size; p++) {
        #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
        data_T in_data = data.read();
        res_T out_data;
        PRAGMA_DATA_PACK(out_data)
    Parts:
        for (unsigned c = 0; c < CONFIG_T::n_chan; c += CONFIG_T::block) {
            #pragma HLS UNROLL
            const unsigned size = CONFIG_T::n_chan - c < CONFIG_T::block ? CONFIG_T::n_chan - c : CONFIG_T::block;
            typename word<data_element_t>::code_t codes[CONFIG_T::block];
            element_t results[CONFIG_T::block];
            for (unsigned i = 0; i < size; i++) {
                #pragma HLS UNROLL
                codes[i] = code_of(in_data[c + i]);
            }
            cast_block<element_t, CONFIG_T>(codes, results, c, size);
            for (unsigned i = 0; i < size; i++) {
                #pragma HLS UNROLL
                out_data[c + i] = results[i];
            }
        }
        res.write(out_data);
    }
}

} // namespace qfx

#endif
