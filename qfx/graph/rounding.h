// The rounding modes of qfx.formats.rounding on whole vectors: exact, and free of branches.
#pragma once

#include <cmath>

namespace qfx {

enum Rounding : int { TRN, TRN_ZERO, RND, RND_ZERO, RND_INF, RND_MIN_INF, RND_CONV, AS_IT_IS };

template <int rounding, typename T>
inline T rounded(T v) {
    if constexpr (rounding == AS_IT_IS) return v;
    if constexpr (rounding == RND_CONV) return std::rint(v);
    if constexpr (rounding == TRN) return std::floor(v);
    if constexpr (rounding == TRN_ZERO) return std::trunc(v);
    // The distance to the nearest integer is exact, and tells ties: +0.5 where the tie went down, -0.5 where up.
    const T nearest = std::rint(v), rest = v - nearest, one = T(1), none = T(0);
    const bool up = rest == T(0.5), down = rest == T(-0.5);
    if constexpr (rounding == RND) return nearest + (up ? one : none);
    if constexpr (rounding == RND_MIN_INF) return nearest - (down ? one : none);
    if constexpr (rounding == RND_ZERO)
        return (nearest + (up & (v < none) ? one : none)) - (down & (v > none) ? one : none);
    return (nearest + (up & (v > none) ? one : none)) - (down & (v < none) ? one : none);  // RND_INF
}

}  // namespace qfx
