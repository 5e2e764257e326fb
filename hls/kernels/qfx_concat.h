#ifndef QFX_CONCAT_H_
#define QFX_CONCAT_H_

// Two tensors joined along the channels, with a shift of their own for every channel, followed by a cast.
//
// CONFIG_T: n_pixels, n_chan0, n_chan1, acc_t, up(channel) (channel of the result), cast_t and the members of that cast
// (qfx_gaps.h).

#include "hls_stream.h"
#include "nnet_common.h"
#include "qfx_gaps.h"

namespace qfx {

template <class res_T, class CONFIG_T, class code_T> res_T concat_element(const code_T &code, unsigned channel) {
    #pragma HLS INLINE
    typedef typename CONFIG_T::acc_t acc_t;
    return cast_to<res_T, CONFIG_T>(acc_t(acc_t(code) << CONFIG_T::up(channel)), channel);
}

template <class data0_T, class data1_T, class res_T, class CONFIG_T>
void concat(data0_T data0[CONFIG_T::n_pixels * CONFIG_T::n_chan0], data1_T data1[CONFIG_T::n_pixels * CONFIG_T::n_chan1],
            res_T res[CONFIG_T::n_pixels * (CONFIG_T::n_chan0 + CONFIG_T::n_chan1)]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    static const unsigned n_chan = CONFIG_T::n_chan0 + CONFIG_T::n_chan1;

Pixels:
    for (unsigned p = 0; p < CONFIG_T::n_pixels; p++) {
        #pragma HLS UNROLL
    First:
        for (unsigned c = 0; c < CONFIG_T::n_chan0; c++) {
            #pragma HLS UNROLL
            res[p * n_chan + c] = concat_element<res_T, CONFIG_T>(code_of(data0[p * CONFIG_T::n_chan0 + c]), c);
        }
    Second:
        for (unsigned c = 0; c < CONFIG_T::n_chan1; c++) {
            #pragma HLS UNROLL
            res[p * n_chan + CONFIG_T::n_chan0 + c] =
                concat_element<res_T, CONFIG_T>(code_of(data1[p * CONFIG_T::n_chan1 + c]), CONFIG_T::n_chan0 + c);
        }
    }
}

template <class data0_T, class data1_T, class res_T, class CONFIG_T>
void concat(hls::stream<data0_T> &data0, hls::stream<data1_T> &data1, hls::stream<res_T> &res) {
    typedef typename res_T::value_type element_t;

Pixels:
    for (unsigned p = 0; p < CONFIG_T::n_pixels; p++) {
        #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
        data0_T in_data0 = data0.read();
        data1_T in_data1 = data1.read();
        res_T out_data;
        PRAGMA_DATA_PACK(out_data)

    First:
        for (unsigned c = 0; c < CONFIG_T::n_chan0; c++) {
            #pragma HLS UNROLL
            out_data[c] = concat_element<element_t, CONFIG_T>(code_of(in_data0[c]), c);
        }
    Second:
        for (unsigned c = 0; c < CONFIG_T::n_chan1; c++) {
            #pragma HLS UNROLL
            out_data[CONFIG_T::n_chan0 + c] = concat_element<element_t, CONFIG_T>(code_of(in_data1[c]), CONFIG_T::n_chan0 + c);
        }
        res.write(out_data);
    }
}

} // namespace qfx

#endif
