#ifndef QFX_POINTWISE_H_
#define QFX_POINTWISE_H_

// Operators of one or two operands that work element by element, each followed by a cast.
//
// CONFIG_T: n_in (elements), n_chan (channels, the fastest axis), acc_t (an ap_int that holds the exact result), cast_t and
// the members of that cast (qfx_gaps.h); and what the operator says below.

#include "hls_stream.h"
#include "nnet_common.h"
#include "qfx_gaps.h"

namespace qfx {

// -- operators: exact result on codes ----------------------------------------------------------------------------------

struct op_cast {
    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T &x, unsigned) {
        #pragma HLS INLINE
        return x;
    }
};

// CONFIG_T: scale(channel), offset(channel), both on the binary point of the result.
struct op_affine {
    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T &x, unsigned channel) {
        #pragma HLS INLINE
        return x * CONFIG_T::scale(channel) + CONFIG_T::offset(channel);
    }
};

struct op_relu {
    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T &x, unsigned) {
        #pragma HLS INLINE
        return x > 0 ? typename CONFIG_T::acc_t(x) : typename CONFIG_T::acc_t(0);
    }
};

// CONFIG_T: slope(channel), slope_frac.
struct op_leaky_relu {
    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T &x, unsigned channel) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::acc_t acc_t;
        return x >= 0 ? acc_t(acc_t(x) << CONFIG_T::slope_frac) : acc_t(x * CONFIG_T::slope(channel));
    }
};

// CONFIG_T: up(channel), has_low, low(channel), has_high, high(channel).
struct op_clip {
    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T &x, unsigned channel) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::acc_t acc_t;
        acc_t y = acc_t(x) << CONFIG_T::up(channel);
        if (CONFIG_T::has_low && y < CONFIG_T::low(channel))
            y = CONFIG_T::low(channel);
        if (CONFIG_T::has_high && y > CONFIG_T::high(channel))
            y = CONFIG_T::high(channel);
        return y;
    }
};

// CONFIG_T: up0(channel), up1(channel): left shifts that bring both operands to one binary point.
struct op_add {
    template <class CONFIG_T, class code0_T, class code1_T>
    static typename CONFIG_T::acc_t eval(const code0_T &x, const code1_T &y, unsigned channel) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::acc_t acc_t;
        return (acc_t(x) << CONFIG_T::up0(channel)) + (acc_t(y) << CONFIG_T::up1(channel));
    }
};

struct op_sub {
    template <class CONFIG_T, class code0_T, class code1_T>
    static typename CONFIG_T::acc_t eval(const code0_T &x, const code1_T &y, unsigned channel) {
        #pragma HLS INLINE
        typedef typename CONFIG_T::acc_t acc_t;
        return (acc_t(x) << CONFIG_T::up0(channel)) - (acc_t(y) << CONFIG_T::up1(channel));
    }
};

struct op_mul {
    template <class CONFIG_T, class code0_T, class code1_T>
    static typename CONFIG_T::acc_t eval(const code0_T &x, const code1_T &y, unsigned) {
        #pragma HLS INLINE
        return x * y;
    }
};

// -- drivers -----------------------------------------------------------------------------------------------------------

template <class data_T, class res_T, class CONFIG_T, class OP>
void pointwise(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor

Elements:
    for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
        #pragma HLS UNROLL
        unsigned channel = i % CONFIG_T::n_chan;
        res[i] = cast_to<res_T, CONFIG_T>(OP::template eval<CONFIG_T>(code_of(data[i]), channel), channel);
    }
}

template <class data_T, class res_T, class CONFIG_T, class OP>
void pointwise(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    typedef typename res_T::value_type element_t;

Beats:
    for (unsigned i = 0; i < CONFIG_T::n_in / res_T::size; i++) {
        #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
        data_T in_data = data.read();
        res_T out_data;
        PRAGMA_DATA_PACK(out_data)

    Elements:
        for (unsigned channel = 0; channel < res_T::size; channel++) {
            #pragma HLS UNROLL
            out_data[channel] = cast_to<element_t, CONFIG_T>(
                OP::template eval<CONFIG_T>(code_of(in_data[channel]), channel), channel);
        }
        res.write(out_data);
    }
}

template <class data0_T, class data1_T, class res_T, class CONFIG_T, class OP>
void pointwise2(data0_T data0[CONFIG_T::n_in], data1_T data1[CONFIG_T::n_in], res_T res[CONFIG_T::n_in]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor

Elements:
    for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
        #pragma HLS UNROLL
        unsigned channel = i % CONFIG_T::n_chan;
        res[i] = cast_to<res_T, CONFIG_T>(OP::template eval<CONFIG_T>(code_of(data0[i]), code_of(data1[i]), channel),
                                            channel);
    }
}

template <class data0_T, class data1_T, class res_T, class CONFIG_T, class OP>
void pointwise2(hls::stream<data0_T> &data0, hls::stream<data1_T> &data1, hls::stream<res_T> &res) {
    typedef typename res_T::value_type element_t;

Beats:
    for (unsigned i = 0; i < CONFIG_T::n_in / res_T::size; i++) {
        #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
        data0_T in_data0 = data0.read();
        data1_T in_data1 = data1.read();
        res_T out_data;
        PRAGMA_DATA_PACK(out_data)

    Elements:
        for (unsigned channel = 0; channel < res_T::size; channel++) {
            #pragma HLS UNROLL
            out_data[channel] = cast_to<element_t, CONFIG_T>(
                OP::template eval<CONFIG_T>(code_of(in_data0[channel]), code_of(in_data1[channel]), channel),
                channel);
        }
        res.write(out_data);
    }
}

} // namespace qfx

#endif
