#ifndef QFX_REORDER_H_
#define QFX_REORDER_H_

// A frame whose elements change place: reshape and transpose in channels-last memory order.
//
// CONFIG_T: n_in (elements of a frame), source(i): where element i of the result stands in the operand.

#include "hls_stream.h"
#include "nnet_common.h"

namespace qfx {

template <class data_T, class res_T, class CONFIG_T> void reorder(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor

Elements:
    for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
        #pragma HLS UNROLL
        res[i] = data[CONFIG_T::source(i)];
    }
}

// The whole frame is stored: the last element may be needed first.
template <class data_T, class res_T, class CONFIG_T> void reorder(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    typename data_T::value_type frame[CONFIG_T::n_in];

Fill:
    for (unsigned i = 0; i < CONFIG_T::n_in / data_T::size; i++) {
        #pragma HLS PIPELINE
        data_T in_data = data.read();
        for (unsigned j = 0; j < data_T::size; j++) {
            #pragma HLS UNROLL
            frame[i * data_T::size + j] = in_data[j];
        }
    }
Drain:
    for (unsigned i = 0; i < CONFIG_T::n_in / res_T::size; i++) {
        #pragma HLS PIPELINE
        res_T out_data;
        PRAGMA_DATA_PACK(out_data)
        for (unsigned j = 0; j < res_T::size; j++) {
            #pragma HLS UNROLL
            out_data[j] = frame[CONFIG_T::source(i * res_T::size + j)];
        }
        res.write(out_data);
    }
}

} // namespace qfx

#endif
