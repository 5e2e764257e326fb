#ifndef QFX_ARRAYS_H_
#define QFX_ARRAYS_H_

// Operators on whole arrays: reductions, products of tensors, and elements that move. Each result is cast.
//
// CONFIG_T: n_in (elements of the operand, and n_in1 of a second one), n_out (elements of the result), n_chan (channels of the
// result, the fastest axis), acc_t and the members of the cast (qfx_gaps.h); and what the operator says below.
//
// An operator computes a whole frame from arrays. In arrays its loops are unrolled into one pipeline; in streams frames are
// stored, and its innermost loop is a pipeline.

#include "hls_stream.h"
#include "nnet_common.h"
#include "qfx_gaps.h"

namespace qfx {

// -- operators ---------------------------------------------------------------------------------------------------------

// Elements that move, and zeros. CONFIG_T: source(i): where element i of the result stands; n_in: a zero.
struct op_select {
    template <class data_T, class res_T, class CONFIG_T>
    static void frame(const data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_out]) {
        #pragma HLS INLINE
    Elements:
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            #pragma HLS PIPELINE
            const unsigned place = CONFIG_T::source(i);
            typename CONFIG_T::acc_t code = 0;
            if (place < CONFIG_T::n_in)
                code = code_of(data[place]);
            res[i] = cast_to<res_T, CONFIG_T>(code, i % CONFIG_T::n_chan);
        }
    }
};

// A table of rows. CONFIG_T: rows, row_size, entries(index); source(i): which code element i of the result comes from;
// offset(i): its place in the row.
struct op_gather {
    template <class data_T, class res_T, class CONFIG_T>
    static void frame(const data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_out]) {
        #pragma HLS INLINE
    Elements:
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            #pragma HLS PIPELINE
            const typename word<data_T>::code_t code = code_of(data[CONFIG_T::source(i)]);
            unsigned row = 0;
            if (code > 0)
                row = code > int(CONFIG_T::rows - 1) ? unsigned(CONFIG_T::rows - 1) : unsigned(code);
            const typename CONFIG_T::acc_t entry = CONFIG_T::entries(row * CONFIG_T::row_size + CONFIG_T::offset(i));
            res[i] = cast_to<res_T, CONFIG_T>(entry, i % CONFIG_T::n_chan);
        }
    }
};

// The same frame for every sample. CONFIG_T: entries(i). The operand only says that a sample is there.
struct op_constant {
    template <class data_T, class res_T, class CONFIG_T>
    static void frame(const data_T[CONFIG_T::n_in], res_T res[CONFIG_T::n_out]) {
        #pragma HLS INLINE
    Elements:
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            #pragma HLS PIPELINE
            const typename CONFIG_T::acc_t code = CONFIG_T::entries(i);
            res[i] = cast_to<res_T, CONFIG_T>(code, i % CONFIG_T::n_chan);
        }
    }
};

// Sum or maximum. CONFIG_T: is_sum, count (elements that become one), up(channel of the operand), in_chan;
// source(i * count + j): where the j-th of them for element i of the result stands.
struct op_reduce {
    template <class data_T, class res_T, class CONFIG_T>
    static void frame(const data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_out]) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::acc_t acc_t;
    Results:
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            acc_t total = 0;
        Elements:
            for (unsigned j = 0; j < CONFIG_T::count; j++) {
                #pragma HLS PIPELINE
                const unsigned place = CONFIG_T::source(i * CONFIG_T::count + j);
                const acc_t x = acc_t(code_of(data[place])) << CONFIG_T::up(place % CONFIG_T::in_chan);
                if (CONFIG_T::is_sum)
                    total += x;
                else if (j == 0 || x > total)
                    total = x;
            }
            res[i] = cast_to<res_T, CONFIG_T>(total, i % CONFIG_T::n_chan);
        }
    }
};

// The product of two tensors. CONFIG_T: batch, rows, inner, columns; strides in memory by batch, row and column of each
// tensor; up1(channel of the second operand), in1_chan.
struct op_matmul {
    template <class data0_T, class data1_T, class res_T, class CONFIG_T>
    static void frame(const data0_T data0[CONFIG_T::n_in], const data1_T data1[CONFIG_T::n_in1],
                      res_T res[CONFIG_T::n_out]) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::acc_t acc_t;
    Batch:
        for (unsigned b = 0; b < CONFIG_T::batch; b++) {
        Rows:
            for (unsigned n = 0; n < CONFIG_T::rows; n++) {
            Columns:
                for (unsigned m = 0; m < CONFIG_T::columns; m++) {
                    acc_t total = 0;
                Products:
                    for (unsigned k = 0; k < CONFIG_T::inner; k++) {
                        #pragma HLS PIPELINE
                        const unsigned i0 = b * CONFIG_T::batch0 + n * CONFIG_T::row0 + k * CONFIG_T::column0;
                        const unsigned i1 = b * CONFIG_T::batch1 + k * CONFIG_T::row1 + m * CONFIG_T::column1;
                        const acc_t y = acc_t(code_of(data1[i1])) << CONFIG_T::up1(i1 % CONFIG_T::in1_chan);
                        total += acc_t(code_of(data0[i0]) * y);
                    }
                    const unsigned i = b * CONFIG_T::batch2 + n * CONFIG_T::row2 + m * CONFIG_T::column2;
                    res[i] = cast_to<res_T, CONFIG_T>(total, i % CONFIG_T::n_chan);
                }
            }
        }
    }
};

// -- drivers -----------------------------------------------------------------------------------------------------------

template <class data_T, unsigned N> void fill(hls::stream<data_T> &data, typename data_T::value_type frame[N]) {
    #pragma HLS INLINE
Fill:
    for (unsigned i = 0; i < N / data_T::size; i++) {
        #pragma HLS PIPELINE
        data_T beat = data.read();
        for (unsigned j = 0; j < data_T::size; j++) {
            #pragma HLS UNROLL
            frame[i * data_T::size + j] = beat[j];
        }
    }
}

template <class res_T, unsigned N> void drain(const typename res_T::value_type frame[N], hls::stream<res_T> &res) {
    #pragma HLS INLINE
Drain:
    for (unsigned i = 0; i < N / res_T::size; i++) {
        #pragma HLS PIPELINE
        res_T beat;
        PRAGMA_DATA_PACK(beat)
        for (unsigned j = 0; j < res_T::size; j++) {
            #pragma HLS UNROLL
            beat[j] = frame[i * res_T::size + j];
        }
        res.write(beat);
    }
}

template <class data_T, class res_T, class CONFIG_T, class OP>
void frame(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    OP::template frame<data_T, res_T, CONFIG_T>(data, res);
}

template <class data_T, class res_T, class CONFIG_T, class OP>
void frame(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    typename data_T::value_type in[CONFIG_T::n_in];
    typename res_T::value_type out[CONFIG_T::n_out];
    fill<data_T, CONFIG_T::n_in>(data, in);
    OP::template frame<typename data_T::value_type, typename res_T::value_type, CONFIG_T>(in, out);
    drain<res_T, CONFIG_T::n_out>(out, res);
}

template <class data0_T, class data1_T, class res_T, class CONFIG_T, class OP>
void frame2(data0_T data0[CONFIG_T::n_in], data1_T data1[CONFIG_T::n_in1], res_T res[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    OP::template frame<data0_T, data1_T, res_T, CONFIG_T>(data0, data1, res);
}

template <class data0_T, class data1_T, class res_T, class CONFIG_T, class OP>
void frame2(hls::stream<data0_T> &data0, hls::stream<data1_T> &data1, hls::stream<res_T> &res) {
    typename data0_T::value_type in0[CONFIG_T::n_in];
    typename data1_T::value_type in1[CONFIG_T::n_in1];
    typename res_T::value_type out[CONFIG_T::n_out];
    fill<data0_T, CONFIG_T::n_in>(data0, in0);
    fill<data1_T, CONFIG_T::n_in1>(data1, in1);
    OP::template frame<typename data0_T::value_type, typename data1_T::value_type, typename res_T::value_type, CONFIG_T>(
        in0, in1, out);
    drain<res_T, CONFIG_T::n_out>(out, res);
}

} // namespace qfx

#endif
