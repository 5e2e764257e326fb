#ifndef QFX_WINDOW_H_
#define QFX_WINDOW_H_

// Sliding windows with stride, dilation and any padding: convolution with groups, maximum and scaled sum, each followed by a cast.
//
// CONFIG_T: in_height, in_width, n_chan, out_height, out_width, n_filt, kernel_height, kernel_width, stride_*, dilation_*, pad_top,
// pad_bottom, pad_left, pad_right, acc_t, cast_t and the members of that cast (qfx_gaps.h); and what the operator says below.
// One-dimensional tensors have one row.

#include "hls_stream.h"
#include "nnet_common.h"
#include "qfx_gaps.h"

namespace qfx {

template <class CONFIG_T> struct window_shape {
    static const unsigned span_height = (CONFIG_T::kernel_height - 1) * CONFIG_T::dilation_height + 1;
    static const unsigned span_width = (CONFIG_T::kernel_width - 1) * CONFIG_T::dilation_width + 1;
    static const unsigned padded_height = CONFIG_T::in_height + CONFIG_T::pad_top + CONFIG_T::pad_bottom;
    static const unsigned padded_width = CONFIG_T::in_width + CONFIG_T::pad_left + CONFIG_T::pad_right;
    static const unsigned kernel_size = CONFIG_T::kernel_height * CONFIG_T::kernel_width;
    static const unsigned n_taps = kernel_size * CONFIG_T::n_chan;
};

// -- operators: one exact result from the taps of a window, [kernel_height][kernel_width][n_chan] -----------------------

// CONFIG_T: groups, weight(i) with i = (filter, ky, kx, channel of the group), bias(filter).
struct op_conv {
    template <class code_T> static code_T padding() {
        #pragma HLS INLINE
        return 0;
    }

    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T *taps, unsigned filter) {
        #pragma HLS INLINE
        static const unsigned per_group = CONFIG_T::n_chan / CONFIG_T::groups;
        static const unsigned kernel_size = window_shape<CONFIG_T>::kernel_size;
        unsigned first = filter / (CONFIG_T::n_filt / CONFIG_T::groups) * per_group;
        typename CONFIG_T::acc_t sum = CONFIG_T::bias(filter);
    Places:
        for (unsigned k = 0; k < kernel_size; k++) {
            #pragma HLS UNROLL
        Channels:
            for (unsigned c = 0; c < per_group; c++) {
                #pragma HLS UNROLL
                sum += CONFIG_T::weight((filter * kernel_size + k) * per_group + c) * taps[k * CONFIG_T::n_chan + first + c];
            }
        }
        return sum;
    }
};

// Padded places hold the lowest code, which wins against nothing.
struct op_max {
    template <class code_T> static code_T padding() {
        #pragma HLS INLINE
        code_T lowest = 0;
        if (code_T(-1) < 0)
            lowest[code_T::width - 1] = 1;
        return lowest;
    }

    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T *taps, unsigned channel) {
        #pragma HLS INLINE
        code_T highest = taps[channel];
    Places:
        for (unsigned k = 1; k < window_shape<CONFIG_T>::kernel_size; k++) {
            #pragma HLS UNROLL
            code_T tap = taps[k * CONFIG_T::n_chan + channel];
            highest = tap > highest ? tap : highest;
        }
        return highest;
    }
};

// CONFIG_T: scale(channel).
struct op_scaled_sum {
    template <class code_T> static code_T padding() {
        #pragma HLS INLINE
        return 0;
    }

    template <class CONFIG_T, class code_T> static typename CONFIG_T::acc_t eval(const code_T *taps, unsigned channel) {
        #pragma HLS INLINE
        typename CONFIG_T::acc_t sum = 0;
    Places:
        for (unsigned k = 0; k < window_shape<CONFIG_T>::kernel_size; k++) {
            #pragma HLS UNROLL
            sum += taps[k * CONFIG_T::n_chan + channel];
        }
        return sum * CONFIG_T::scale(channel);
    }
};

// -- drivers -----------------------------------------------------------------------------------------------------------

template <class data_T, class res_T, class CONFIG_T, class OP>
void sliding(data_T data[CONFIG_T::in_height * CONFIG_T::in_width * CONFIG_T::n_chan],
             res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::n_filt]) {
    typedef typename word<data_T>::code_t code_t;

Rows:
    for (unsigned y = 0; y < CONFIG_T::out_height; y++) {
    Columns:
        for (unsigned x = 0; x < CONFIG_T::out_width; x++) {
            #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
            code_t taps[window_shape<CONFIG_T>::n_taps];
            #pragma HLS ARRAY_PARTITION variable=taps complete

        GatherRows:
            for (unsigned ky = 0; ky < CONFIG_T::kernel_height; ky++) {
            GatherColumns:
                for (unsigned kx = 0; kx < CONFIG_T::kernel_width; kx++) {
                    int row = int(y * CONFIG_T::stride_height + ky * CONFIG_T::dilation_height) - int(CONFIG_T::pad_top);
                    int column = int(x * CONFIG_T::stride_width + kx * CONFIG_T::dilation_width) - int(CONFIG_T::pad_left);
                    bool inside = row >= 0 && row < int(CONFIG_T::in_height) && column >= 0 && column < int(CONFIG_T::in_width);
                GatherChannels:
                    for (unsigned c = 0; c < CONFIG_T::n_chan; c++) {
                        unsigned place = (ky * CONFIG_T::kernel_width + kx) * CONFIG_T::n_chan + c;
                        if (inside)
                            taps[place] = code_of(data[(row * CONFIG_T::in_width + column) * CONFIG_T::n_chan + c]);
                        else
                            taps[place] = OP::template padding<code_t>();
                    }
                }
            }
        Filters:
            for (unsigned f = 0; f < CONFIG_T::n_filt; f++) {
                res[(y * CONFIG_T::out_width + x) * CONFIG_T::n_filt + f] =
                    cast_to<res_T, CONFIG_T>(OP::template eval<CONFIG_T>(taps, f), f);
            }
        }
    }
}

// One pixel of the padded frame per step: it enters the line buffers and the window; where a window is complete, a result leaves.
template <class data_T, class res_T, class CONFIG_T, class OP>
void sliding(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    typedef window_shape<CONFIG_T> shape;
    typedef typename data_T::value_type data_element_t;
    typedef typename res_T::value_type element_t;
    typedef typename word<data_element_t>::code_t code_t;

    code_t lines[shape::span_height > 1 ? shape::span_height - 1 : 1][shape::padded_width][CONFIG_T::n_chan];
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=1
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=3
    code_t window[shape::span_height][shape::span_width][CONFIG_T::n_chan];
    #pragma HLS ARRAY_PARTITION variable=window complete dim=0

    unsigned skip_y = shape::span_height - 1; // rows until a window is complete
Rows:
    for (unsigned y = 0; y < shape::padded_height; y++) {
        unsigned skip_x = shape::span_width - 1;
    Columns:
        for (unsigned x = 0; x < shape::padded_width; x++) {
            #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
            bool inside = y >= CONFIG_T::pad_top && y < CONFIG_T::pad_top + CONFIG_T::in_height &&
                          x >= CONFIG_T::pad_left && x < CONFIG_T::pad_left + CONFIG_T::in_width;
            data_T pixel;
            if (inside)
                pixel = data.read();

        Channels:
            for (unsigned c = 0; c < CONFIG_T::n_chan; c++) {
                #pragma HLS UNROLL
            WindowRows:
                for (unsigned r = 0; r < shape::span_height; r++) {
                    #pragma HLS UNROLL
                ShiftLeft:
                    for (unsigned s = 0; s + 1 < shape::span_width; s++) {
                        #pragma HLS UNROLL
                        window[r][s][c] = window[r][s + 1][c];
                    }
                    code_t entering;
                    if (r + 1 < shape::span_height)
                        entering = lines[r][x][c];
                    else
                        entering = inside ? code_of(pixel[c]) : OP::template padding<code_t>();
                    window[r][shape::span_width - 1][c] = entering;
                }
            StoreLines:
                for (unsigned r = 0; r + 1 < shape::span_height; r++) {
                    #pragma HLS UNROLL
                    lines[r][x][c] = window[r + 1][shape::span_width - 1][c];
                }
            }

            if (skip_y == 0 && skip_x == 0) {
                code_t taps[shape::n_taps];
                #pragma HLS ARRAY_PARTITION variable=taps complete
                for (unsigned ky = 0; ky < CONFIG_T::kernel_height; ky++) {
                    #pragma HLS UNROLL
                    for (unsigned kx = 0; kx < CONFIG_T::kernel_width; kx++) {
                        #pragma HLS UNROLL
                        for (unsigned c = 0; c < CONFIG_T::n_chan; c++) {
                            #pragma HLS UNROLL
                            taps[(ky * CONFIG_T::kernel_width + kx) * CONFIG_T::n_chan + c] =
                                window[ky * CONFIG_T::dilation_height][kx * CONFIG_T::dilation_width][c];
                        }
                    }
                }
                res_T out_data;
                PRAGMA_DATA_PACK(out_data)
            Filters:
                for (unsigned f = 0; f < CONFIG_T::n_filt; f++) {
                    #pragma HLS UNROLL
                    out_data[f] = cast_to<element_t, CONFIG_T>(OP::template eval<CONFIG_T>(taps, f), f);
                }
                res.write(out_data);
            }
            skip_x = skip_x == 0 ? CONFIG_T::stride_width - 1 : skip_x - 1;
        }
        skip_y = skip_y == 0 ? CONFIG_T::stride_height - 1 : skip_y - 1;
    }
}

} // namespace qfx

#endif
