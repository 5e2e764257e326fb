// torch operators around fused_kernels.h: qfx::cast with its gradient, for float32 on CPUs.
//
// The binary point is read here, from the buffer and the parameter that it is the sum of, so that a traced graph
// holds no number that training changes.

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
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

// A quantizer's format as fused.py writes it down: one float64 tensor, which costs less to hand over than numbers.
struct Numbers {
    int64_t axis;
    int rounding, mantissa;
    double low, high, pass_low, pass_high, dense, low_frac, high_frac;

    explicit Numbers(const Tensor& given) {
        TORCH_CHECK(given.scalar_type() == at::kDouble && given.numel() == 10 && given.is_contiguous(),
                    "qfx: a format takes 10 numbers");
        const double* n = given.const_data_ptr<double>();
        axis = int64_t(n[0]), rounding = int(n[1]), mantissa = int(n[2]);
        low = n[3], high = n[4], pass_low = n[5], pass_high = n[6], dense = n[7], low_frac = n[8], high_frac = n[9];
    }
};

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

// Scale and gain of every channel, `(2, *shape of start)`; see Quantizer.frac and Quantizer.gain.
Tensor points_of(const Tensor& start, const Tensor& shift, const optional<Tensor>& rms, const Numbers& f, bool frozen,
                 double elements) {
    TORCH_CHECK(start.scalar_type() == at::kFloat && shift.scalar_type() == at::kFloat && start.is_contiguous() &&
                    shift.is_contiguous() && start.numel() == shift.numel(),
                "qfx: binary points must be float32");
    const double top = f.high;
    const int64_t channels = start.numel();
    Tensor points = at::empty(start.dim() ? at::IntArrayRef{2, channels} : at::IntArrayRef{2}, start.options());
    const float* a = start.const_data_ptr<float>();
    const float* b = shift.const_data_ptr<float>();
    float* scales = points.mutable_data_ptr<float>();
    float* gains = scales + channels;
    const double levels = std::max(1.0, top);
    const double rate = 1.0 / (LN2 * LN2 * BITS_PER_UNIT * std::sqrt(elements));
    for (int64_t c = 0; c < channels; c++) {
        double frac = std::nearbyint(double(a[c]) + BITS_PER_UNIT * double(b[c]));
        // NaN: not calibrated, or training has diverged; far out: float32 cannot. The caller knows what to say.
        TORCH_CHECK(std::isfinite(frac), "qfx: no binary point");
        TORCH_CHECK(!frozen || (frac >= f.low_frac && frac <= f.high_frac), "qfx: the binary point is out of reach");
        frac = std::clamp(frac, f.low_frac, f.high_frac);
        scales[c] = float(std::ldexp(1.0, int(frac)));
        if (rms.has_value()) {
            const double seen = 3.0 * double(rms->const_data_ptr<float>()[c]);
            const double reach = std::fmin(top * std::exp2(-double(a[c])), seen);
            const double above = std::max(0.0, frac - std::log2(top / reach));
            const double near = std::max(1.0, std::min({top, f.dense, WIDE_LEVELS}));
            gains[c] = float(rate * near * std::exp2(above) / (reach * reach));
        } else {
            const double above = std::max(0.0, frac - double(a[c]));
            gains[c] = float(rate / (levels * std::max(1.0, levels / WIDE_LEVELS)) * std::exp2(2.0 * a[c] + above));
        }
    }
    return points;
}

Tensor dense(const Tensor& x) { return x.is_non_overlapping_and_dense() ? x : x.contiguous(); }

Tensor codes_like(const Tensor& x, int64_t save) {
    if (save == qfx::NOTHING) return at::empty({0}, x.options().dtype(at::kByte));
    return at::empty_like(x, x.options().dtype(save == qfx::MASK ? at::kByte : at::kShort));
}

std::tuple<Tensor, Tensor, Tensor> cast_forward(const Tensor& given, const Tensor& start, const Tensor& shift,
                                                const optional<Tensor>& rms, const Tensor& format, bool frozen,
                                                bool relu, int64_t save) {
    TORCH_CHECK(given.scalar_type() == at::kFloat, "qfx::cast: float32 only");
    const Numbers f(format);
    const Tensor x = dense(given);
    const int64_t channels = start.numel(), n = x.numel();
    TORCH_CHECK(channels == 1 || (f.axis < x.dim() && x.size(f.axis) == channels), "qfx::cast: ", channels,
                " binary points for a tensor of shape ", x.sizes(), ", axis ", f.axis);
    double elements = double(n) / double(channels);
    if (f.axis == 1 && x.dim() > 0) elements /= double(std::max<int64_t>(1, x.size(0)));
    Tensor points = points_of(start, shift, rms, f, frozen, std::max(1.0, elements));
    Tensor y = at::empty_like(x), codes = codes_like(x, save);
    const qfx::Format kernel{float(f.low),       float(f.high),  float(f.pass_low),       float(f.pass_high),
                             float(f.dense), f.mantissa,     relu ? 0.0f : -INFINITY};
    const qfx::CastRow row = qfx::cast_row(f.rounding, f.mantissa >= 0, int(save));
    const float* from = x.const_data_ptr<float>();
    float* to = y.mutable_data_ptr<float>();
    char* kept = static_cast<char*>(codes.mutable_data_ptr());
    const int64_t bytes = save == qfx::ERRORS ? 2 : save == qfx::MASK ? 1 : 0;
    const float* scales = points.const_data_ptr<float>();
    over_rows(rows_of(x, f.axis, channels), n, [&](int64_t r, int64_t at, int64_t size) {
        row(from + at, to + at, kept + at * bytes, size, scales[r % channels], kernel);
    });
    return {y, codes, points};
}

std::tuple<Tensor, Tensor> cast_backward(const Tensor& given, const Tensor& codes, const Tensor& points,
                                         const Tensor& format, bool relu, bool want_x, bool want_point) {
    const Numbers f(format);
    Tensor grad = given;
    if (grad.strides() != codes.strides()) {
        grad = at::empty_strided(codes.sizes(), codes.strides(), given.options());
        grad.copy_(given);
    }
    const int64_t channels = points.numel() / 2, n = codes.numel();
    const Rows rows = rows_of(codes, f.axis, channels);
    Tensor grad_x = want_x ? at::empty_like(grad) : at::empty({0}, grad.options());
    Tensor point = want_point ? at::empty(points.sizes().slice(1), grad.options()) : at::empty({0}, grad.options());
    const float* g = grad.const_data_ptr<float>();
    float* gx = want_x ? grad_x.mutable_data_ptr<float>() : nullptr;
    if (codes.scalar_type() == at::kByte) {
        TORCH_CHECK(!want_point, "qfx::cast_backward: the rounding errors were not kept");
        if (!want_x) return {grad_x, point};
        const uint8_t* mask = codes.const_data_ptr<uint8_t>();
        over_rows(rows, n, [&](int64_t, int64_t at, int64_t size) { qfx::mask_row(g + at, mask + at, gx + at, size); });
        return {grad_x, point};
    }
    const int16_t* kept = codes.const_data_ptr<int16_t>();
    const float low = relu ? 0.0f : float(f.low);
    std::vector<double> sums(rows.count);
    over_rows(rows, n, [&](int64_t r, int64_t at, int64_t size) {
        sums[r] = qfx::errors_row(g + at, kept + at, want_x ? gx + at : nullptr, size, f.rounding, f.mantissa >= 0, low,
                                  float(f.high));
    });
    if (want_point) {
        // In this order whatever thread had them first, so that training can be repeated.
        std::vector<double> totals(channels, 0.0);
        for (int64_t r = 0; r < rows.count; r++) totals[r % channels] += sums[r];
        const float* scales = points.const_data_ptr<float>();
        float* result = point.mutable_data_ptr<float>();
        for (int64_t c = 0; c < channels; c++)
            result[c] = float(totals[c] / double(scales[c]) * LN2 * double(scales[channels + c]));
    }
    return {grad_x, point};
}

// -- what tracing sees: shapes and dtypes -------------------------------------------------------------------------

std::tuple<Tensor, Tensor, Tensor> cast_forward_meta(const Tensor& given, const Tensor& start, const Tensor&,
                                                     const optional<Tensor>&, const Tensor&, bool, bool, int64_t save) {
    const Tensor x = dense(given);
    std::vector<c10::SymInt> shape{2};
    for (const auto& size : start.sym_sizes()) shape.push_back(size);
    return {at::empty_like(x), codes_like(x, save), at::empty_symint(shape, x.options())};
}

std::tuple<Tensor, Tensor> cast_backward_meta(const Tensor& grad, const Tensor& codes, const Tensor& points,
                                              const Tensor&, bool, bool want_x, bool want_point) {
    return {want_x ? at::empty_like(codes, grad.options()) : at::empty({0}, grad.options()),
            want_point ? at::empty_symint(points.sym_sizes().slice(1), grad.options())
                       : at::empty({0}, grad.options())};
}

// -- autograd -----------------------------------------------------------------------------------------------------

template <typename F>
c10::TypedOperatorHandle<F> find(const char* name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<F>();
}

std::tuple<Tensor, Tensor, Tensor> call_forward(const Tensor& x, const Tensor& start, const Tensor& shift,
                                                const optional<Tensor>& rms, const Tensor& format, bool frozen,
                                                bool relu, int64_t save) {
    static const auto op = find<decltype(cast_forward)>("qfx::cast_forward");
    return op.call(x, start, shift, rms, format, frozen, relu, save);
}

std::tuple<Tensor, Tensor> call_backward(const Tensor& grad, const Tensor& codes, const Tensor& points,
                                         const Tensor& format, bool relu, bool want_x, bool want_point) {
    static const auto op = find<decltype(cast_backward)>("qfx::cast_backward");
    at::AutoDispatchBelowADInplaceOrView guard;
    return op.call(grad, codes, points, format, relu, want_x, want_point);
}

// The same gradients by torch operators, which have derivatives themselves (create_graph=True).
std::tuple<Tensor, Tensor> backward_with_graph(const Tensor& grad, const Tensor& codes, const Tensor& points,
                                               const Tensor& format, bool relu, bool want_x, bool want_point) {
    Tensor ones = at::ones_like(grad), factors, slopes;
    {
        at::NoGradGuard none;
        std::tie(factors, std::ignore) = call_backward(ones, codes, points, format, relu, true, false);
    }
    Tensor grad_x = grad * factors, point;
    if (want_point) {
        const Numbers f(format);
        std::vector<int64_t> shape(codes.dim(), 1), axes;
        if (points.dim() > 1) shape[f.axis] = points.size(1);
        for (int64_t i = 0; i < codes.dim(); i++)
            if (points.dim() == 1 || i != f.axis) axes.push_back(i);
        const double low = relu ? 0.0 : f.low;
        const auto [centre, per_code] = qfx::error_codes(f.rounding);
        slopes = codes.to(at::kFloat) * per_code + centre;
        slopes = at::where(codes == qfx::FAR, at::zeros_like(slopes), slopes);
        slopes = at::where(codes == qfx::HIGH, at::full_like(slopes, -f.high), slopes);
        slopes = at::where(codes == qfx::LOW, at::full_like(slopes, -low), slopes);
        const Tensor factor = points.select(0, 1) / points.select(0, 0) * LN2;
        const Tensor terms = grad * slopes;
        point = (axes.empty() ? terms : terms.sum(axes)) * factor;
    }
    return {want_x ? grad_x : Tensor(), point};
}

std::tuple<Tensor, Tensor> gradients(const Tensor& grad, const Tensor& codes, const Tensor& points,
                                     const Tensor& format, bool relu, bool want_x, bool want_point) {
    if (!grad.defined()) return {Tensor(), Tensor()};
    auto [x, point] = (at::GradMode::is_enabled() ? backward_with_graph : call_backward)(grad, codes, points, format,
                                                                                        relu, want_x, want_point);
    return {want_x ? x : Tensor(), want_point ? point : Tensor()};
}

template <bool relu>
struct Cast : public torch::autograd::Function<Cast<relu>> {
    static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& shift, const Tensor& start,
                          const optional<Tensor>& rms, const Tensor& format, bool frozen) {
        at::AutoDispatchBelowADInplaceOrView guard;
        const int64_t save = shift.requires_grad() ? qfx::ERRORS : qfx::MASK;
        auto [y, codes, points] = call_forward(x, start, shift, rms, format, frozen, relu, save);
        ctx->save_for_backward({codes, points, format});
        return y;
    }

    static variable_list backward(AutogradContext* ctx, variable_list grads) {
        const auto saved = ctx->get_saved_variables();
        auto [x, point] = gradients(grads[0], saved[0], saved[1], saved[2], relu, ctx->needs_input_grad(0),
                                    ctx->needs_input_grad(1));
        return {x, point, Tensor(), Tensor(), Tensor(), Tensor()};
    }
};

Tensor cast(const Tensor& x, const Tensor& start, const Tensor& shift, const optional<Tensor>& rms,
            const Tensor& format, bool frozen, bool relu) {
    return std::get<0>(call_forward(x, start, shift, rms, format, frozen, relu, qfx::NOTHING));
}

bool wants_gradient(const Tensor& x, const Tensor& shift) {
    return at::GradMode::is_enabled() && (x.requires_grad() || shift.requires_grad());
}

Tensor cast_autograd(const Tensor& x, const Tensor& start, const Tensor& shift, const optional<Tensor>& rms,
                     const Tensor& format, bool frozen, bool relu) {
    if (wants_gradient(x, shift))
        return relu ? Cast<true>::apply(x, shift, start, rms, format, frozen)
                    : Cast<false>::apply(x, shift, start, rms, format, frozen);
    at::AutoDispatchBelowADInplaceOrView guard;
    return cast(x, start, shift, rms, format, frozen, relu);
}

// Several casts as one node of the graph of gradients: for weights so small that the node costs more than the work.
struct CastAll : public torch::autograd::Function<CastAll> {
    static variable_list forward(AutogradContext* ctx, at::TensorList xs, at::TensorList shifts, at::TensorList starts,
                                 at::TensorList formats, std::vector<bool> frozen) {
        at::AutoDispatchBelowADInplaceOrView guard;
        const size_t count = xs.size();
        variable_list results(count), saved(3 * count);
        for (size_t i = 0; i < count; i++) {
            const bool learned = shifts[i].requires_grad();
            const int64_t save = learned ? qfx::ERRORS : xs[i].requires_grad() ? qfx::MASK : qfx::NOTHING;
            std::tie(results[i], saved[i], saved[count + i]) =
                call_forward(xs[i], starts[i], shifts[i], {}, formats[i], frozen[i], false, save);
            saved[2 * count + i] = formats[i];
        }
        ctx->save_for_backward(saved);
        return results;
    }

    static variable_list backward(AutogradContext* ctx, variable_list grads) {
        const auto saved = ctx->get_saved_variables();
        const size_t count = grads.size();
        variable_list results(4 * count + 1);
        for (size_t i = 0; i < count; i++)
            std::tie(results[i], results[count + i]) =
                gradients(grads[i], saved[i], saved[count + i], saved[2 * count + i], false, ctx->needs_input_grad(i),
                          ctx->needs_input_grad(count + i));
        return results;
    }
};

std::vector<Tensor> cast_all(at::TensorList xs, at::TensorList starts, at::TensorList shifts,
                                      at::TensorList formats, c10::List<bool> given) {
    const size_t count = xs.size();
    TORCH_CHECK(starts.size() == count && shifts.size() == count && formats.size() == count && given.size() == count,
                "qfx::cast_all: lists of different lengths");
    std::vector<bool> frozen;
    bool wanted = false;
    for (size_t i = 0; i < count; i++) {
        frozen.push_back(given.get(i));
        wanted |= wants_gradient(xs[i], shifts[i]);
    }
    if (wanted) return CastAll::apply(xs, shifts, starts, formats, frozen);
    at::AutoDispatchBelowADInplaceOrView guard;
    std::vector<Tensor> results;
    for (size_t i = 0; i < count; i++)
        results.push_back(cast(xs[i], starts[i], shifts[i], {}, formats[i], frozen[i], false));
    return results;
}

}  // namespace

TORCH_LIBRARY(qfx, m) {
    m.def("cast(Tensor x, Tensor start, Tensor shift, Tensor? rms, Tensor format, bool frozen, bool relu) -> Tensor");
    m.def(
        "cast_all(Tensor[] xs, Tensor[] starts, Tensor[] shifts, Tensor[] formats, bool[] frozen) -> Tensor[]");
    m.def(
        "cast_forward(Tensor x, Tensor start, Tensor shift, Tensor? rms, Tensor format, bool frozen, bool relu, "
        "int save) -> (Tensor, Tensor, Tensor)");
    m.def(
        "cast_backward(Tensor grad, Tensor codes, Tensor points, Tensor format, bool relu, bool want_x, "
        "bool want_point) -> (Tensor, Tensor)");
    m.impl("cast", c10::DispatchKey::Autograd, TORCH_FN(cast_autograd));
    m.impl("cast", c10::DispatchKey::CompositeExplicitAutograd, TORCH_FN(cast));
    m.impl("cast_all", c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(cast_all));
    m.impl("cast_forward", c10::DispatchKey::CPU, TORCH_FN(cast_forward));
    m.impl("cast_forward", c10::DispatchKey::Meta, TORCH_FN(cast_forward_meta));
    m.impl("cast_backward", c10::DispatchKey::CPU, TORCH_FN(cast_backward));
    m.impl("cast_backward", c10::DispatchKey::Meta, TORCH_FN(cast_backward_meta));
}
