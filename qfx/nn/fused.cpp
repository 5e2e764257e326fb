// torch operators around fused_kernels.h: qfx::cast with its gradient, for float32 on CPUs.
//
// The binary point is read here, from the buffer and the parameter that it is the sum of, so that a traced graph
// holds no number that training changes.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "fused_kernels.h"

namespace {

using at::Tensor;
using std::optional;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double BITS_PER_UNIT = 8.0;  // as in quantizer.py
constexpr double WIDE_LEVELS = 16.0;
constexpr double LN2 = 0.693147180559945309417232121458;
constexpr int64_t CHUNK = 1 << 14;     // numbers of a partial sum: the same whatever the number of threads
constexpr int64_t GRAIN = 1 << 15;     // fewer numbers than this are not worth another thread

// A tensor as its memory lies: rows of `inner` numbers, row r belongs to channel r % channels.
struct Rows {
    int64_t count, inner, channels;
};

// Where the numbers of one channel lie in a dense tensor, whatever the order of its axes in memory.
Rows rows_of(const Tensor& x, int64_t axis, int64_t channels) {
    if (channels == 1) {
        const int64_t n = x.numel();
        return {(n + CHUNK - 1) / CHUNK, CHUNK, 1};
    }
    const int64_t inner = std::max<int64_t>(1, x.stride(axis));
    return {x.numel() / inner, inner, channels};
}

template <typename F>
void over_rows(const Rows& rows, int64_t n, const F& work) {
    auto range = [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; r++) {
            const int64_t start = r * rows.inner;
            work(r, start, std::min(rows.inner, n - start));
        }
    };
    if (n <= GRAIN)
        range(0, rows.count);
    else
        at::parallel_for(0, rows.count, std::max<int64_t>(1, GRAIN / rows.inner), range);
}

// Scale and gain of every channel, `(2, channels)`; see Quantizer.frac and Quantizer.gain.
Tensor numbers_of(const Tensor& start, const Tensor& shift, const optional<Tensor>& rms, double top, double dense,
                  int64_t low_frac, int64_t high_frac, bool frozen, double elements) {
    TORCH_CHECK(start.scalar_type() == at::kFloat && shift.scalar_type() == at::kFloat && start.is_contiguous() &&
                    shift.is_contiguous() && start.numel() == shift.numel(),
                "qfx: binary points must be float32");
    const int64_t channels = start.numel();
    Tensor numbers = at::empty({2, channels}, start.options());
    const float* a = start.const_data_ptr<float>();
    const float* b = shift.const_data_ptr<float>();
    float* scales = numbers.mutable_data_ptr<float>();
    float* gains = scales + channels;
    const double levels = std::max(1.0, top);
    const double rate = 1.0 / (LN2 * LN2 * BITS_PER_UNIT * std::sqrt(elements));
    for (int64_t c = 0; c < channels; c++) {
        double frac = std::nearbyint(double(a[c]) + BITS_PER_UNIT * double(b[c]));
        // NaN: not calibrated, or training has diverged; far out: float32 cannot. The caller knows what to say.
        TORCH_CHECK(std::isfinite(frac), "qfx: no binary point");
        TORCH_CHECK(!frozen || (frac >= low_frac && frac <= high_frac), "qfx: the binary point is out of reach");
        frac = std::clamp(frac, double(low_frac), double(high_frac));
        scales[c] = float(std::ldexp(1.0, int(frac)));
        if (rms.has_value()) {
            const double seen = 3.0 * double(rms->const_data_ptr<float>()[c]);
            const double reach = std::fmin(top * std::exp2(-double(a[c])), seen);
            const double above = std::max(0.0, frac - std::log2(top / reach));
            const double near = std::max(1.0, std::min({top, dense, WIDE_LEVELS}));
            gains[c] = float(rate * near * std::exp2(above) / (reach * reach));
        } else {
            const double above = std::max(0.0, frac - double(a[c]));
            gains[c] = float(rate / (levels * std::max(1.0, levels / WIDE_LEVELS)) * std::exp2(2.0 * a[c] + above));
        }
    }
    return numbers;
}

Tensor dense(const Tensor& x) { return x.is_non_overlapping_and_dense() ? x : x.contiguous(); }

std::tuple<Tensor, Tensor, Tensor> cast_forward(const Tensor& given, const Tensor& start, const Tensor& shift,
                                                const optional<Tensor>& rms, int64_t axis, int64_t rounding,
                                                int64_t mantissa, double low, double high, double pass_low,
                                                double pass_high, double dense_below, int64_t low_frac,
                                                int64_t high_frac, bool frozen, bool relu, int64_t save) {
    TORCH_CHECK(given.scalar_type() == at::kFloat, "qfx::cast: float32 only");
    const Tensor x = dense(given);
    const int64_t channels = start.numel();
    TORCH_CHECK(channels == 1 || (axis < x.dim() && x.size(axis) == channels), "qfx::cast: ", channels,
                " binary points for a tensor of shape ", x.sizes(), ", axis ", axis);
    double elements = double(x.numel()) / double(channels);
    if (axis == 1 && x.dim() > 0) elements /= double(std::max<int64_t>(1, x.size(0)));
    Tensor numbers =
        numbers_of(start, shift, rms, high, dense_below, low_frac, high_frac, frozen, std::max(elements, 1e-30));
    Tensor y = at::empty_like(x);
    Tensor codes = save == qfx::NOTHING
                       ? at::empty({0}, x.options().dtype(at::kByte))
                       : at::empty_like(x, x.options().dtype(save == qfx::MASK ? at::kByte : at::kShort));
    const qfx::Format format{float(low),         float(high),        float(pass_low),
                             float(pass_high),   float(dense_below), int(mantissa),
                             relu ? 0.0f : -INFINITY};
    const qfx::CastRow row = qfx::cast_row(int(rounding), mantissa >= 0, int(save));
    const float* from = x.const_data_ptr<float>();
    float* to = y.mutable_data_ptr<float>();
    char* kept = static_cast<char*>(codes.mutable_data_ptr());
    const int64_t bytes = save == qfx::ERRORS ? 2 : save == qfx::MASK ? 1 : 0;
    const float* scales = numbers.const_data_ptr<float>();
    over_rows(rows_of(x, axis, channels), x.numel(), [&](int64_t r, int64_t at, int64_t n) {
        row(from + at, to + at, kept + at * bytes, n, scales[r % channels], format);
    });
    return {y, codes, numbers};
}

std::tuple<Tensor, Tensor> cast_backward(const Tensor& given, const Tensor& codes, const Tensor& numbers, int64_t axis,
                                         int64_t rounding, double low, double high, bool want_x, bool want_point) {
    Tensor grad = given;
    if (grad.strides() != codes.strides()) {
        grad = at::empty_strided(codes.sizes(), codes.strides(), given.options());
        grad.copy_(given);
    }
    const int64_t channels = numbers.size(1), n = codes.numel();
    const Rows rows = rows_of(codes, axis, channels);
    Tensor grad_x = want_x ? at::empty_like(grad) : at::empty({0}, grad.options());
    Tensor point = want_point ? at::empty({channels}, grad.options()) : at::empty({0}, grad.options());
    const float* g = grad.const_data_ptr<float>();
    float* gx = grad_x.mutable_data_ptr<float>();
    if (codes.scalar_type() == at::kByte) {
        TORCH_CHECK(!want_point, "qfx::cast_backward: the rounding errors were not kept");
        if (!want_x) return {grad_x, point};
        const uint8_t* mask = codes.const_data_ptr<uint8_t>();
        over_rows(rows, n, [&](int64_t, int64_t at, int64_t size) { qfx::mask_row(g + at, mask + at, gx + at, size); });
        return {grad_x, point};
    }
    const int16_t* kept = codes.const_data_ptr<int16_t>();
    std::vector<double> sums(rows.count);
    over_rows(rows, n, [&](int64_t r, int64_t at, int64_t size) {
        sums[r] = qfx::errors_row(g + at, kept + at, want_x ? gx + at : nullptr, size, int(rounding), float(low),
                                  float(high));
    });
    if (want_point) {
        std::vector<double> totals(channels, 0.0);
        for (int64_t r = 0; r < rows.count; r++) totals[r % channels] += sums[r];
        const float* scales = numbers.const_data_ptr<float>();
        float* result = point.mutable_data_ptr<float>();
        for (int64_t c = 0; c < channels; c++)
            result[c] = float(totals[c] / double(scales[c]) * LN2 * double(scales[channels + c]));
    }
    return {grad_x, point};
}

// -- what tracing sees: shapes and dtypes -------------------------------------------------------------------------

std::tuple<Tensor, Tensor, Tensor> cast_forward_meta(const Tensor& given, const Tensor& start, const Tensor&,
                                                     const optional<Tensor>&, int64_t, int64_t, int64_t, double,
                                                     double, double, double, double, int64_t, int64_t, bool, bool,
                                                     int64_t save) {
    const Tensor x = dense(given);
    Tensor codes = save == qfx::NOTHING
                       ? at::empty({0}, x.options().dtype(at::kByte))
                       : at::empty_like(x, x.options().dtype(save == qfx::MASK ? at::kByte : at::kShort));
    return {at::empty_like(x), codes, at::empty_symint({2, start.sym_numel()}, x.options())};
}

std::tuple<Tensor, Tensor> cast_backward_meta(const Tensor& grad, const Tensor& codes, const Tensor& numbers, int64_t,
                                              int64_t, double, double, bool want_x, bool want_point) {
    return {want_x ? at::empty_like(codes, grad.options()) : at::empty({0}, grad.options()),
            want_point ? at::empty_symint({numbers.sym_size(1)}, grad.options()) : at::empty({0}, grad.options())};
}

// -- autograd -----------------------------------------------------------------------------------------------------

const c10::TypedOperatorHandle<decltype(cast_forward)>& forward_operator() {
    static const auto handle = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("qfx::cast_forward", "")
                                   .typed<decltype(cast_forward)>();
    return handle;
}

const c10::TypedOperatorHandle<decltype(cast_backward)>& backward_operator() {
    static const auto handle = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("qfx::cast_backward", "")
                                   .typed<decltype(cast_backward)>();
    return handle;
}

struct Cast : public torch::autograd::Function<Cast> {
    static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& shift, const Tensor& start,
                          const optional<Tensor>& rms, int64_t axis, int64_t rounding, int64_t mantissa, double low,
                          double high, double pass_low, double pass_high, double dense_below, int64_t low_frac,
                          int64_t high_frac, bool frozen, bool relu) {
        at::AutoDispatchBelowADInplaceOrView guard;
        const int64_t save = shift.requires_grad() ? qfx::ERRORS : qfx::MASK;
        auto [y, codes, numbers] =
            forward_operator().call(x, start, shift, rms, axis, rounding, mantissa, low, high, pass_low, pass_high,
                                    dense_below, low_frac, high_frac, frozen, relu, save);
        ctx->save_for_backward({codes, numbers});
        ctx->saved_data["axis"] = axis;
        ctx->saved_data["rounding"] = rounding;
        ctx->saved_data["low"] = low;
        ctx->saved_data["high"] = high;
        ctx->saved_data["scalar"] = shift.dim() == 0;
        return y;
    }

    static variable_list backward(AutogradContext* ctx, variable_list grads) {
        const auto saved = ctx->get_saved_variables();
        const bool want_x = ctx->needs_input_grad(0), want_point = ctx->needs_input_grad(1);
        auto [grad_x, point] = backward_operator().call(
            grads[0], saved[0], saved[1], ctx->saved_data["axis"].toInt(), ctx->saved_data["rounding"].toInt(),
            ctx->saved_data["low"].toDouble(), ctx->saved_data["high"].toDouble(), want_x, want_point);
        variable_list result(16);
        if (want_x) result[0] = grad_x;
        if (want_point) result[1] = ctx->saved_data["scalar"].toBool() ? point.reshape({}) : point;
        return result;
    }
};

Tensor cast_autograd(const Tensor& x, const Tensor& start, const Tensor& shift, const optional<Tensor>& rms,
                     int64_t axis, int64_t rounding, int64_t mantissa, double low, double high, double pass_low,
                     double pass_high, double dense_below, int64_t low_frac, int64_t high_frac, bool frozen, bool relu) {
    if (at::GradMode::is_enabled() && (x.requires_grad() || shift.requires_grad()))
        return Cast::apply(x, shift, start, rms, axis, rounding, mantissa, low, high, pass_low, pass_high, dense_below,
                           low_frac, high_frac, frozen, relu);
    at::AutoDispatchBelowADInplaceOrView guard;
    return std::get<0>(forward_operator().call(x, start, shift, rms, axis, rounding, mantissa, low, high, pass_low,
                                               pass_high, dense_below, low_frac, high_frac, frozen, relu,
                                               qfx::NOTHING));
}

Tensor cast_plain(const Tensor& x, const Tensor& start, const Tensor& shift, const optional<Tensor>& rms, int64_t axis,
                  int64_t rounding, int64_t mantissa, double low, double high, double pass_low, double pass_high,
                  double dense_below, int64_t low_frac, int64_t high_frac, bool frozen, bool relu) {
    return std::get<0>(forward_operator().call(x, start, shift, rms, axis, rounding, mantissa, low, high, pass_low,
                                               pass_high, dense_below, low_frac, high_frac, frozen, relu,
                                               qfx::NOTHING));
}

}  // namespace

#define FORMAT                                                                                                         \
    "int axis, int rounding, int mantissa, float low, float high, float pass_low, float pass_high, float dense, "     \
    "int low_frac, int high_frac, bool frozen, bool relu"

TORCH_LIBRARY(qfx, m) {
    m.def("cast(Tensor x, Tensor start, Tensor shift, Tensor? rms, " FORMAT ") -> Tensor");
    m.def("cast_forward(Tensor x, Tensor start, Tensor shift, Tensor? rms, " FORMAT
          ", int save) -> (Tensor, Tensor, Tensor)");
    m.def(
        "cast_backward(Tensor grad, Tensor codes, Tensor numbers, int axis, int rounding, float low, float high, "
        "bool want_x, bool want_point) -> (Tensor, Tensor)");
    m.impl("cast", c10::DispatchKey::Autograd, TORCH_FN(cast_autograd));
    m.impl("cast", c10::DispatchKey::CompositeExplicitAutograd, TORCH_FN(cast_plain));
    m.impl("cast_forward", c10::DispatchKey::CPU, TORCH_FN(cast_forward));
    m.impl("cast_forward", c10::DispatchKey::Meta, TORCH_FN(cast_forward_meta));
    m.impl("cast_backward", c10::DispatchKey::CPU, TORCH_FN(cast_backward));
    m.impl("cast_backward", c10::DispatchKey::Meta, TORCH_FN(cast_backward_meta));
}
