// A compiled plan of the interpreter (qfx/graph/compiled.py): a list of instructions on tensors of codes, run without
// going back to Python. Grouped convolutions and linear layers are torch's; other loops are in program_kernels.cpp.
//
// Between instructions a tensor has the shape (samples, features), or (samples, channels, height, width) with the
// channels innermost in memory (torch.channels_last). A program holds constants only: threads may share it.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "program_kernels.h"
#include "rounding.h"

namespace {

using at::Tensor;
using Numbers = std::vector<int64_t>;

constexpr int64_t GRAIN = 1 << 15;  // fewer numbers than this are not worth another thread
// Results of a convolution that are finished while they are in a near cache: numbers, and at least so many places,
// since the weights are read once per block.
constexpr int64_t BLOCK = 1 << 12, LEAST_BLOCK = 64;

// In the order of `Opcode` in compiled.py.
enum Opcode : int64_t {
    ENCODE, CONV, LINEAR, POINTWISE, MAX_POOL, SUM_POOL, CONCAT, RESHAPE, TRANSPOSE, CONVERT, OPCODES
};

struct Instruction {
    int64_t opcode, result;
    Numbers operands, dead;  // slots; dead ones are not needed afterwards
    Numbers numbers;
    std::vector<Tensor> constants;
    Tensor packed, bias;  // of a convolution that program_kernels.cpp computes
    // What is done to its result while that is in the cache: a POINTWISE, its operands in front of its result.
    std::vector<Instruction> after;
};

Tensor channels_last(const Tensor& x) {
    return x.contiguous(x.dim() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
}

Tensor new_tensor(at::IntArrayRef shape, at::ScalarType type) {
    const auto format = shape.size() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    return at::empty(shape, at::TensorOptions().dtype(type).memory_format(format));
}

// Calls `work` with a zero of the element type, which chooses the kernels.
template <typename F>
void by_type(at::ScalarType type, const F& work) {
    if (type == at::kFloat)
        work(0.0f);
    else if (type == at::kDouble)
        work(0.0);
    else
        TORCH_CHECK(false, "qfx_graph: codes travel in float32 or float64, not ", type);
}

// How many pieces of `numbers` are worth a thread.
int64_t grain(int64_t numbers) { return std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, numbers)); }

int64_t numbers_of_channel(const Tensor& x) { return x.dim() == 4 ? x.size(2) * x.size(3) : 1; }

// numbers: rounding. constants: scale per channel (or one), the ends of the range of codes. x: real, contiguous.
Tensor encode(const Instruction& step, const Tensor& given, at::ScalarType type) {
    TORCH_CHECK(given.scalar_type() == at::kFloat || given.scalar_type() == at::kDouble, "qfx_graph: real input");
    const Tensor x = given.contiguous();
    Tensor codes = new_tensor(x.sizes(), type);
    const Tensor &scales = step.constants[0], &range = step.constants[1];
    const double* scale = scales.const_data_ptr<double>();
    const double low = range.const_data_ptr<double>()[0], high = range.const_data_ptr<double>()[1];
    const bool one_scale = scales.numel() == 1;
    // Where places are in the same order on both sides, a row is a whole sample.
    const int64_t channels = x.size(1), inner = numbers_of_channel(x);
    const bool whole = one_scale && (channels == 1 || inner == 1);
    const int64_t n = whole ? channels * inner : inner, per_sample = whole ? 1 : channels;
    const int64_t stride = whole ? 1 : channels, rows = x.size(0) * per_sample;
    std::atomic<bool> good{true};
    by_type(x.scalar_type(), [&](auto x_zero) {
        by_type(type, [&](auto zero) {
            using X = decltype(x_zero);
            using T = decltype(zero);
            const X* from = x.const_data_ptr<X>();
            T* to = codes.mutable_data_ptr<T>();
            at::parallel_for(0, rows, grain(n), [&](int64_t begin, int64_t end) {
                std::vector<X> scratch(n);
                for (int64_t row = begin; row < end; row++) {
                    const int64_t sample = row / per_sample, channel = row % per_sample;
                    T* place = to + sample * channels * inner + channel;
                    const X factor = X(scale[one_scale ? 0 : channel]);
                    if (!qfx::encode<X, T>(from + row * n, place, n, stride, factor, X(low), X(high),
                                           int(step.numbers[0]), scratch.data()))
                        good = false;
                }
            });
        });
    });
    TORCH_CHECK(good, "qfx_graph: NaN");
    return codes;
}

std::optional<Tensor> bias_of(const Instruction& step) {
    return step.constants.size() > 1 ? std::optional<Tensor>(step.constants[1]) : std::nullopt;
}

// numbers: stride (2), padding (top, bottom, left, right), dilation (2), groups. constants: weight, (bias).
Tensor convolve(const Instruction& step, Tensor x) {
    const Numbers& n = step.numbers;
    Numbers padding{n[2], n[4]};
    if (n[2] != n[3] || n[4] != n[5]) {
        x = channels_last(at::constant_pad_nd(x, {n[4], n[5], n[2], n[3]}, 0));
        padding = {0, 0};
    }
    return channels_last(at::conv2d(x, step.constants[0], bias_of(step), {n[0], n[1]}, padding, {n[6], n[7]}, n[8]));
}

// The seven parameters of a POINTWISE: its constant, (7, period), in the type of the codes.
template <typename T>
qfx::Parameters<T> parameters_of(const Instruction& step) {
    const Tensor& p = step.constants[0];
    const int64_t period = p.size(1);
    const T* row = p.const_data_ptr<T>();
    return {row,              row + period,     row + 2 * period, row + 3 * period,
            row + 4 * period, row + 5 * period, row + 6 * period, period};
}

template <typename T>
qfx::Pointwise<T> kernel_of(const Instruction& step) {
    const auto kernel = qfx::pointwise<T>(int(step.numbers[0]), int(step.numbers[1]));
    TORCH_CHECK(kernel, "qfx_graph: kind ", step.numbers[0], ", rounding ", step.numbers[1]);
    return kernel;
}

// Weights (outputs, inputs, height, width) of a convolution that qfx::convolve computes, as it reads them.
void prepare(Instruction& step) {
    const Numbers& n = step.numbers;
    if (step.opcode != CONV || n[6] != 1 || n[7] != 1 || n[8] != 1) return;
    const Tensor weight = step.constants[0].permute({0, 2, 3, 1}).contiguous();
    const int64_t outputs = weight.size(0), length = weight.numel() / outputs;
    by_type(weight.scalar_type(), [&](auto zero) {
        using T = decltype(zero);
        const int64_t padded = qfx::packed_outputs<T>(outputs);
        step.packed = at::empty({padded * length}, weight.options());
        qfx::pack_weights<T>(weight.const_data_ptr<T>(), step.packed.mutable_data_ptr<T>(), outputs, length);
        step.bias = at::zeros({padded}, weight.options());
        if (step.constants.size() > 1) step.bias.narrow(0, 0, outputs).copy_(step.constants[1]);
    });
    // Their sizes; the weights themselves are not needed any more.
    step.numbers.insert(step.numbers.end(), {outputs, step.constants[0].size(2), step.constants[0].size(3)});
    step.constants.clear();
}

// numbers: as of `convolve`, then outputs, kernel (2). `other`: the second operand of what comes after, if it has one.
Tensor convolve_here(const Instruction& step, const Tensor& x, const Tensor* other) {
    const Numbers& n = step.numbers;
    const int64_t channels = x.size(1), outputs = n[9], kernel_height = n[10], kernel_width = n[11];
    const qfx::Image image{channels, x.size(2), x.size(3), n[2], n[4], x.size(2) + n[2] + n[3],
                           x.size(3) + n[4] + n[5]};
    const bool padded = n[2] || n[3] || n[4] || n[5];
    const int64_t out_height = (image.padded_height - kernel_height) / n[0] + 1;
    const int64_t out_width = (image.padded_width - kernel_width) / n[1] + 1;
    const int64_t line = image.padded_width * channels, places = out_height * out_width;
    const qfx::Convolution shape{outputs,   kernel_height, kernel_width * channels, line,
                                 out_width, n[0] * line,   n[1] * channels};
    Tensor y = new_tensor({x.size(0), outputs, out_height, out_width}, x.scalar_type());
    const Instruction* after = step.after.empty() ? nullptr : &step.after[0];
    // Blocks are whole tiles, and whole periods of what comes after.
    const int64_t unit = qfx::PLACES * (after ? std::max<int64_t>(1, after->constants[0].size(1) / outputs) : 1);
    const int64_t block = (std::max(LEAST_BLOCK, BLOCK / outputs) + unit - 1) / unit * unit;
    by_type(x.scalar_type(), [&](auto zero) {
        using T = decltype(zero);
        const T* from = x.const_data_ptr<T>();
        T* to = y.mutable_data_ptr<T>();
        const T* second = other ? other->const_data_ptr<T>() : to;
        const T* weights = step.packed.const_data_ptr<T>();
        const T* bias = step.bias.const_data_ptr<T>();
        const auto finish = after ? kernel_of<T>(*after) : nullptr;
        const auto parameters = after ? parameters_of<T>(*after) : qfx::Parameters<T>();
        const int64_t in = channels * image.height * image.width, out = outputs * places;
        at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
            std::vector<T> scratch(padded ? image.padded_height * line : 0);
            for (int64_t sample = begin; sample < end; sample++) {
                const T* source = from + sample * in;
                if (padded) {
                    qfx::pad<T>(source, scratch.data(), image);
                    source = scratch.data();
                }
                T* result = to + sample * out;
                const T* added = second + sample * out;
                at::parallel_for(0, (places + block - 1) / block, grain(block * outputs), [&](int64_t b, int64_t e) {
                    for (; b < e; b++) {
                        const int64_t first = b * block, last = std::min(places, first + block);
                        qfx::convolve<T>(source, result, weights, bias, shape, first, last);
                        if (!after) continue;
                        T* done = result + first * outputs;
                        finish(done, added + first * outputs, done, (last - first) * outputs, parameters);
                    }
                });
            }
        });
    });
    return y;
}

// numbers: kind, rounding.
Tensor pointwise(const Instruction& step, const Tensor& a, const Tensor* b, Tensor y) {
    const int64_t period = step.constants[0].size(1), n = a.numel();
    by_type(a.scalar_type(), [&](auto zero) {
        using T = decltype(zero);
        const auto parameters = parameters_of<T>(step);
        const auto kernel = kernel_of<T>(step);
        const T* from = a.const_data_ptr<T>();
        const T* other = b ? b->const_data_ptr<T>() : from;
        T* to = y.mutable_data_ptr<T>();
        const int64_t blocks = (n + period - 1) / period;
        auto range = [&](int64_t begin, int64_t end) {
            const int64_t at = begin * period, size = std::min(n, end * period) - at;
            kernel(from + at, other + at, to + at, size, parameters);
        };
        if (n <= GRAIN)
            range(0, blocks);
        else
            at::parallel_for(0, blocks, grain(period), range);
    });
    return y;
}

// numbers: kernel (2), stride (2), top, left, height and width of the result.
Tensor pool(const Instruction& step, const Tensor& x) {
    const Numbers& n = step.numbers;
    Tensor y = new_tensor({x.size(0), x.size(1), n[6], n[7]}, x.scalar_type());
    const qfx::Window window{x.size(1), x.size(2), x.size(3), n[6], n[7], n[0], n[1], n[2], n[3], n[4], n[5]};
    const int64_t in = x.size(1) * x.size(2) * x.size(3), out = x.size(1) * n[6] * n[7];
    by_type(x.scalar_type(), [&](auto zero) {
        using T = decltype(zero);
        const T* from = x.const_data_ptr<T>();
        T* to = y.mutable_data_ptr<T>();
        const auto work = step.opcode == MAX_POOL ? qfx::max_pool<T> : qfx::sum_pool<T>;
        at::parallel_for(0, x.size(0), grain(in), [&](int64_t begin, int64_t end) {
            for (int64_t sample = begin; sample < end; sample++) work(from + sample * in, to + sample * out, window);
        });
    });
    return y;
}

// constants: scale per channel (or one).
Tensor decode(const Tensor& codes, const Tensor& scales) {
    const Tensor x = channels_last(codes);
    Tensor values = at::empty(x.sizes(), at::TensorOptions().dtype(at::kDouble));
    const double* scale = scales.const_data_ptr<double>();
    double* to = values.mutable_data_ptr<double>();
    const int64_t samples = x.size(0), channels = x.size(1), inner = numbers_of_channel(x);
    by_type(x.scalar_type(), [&](auto zero) {
        using T = decltype(zero);
        const T* from = x.const_data_ptr<T>();
        if (scales.numel() == 1 && (inner == 1 || channels == 1)) {
            qfx::decode<T>(from, to, x.numel(), 1, scale[0]);
            return;
        }
        for (int64_t sample = 0; sample < samples; sample++)
            for (int64_t c = 0; c < channels; c++)
                qfx::decode<T>(from + sample * channels * inner + c, to + (sample * channels + c) * inner, inner,
                               channels, scale[scales.numel() == 1 ? 0 : c]);
    });
    return values;
}

at::ScalarType type_of(int64_t wide) { return wide ? at::kDouble : at::kFloat; }

class Program : public torch::CustomClassHolder {
   public:
    // instructions: opcode, result, number of operands, operands, number of dead slots, dead slots, numbers.
    Program(const std::vector<Numbers>& instructions, std::vector<std::vector<Tensor>> constants, int64_t slots,
            int64_t inputs)
        : slots_(slots), inputs_(inputs) {
        TORCH_CHECK(instructions.size() == constants.size(), "qfx_graph: constants for each instruction");
        for (size_t i = 0; i < instructions.size(); i++) {
            auto next = instructions[i].begin();
            Instruction step;
            step.opcode = *next++;
            step.result = *next++;
            for (int64_t count = *next++; count > 0; count--) step.operands.push_back(*next++);
            for (int64_t count = *next++; count > 0; count--) step.dead.push_back(*next++);
            step.numbers.assign(next, instructions[i].end());
            step.constants = std::move(constants[i]);
            TORCH_CHECK(step.opcode >= 0 && step.opcode < OPCODES, "qfx_graph: opcode ", step.opcode);
            prepare(step);
            if (!append(step)) plan_.push_back(std::move(step));
        }
    }

    // The tensors in the slots `results`; the inputs fill the first slots.
    std::vector<Tensor> run(const std::vector<Tensor>& inputs, const Numbers& results) const {
        const at::NoGradGuard no_grad;
        const at::AutoDispatchBelowADInplaceOrView below;
        const std::vector<Tensor> slots = execute(inputs);
        std::vector<Tensor> found;
        for (const int64_t slot : results) found.push_back(slots[slot]);
        return found;
    }

    // The numbers of slot `result`, float64, in torch's usual order in memory.
    Tensor values(const Tensor& input, int64_t result, const Tensor& scale) const {
        const at::NoGradGuard no_grad;
        const at::AutoDispatchBelowADInplaceOrView below;
        return decode(execute({input})[result], scale);
    }

   private:
    std::vector<Tensor> execute(const std::vector<Tensor>& inputs) const {
        TORCH_CHECK(int64_t(inputs.size()) == inputs_, "qfx_graph: ", inputs_, " inputs, given ", inputs.size());
        std::vector<Tensor> slots(slots_);
        for (size_t i = 0; i < inputs.size(); i++) slots[i] = inputs[i];
        for (const Instruction& step : plan_) {
            slots[step.result] = evaluate(step, slots);
            for (const int64_t slot : step.dead) slots[slot].reset();
        }
        return slots;
    }

    // Whether a POINTWISE on what the instruction in front has made was put there.
    bool append(const Instruction& step) {
        if (step.opcode != POINTWISE || plan_.empty()) return false;
        Instruction& maker = plan_.back();
        const bool only_here = std::count(step.dead.begin(), step.dead.end(), maker.result) == 1 &&
                               std::count(step.operands.begin(), step.operands.end(), maker.result) == 1;
        if (!maker.packed.defined() || !maker.after.empty() || !only_here || step.operands[0] != maker.result)
            return false;
        maker.after.push_back(step);
        maker.operands.insert(maker.operands.end(), step.operands.begin() + 1, step.operands.end());
        maker.dead.insert(maker.dead.end(), step.dead.begin(), step.dead.end());
        maker.result = step.result;
        return true;
    }

    Tensor evaluate(const Instruction& step, const std::vector<Tensor>& slots) const {
        const Numbers& n = step.numbers;
        const Tensor& x = slots[step.operands[0]];
        switch (step.opcode) {
            case ENCODE: return encode(step, x, type_of(n[1]));
            case CONV:
                if (!step.packed.defined()) return convolve(step, x);
                return convolve_here(step, x, step.operands.size() > 1 ? &slots[step.operands[1]] : nullptr);
            case LINEAR: return at::linear(x, step.constants[0], bias_of(step));
            case POINTWISE: {
                const Tensor* other = step.operands.size() > 1 ? &slots[step.operands[1]] : nullptr;
                Tensor y = reusable(step, slots);
                return pointwise(step, x, other, y.defined() ? y : new_tensor(x.sizes(), x.scalar_type()));
            }
            case MAX_POOL:
            case SUM_POOL: return pool(step, x);
            case CONCAT: {
                std::vector<Tensor> parts;
                for (const int64_t slot : step.operands) parts.push_back(slots[slot]);
                return channels_last(at::cat(parts, 1));
            }
            case RESHAPE: {
                Numbers shape{x.size(0)};
                shape.insert(shape.end(), n.begin(), n.end());
                return channels_last(x.contiguous().view(shape));
            }
            case TRANSPOSE: return channels_last(x.permute(n));
            default: return x.to(type_of(n[0]));  // CONVERT
        }
    }

    // An operand that nobody else needs and that this run has made: the result may take its place.
    Tensor reusable(const Instruction& step, const std::vector<Tensor>& slots) const {
        for (const int64_t slot : step.operands) {
            if (slot < inputs_ || std::find(step.dead.begin(), step.dead.end(), slot) == step.dead.end()) continue;
            const Tensor& x = slots[slot];
            // Reshaped and converted tensors may share memory with others.
            if (x.use_count() == 1 && x.storage().use_count() == 1) return x;
        }
        return {};
    }

    int64_t slots_, inputs_;
    std::vector<Instruction> plan_;
};

}  // namespace

TORCH_LIBRARY(qfx_graph, m) {
    m.class_<Program>("Program")
        .def(torch::init<std::vector<Numbers>, std::vector<std::vector<Tensor>>, int64_t, int64_t>())
        .def("run", &Program::run)
        .def("values", &Program::values);
}
