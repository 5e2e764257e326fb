#ifndef QFX_TRACE_H_
#define QFX_TRACE_H_

// C simulation only: the codes of intermediate tensors, for finding the first layer that differs.

#ifndef __SYNTHESIS__

#include "hls_stream.h"
#include "qfx_cast.h"
#include <cstddef>
#include <map>
#include <string>

namespace qfx {

// Where tensors are recorded, by layer name; layers that are not in the map are not recorded. Null: nothing is.
extern std::map<std::string, long long *> *trace_sink;

inline long long *trace_target(const char *layer) {
    if (!trace_sink)
        return nullptr;
    std::map<std::string, long long *>::iterator found = trace_sink->find(layer);
    return found == trace_sink->end() ? nullptr : found->second;
}

template <class T> void trace(const T *data, const char *layer, std::size_t size) {
    long long *target = trace_target(layer);
    if (!target)
        return;
    for (std::size_t i = 0; i < size; i++)
        target[i] = (long long)code_of(data[i]);
}

// Reads the stream empty and fills it again with the same beats.
template <class T> void trace(hls::stream<T> &data, const char *layer, std::size_t size) {
    long long *target = trace_target(layer);
    if (!target)
        return;
    for (std::size_t i = 0; i < size / T::size; i++) {
        T beat = data.read();
        for (std::size_t j = 0; j < T::size; j++)
            target[i * T::size + j] = (long long)code_of(beat[j]);
        data.write(beat);
    }
}

} // namespace qfx

#endif
#endif
