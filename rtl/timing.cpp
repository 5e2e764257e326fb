// The timing model of qfx/rtl/timing.py, compiled: the same counters, the same order of evaluation. The classes there are the definition; a test
// compares the two state by state.
//
// Kernels stand in reverse topological order. Within a cycle each is looked at after everything that it feeds, so `ready` of its outputs is known; and before
// everything that feeds it, so `valid` of its inputs is still that of the present cycle.

#include <cstdint>
#include <vector>

namespace {

enum Kind : int64_t { STEPS, WINDOW, REORDER, FIFO, FORK, MATMUL };
enum Status : int { FINISHED, DEADLOCK, OUT_OF_TIME };
constexpr uint8_t TAKE0 = 1, TAKE1 = 2, MAKE = 4, PEEK1 = 8;

// A row of the table; p is: STEPS start, count / WINDOW start, count, depth, fill0 / REORDER length / FIFO depth, style / FORK start, count /
// MATMUL start, count, beats of a matrix.
struct Kernel {
    int64_t kind, latency, in0, in1, out, p[5];
};

struct State {
    uint64_t pipe = 0;  // bit 0: the beat on m_axis; bit latency-1: the newest
    int64_t position = 0;
    int64_t count = 0;  // fill, beats held, full buffers, done bits
    int64_t extra = 0;  // beats pushed in the last cycle, beats written of a frame
    int64_t most = 0;
};

uint64_t mix(uint64_t hash, uint64_t value) {
    for (int i = 0; i < 64; i += 16) hash = (hash ^ ((value >> i) & 0xffff)) * 0x100000001b3ULL;
    return hash;
}

}  // namespace

extern "C" int qfx_simulate(const int64_t* settings, const Kernel* kernels, const int64_t* fork_outputs, const uint8_t* steps,
                            const int64_t* need, const int64_t* drop, int64_t* times, int64_t* occupancy, int64_t* ends) {
    const int64_t count = settings[0], streams = settings[1], source = settings[2], sink = settings[3];
    const int64_t in_beats = settings[4], out_beats = settings[5], frames = settings[6], interval = settings[7];
    const int64_t max_cycles = settings[8], available = settings[9], patience = settings[10] + interval;
    int64_t *first_in = times, *first_out = times + frames, *last_out = times + 2 * frames, *hashes = times + 3 * frames;

    std::vector<uint8_t> valid(streams, 0), ready(streams, 0);
    std::vector<State> states(count);
    std::vector<int64_t> forks;
    for (int64_t k = count - 1; k >= 0; --k) {
        if (kernels[k].kind == FORK) forks.push_back(k);
        if (kernels[k].kind == WINDOW) states[k].count = kernels[k].p[3];
    }

    // Who reads a signal: a kernel is looked at again only when something it reads, or its own state, has changed.
    std::vector<int64_t> consumer(streams, -1), producer(streams, -1);
    for (int64_t k = 0; k < count; ++k) {
        const Kernel& kernel = kernels[k];
        consumer[kernel.in0] = consumer[kernel.in1] = k;
        if (kernel.kind == FORK)
            for (int64_t i = 0; i < kernel.p[1]; ++i) producer[fork_outputs[kernel.p[0] + i]] = k;
        else
            producer[kernel.out] = k;
    }
    std::vector<uint8_t> awake(count, 1);
    const auto set_valid = [&](int64_t stream, bool value) {
        if (valid[stream] == value) return;
        valid[stream] = value;
        if (consumer[stream] >= 0) awake[consumer[stream]] = 1;
    };
    const auto set_ready = [&](int64_t stream, bool value) {
        if (ready[stream] == value) return;
        ready[stream] = value;
        if (producer[stream] >= 0) awake[producer[stream]] = 1;
    };

    int64_t now = 0, quiet = 0, done = 0, frame = 0, beat = 0, got = 0;
    int status = FINISHED;
    ready[sink] = 1;
    while (done < frames) {
        if (now >= max_cycles) {
            status = OUT_OF_TIME;
            break;
        }
        set_valid(source, (available < 0 || frame < available) &&
                              now > (interval == 0 ? 0 : frame * interval + beat * interval / in_beats));
        for (int64_t k : forks) {
            const Kernel& kernel = kernels[k];
            for (int64_t i = 0; i < kernel.p[1]; ++i)
                set_valid(fork_outputs[kernel.p[0] + i], valid[kernel.in0] && !(states[k].count >> i & 1));
        }
        bool moved = valid[sink], frame_ends = false;
        if (valid[sink]) {
            if (got == 0) first_out[done] = now;
            if (++got == out_beats) {
                last_out[done] = now;
                got = 0;
                frame_ends = true;
            }
        }
        const bool offered = valid[source];
        for (int64_t k = 0; k < count; ++k) {
            if (!awake[k]) continue;
            awake[k] = 0;
            const Kernel& kernel = kernels[k];
            State& s = states[k];
            bool changed = false;
            if (kernel.kind == FIFO) {
                const bool room = s.count < kernel.p[0];
                const bool pops = valid[kernel.out] && ready[kernel.out], pushes = valid[kernel.in0] && room;
                changed = pops || pushes || s.extra;
                set_ready(kernel.in0, room);
                s.count += pushes - pops;
                s.extra = pushes && kernel.p[1] == 1;
                if (s.count > s.most) s.most = s.count;
                set_valid(kernel.out, s.count > s.extra);
            } else if (kernel.kind == FORK) {
                const int64_t all = (int64_t(1) << kernel.p[1]) - 1;
                int64_t took = s.count;
                for (int64_t i = 0; i < kernel.p[1]; ++i) took |= int64_t(ready[fork_outputs[kernel.p[0] + i]]) << i;
                set_ready(kernel.in0, took == all);
                if (valid[kernel.in0]) {
                    changed = took != s.count;
                    s.count = took == all ? 0 : took;
                }
            } else {
                const bool enabled = !(s.pipe & 1) || ready[kernel.out];
                bool fires = false, makes = true;
                if (kernel.kind == STEPS) {
                    const uint8_t step = steps[kernel.p[0] + s.position];
                    const bool take0 = step & TAKE0, take1 = step & TAKE1;
                    const bool have0 = !take0 || valid[kernel.in0], have1 = !(take1 || step & PEEK1) || valid[kernel.in1];
                    if (kernel.in1 != kernel.in0) set_ready(kernel.in1, enabled && take1 && have0);
                    set_ready(kernel.in0, enabled && take0 && have1);
                    fires = enabled && have0 && have1;
                    makes = step & MAKE;
                    if (fires && ++s.position == kernel.p[1]) s.position = 0;
                } else if (kernel.kind == WINDOW) {
                    const bool room = s.count < kernel.p[2], accepts = valid[kernel.in0] && room;
                    set_ready(kernel.in0, room);
                    fires = enabled && s.count > need[kernel.p[0] + s.position];
                    s.count += accepts;
                    changed = accepts;
                    if (fires) {
                        s.count -= drop[kernel.p[0] + s.position];
                        if (++s.position == kernel.p[1]) s.position = 0;
                    }
                } else if (kernel.kind == MATMUL) {
                    const bool room = s.count < 2, accepts = valid[kernel.in1] && room, full = s.count > 0;
                    const uint8_t step = steps[kernel.p[0] + s.position];
                    const bool takes = step & TAKE0;
                    set_ready(kernel.in1, room);
                    set_ready(kernel.in0, enabled && full && takes);
                    fires = enabled && full && (!takes || valid[kernel.in0]);
                    makes = step & MAKE;
                    changed = accepts;
                    if (accepts && ++s.extra == kernel.p[2]) {
                        s.extra = 0;
                        ++s.count;
                    }
                    if (fires && ++s.position == kernel.p[1]) {
                        s.position = 0;
                        --s.count;
                    }
                } else {  // REORDER
                    const bool room = s.count < 2, accepts = valid[kernel.in0] && room;
                    set_ready(kernel.in0, room);
                    fires = enabled && s.count > 0;
                    changed = accepts;
                    if (accepts && ++s.extra == kernel.p[0]) {
                        s.extra = 0;
                        ++s.count;
                    }
                    if (fires && ++s.position == kernel.p[0]) {
                        s.position = 0;
                        --s.count;
                    }
                }
                if (enabled) {
                    changed |= fires || s.pipe != 0;
                    s.pipe = s.pipe >> 1 | uint64_t(fires && makes) << (kernel.latency - 1);
                    set_valid(kernel.out, s.pipe & 1);
                }
            }
            if (changed) awake[k] = 1;
            moved |= changed;
        }
        if (offered && ready[source]) {
            moved = true;
            if (beat == 0 && frame < frames) first_in[frame] = now;
            if (++beat == in_beats) {
                beat = 0;
                ++frame;
            }
        }
        if (frame_ends) {
            uint64_t hash = mix(0xcbf29ce484222325ULL, beat);
            for (const State& s : states) hash = mix(mix(mix(mix(hash, s.pipe), s.position), s.count), s.extra);
            hashes[done++] = int64_t(hash);
        }
        quiet = moved ? 0 : quiet + 1;
        ++now;
        if (quiet > patience) {
            status = DEADLOCK;
            break;
        }
    }
    for (int64_t k = 0; k < count; ++k) occupancy[k] = states[k].most;
    ends[0] = now;
    ends[1] = done;
    return status;
}
