"""C++ around the design: the library that Python calls, and the test bench for the vendor's simulators.

Both speak integer codes, never floating point: what a real number becomes is decided by ``Graph``'s input
format, on the host.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """One side of the top-level function.

    Attributes:
        type: name of the C++ type.
        size: elements of a frame.
        beat: elements of a beat of the stream; 0: it is an array.
    """

    type: str
    size: int
    beat: int


#: Shadows the system's ``assert.h``, which would end the Python process.
ASSERT = """\
// Written by QFX: in C simulation a failed assertion is an exception, which Python reports.
#ifndef QFX_ASSERT_H_
#define QFX_ASSERT_H_
#include <stdexcept>
#include <string>
inline void qfx_assertion_failed(const char *text, const char *file, int line) {
    throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": assertion failed: " + text);
}
#endif
#undef assert
#define assert(condition) ((condition) ? (void)0 : qfx_assertion_failed(#condition, __FILE__, __LINE__))
"""

_BRIDGE = """\
// Written by QFX: C simulation as a shared library. Frames are integer codes in channels-last order.
// The design is included here, not linked: hls4ml's headers take longer to read than it takes to compile it.

namespace qfx {{
static const char *weights_dir = "firmware/weights";
}} // namespace qfx
#define WEIGHTS_DIR qfx::weights_dir

#include "firmware/{top}.cpp"
#include "firmware/nnet_utils/nnet_helpers.h"
#include "firmware/nnet_utils/qfx_cast.h"
#include "firmware/nnet_utils/qfx_trace.h"
#include <cstddef>
#include <exception>
#include <map>
#include <string>

namespace nnet {{
bool trace_enabled = false;
std::map<std::string, void *> *trace_outputs = NULL;
size_t trace_type_size = sizeof(double);
}} // namespace nnet

namespace qfx {{
std::map<std::string, long long *> *trace_sink = NULL;
}} // namespace qfx

static std::string message;

static int run_frame(const long long *x, long long *y) {{
{body}
}}

// Returns 0, or 1 + the index of the frame that failed; `message` then says how.
static long long run_frames(const long long *x, long long *y, long long frame, long long end) {{
    for (; frame < end; frame++) {{
        try {{
            message = "a stream held too few or too many elements";
            if (run_frame(x + frame * {in_size}, y + frame * {out_size}))
                return 1 + frame;
        }} catch (const std::exception &failure) {{
            message = failure.what();
            return 1 + frame;
        }}
    }}
    return 0;
}}

extern "C" {{

// Where hls4ml's weight files are; the string must stay. To be called first.
void qfx_weights(const char *folder) {{ qfx::weights_dir = folder; }}

// What failed last.
const char *qfx_message() {{ return message.c_str(); }}

long long qfx_run(const long long *x, long long *y, long long frames) {{
    return run_frames(x, y, 0, frames);
}}

// Records tensors: `names[k]` of `sizes[k]` elements a frame into `buffers[k]`.
long long qfx_trace(const long long *x, long long *y, long long frames, const char **names,
                    const long long *sizes, long long **buffers, long long count) {{
    std::map<std::string, long long *> sink;
    qfx::trace_sink = &sink;
    long long failed = 0;
    for (long long i = 0; i < frames && !failed; i++) {{
        for (long long k = 0; k < count; k++)
            sink[names[k]] = buffers[k] + i * sizes[k];
        failed = run_frames(x, y, i, i + 1);
    }}
    qfx::trace_sink = NULL;
    return failed;
}}
}}
"""

_TEST = """\
// Written by QFX: test bench for C simulation and C/RTL co-simulation.
// It fails (returns 1) unless every output code is the expected one.
// tb_data/inputs.txt, tb_data/outputs.txt: one frame a line, integer codes in channels-last order.
#include "firmware/{top}.h"
#include "firmware/nnet_utils/nnet_helpers.h"
#include "firmware/nnet_utils/qfx_cast.h"
#include "firmware/nnet_utils/qfx_trace.h"
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace nnet {{
bool trace_enabled = false;
std::map<std::string, void *> *trace_outputs = NULL;
size_t trace_type_size = sizeof(double);
}} // namespace nnet

namespace qfx {{
std::map<std::string, long long *> *trace_sink = NULL;
}} // namespace qfx

static int run_frame(const long long *x, long long *y) {{
{body}
}}

static bool read_frame(std::ifstream &file, std::vector<long long> &codes) {{
    std::string line;
    if (!std::getline(file, line))
        return false;
    std::istringstream text(line);
    codes.clear();
    for (long long code; text >> code;)
        codes.push_back(code);
    return true;
}}

int main() {{
    std::ifstream inputs("tb_data/inputs.txt"), outputs("tb_data/outputs.txt");
#ifdef RTL_SIM
    std::ofstream log("tb_data/rtl_cosim_results.log");
#else
    std::ofstream log("tb_data/csim_results.log");
#endif
    std::vector<long long> x, expected, y({out_size});
    unsigned frames = 0, differ = 0;
    while (read_frame(inputs, x) && read_frame(outputs, expected)) {{
        if (x.size() != {in_size} || expected.size() != {out_size}) {{
            std::cerr << "ERROR: frame " << frames << " has the wrong number of codes" << std::endl;
            return 1;
        }}
        if (run_frame(x.data(), y.data())) {{
            std::cerr << "ERROR: frame " << frames << " left data in a stream" << std::endl;
            return 1;
        }}
        for (unsigned i = 0; i < {out_size}; i++) {{
            log << y[i] << (i + 1 < {out_size} ? " " : "\\n");
            if (y[i] != expected[i] && differ++ == 0)
                std::cerr << "ERROR: frame " << frames << ", output " << i << ": " << y[i] << ", expected "
                          << expected[i] << std::endl;
        }}
        frames++;
    }}
    std::cout << "INFO: " << frames << " frames, " << differ << " differing outputs" << std::endl;
    return frames == 0 || differ != 0;
}}
"""


def bridge(top: str, inp: Port, out: Port) -> str:
    """The file ``<top>_bridge.cpp``."""
    return _BRIDGE.format(top=top, body=_run_frame(top, inp, out), in_size=inp.size, out_size=out.size)


def test_bench(top: str, inp: Port, out: Port) -> str:
    """The file ``<top>_test.cpp``."""
    return _TEST.format(top=top, body=_run_frame(top, inp, out), in_size=inp.size, out_size=out.size)


def _run_frame(top: str, inp: Port, out: Port) -> str:
    """Body of a function that sends one frame through the top-level function."""
    if not inp.beat:
        lines = [
            f"static {inp.type} data[{inp.size}];",
            f"static {out.type} result[{out.size}];",
            f"for (unsigned i = 0; i < {inp.size}; i++)",
            f"    data[i] = qfx::from_bits<{inp.type}>(ap_uint<qfx::word<{inp.type}>::width>(x[i]));",
            f"{top}(data, result);",
            f"for (unsigned i = 0; i < {out.size}; i++)",
            "    y[i] = (long long)qfx::code_of(result[i]);",
            "return 0;",
        ]
    else:
        lines = [
            f"typedef {inp.type}::value_type element_t;",
            f'hls::stream<{inp.type}> data("data");',
            f'hls::stream<{out.type}> result("result");',
            f"for (unsigned i = 0; i < {inp.size}; i += {inp.beat}) {{",
            f"    {inp.type} beat;",
            f"    for (unsigned j = 0; j < {inp.beat}; j++)",
            "        beat[j] = qfx::from_bits<element_t>(ap_uint<qfx::word<element_t>::width>(x[i + j]));",
            "    data.write(beat);",
            "}",
            f"{top}(data, result);",
            f"for (unsigned i = 0; i < {out.size}; i += {out.beat}) {{",
            "    if (result.empty())",
            "        return 1;",
            f"    {out.type} beat = result.read();",
            f"    for (unsigned j = 0; j < {out.beat}; j++)",
            "        y[i + j] = (long long)qfx::code_of(beat[j]);",
            "}",
            "return !data.empty() || !result.empty();",
        ]
    return "\n".join(f"    {line}" for line in lines)
