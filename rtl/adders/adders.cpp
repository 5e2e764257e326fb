// A constant matrix times a vector as a graph of two-operand adders; the rules are in docs/parallel.md.
//
// Every row starts as a sum of coefficients times inputs. A pattern, (x_i << p) + s * (x_j << q), that occurs in several
// places becomes a node of the graph, and its occurrences become one term each; the pattern with the largest saving
// comes first, until none occurs twice. What is left of each row is added up, cheapest pair first.
//
// Unlike the classical method on canonical signed digits, a coefficient is kept as an integer: a digit may be taken out
// whenever that leaves fewer nonzero digits, so all minimal signed-digit forms of a coefficient offer their patterns.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <queue>
#include <random>
#include <unordered_map>
#include <vector>

namespace {

using i64 = std::int64_t;
using u64 = std::uint64_t;

// Cost of a bit of an adder in LUTs. Where one operand is constant, a LUT only inverts or passes on the other; synthesis
// often drops it, place and route may need it as the way into the carry chain.
constexpr double FULL = 1.0, INVERTED = 0.5, PASSED = 0.2;

// How many of the narrowest terms of a sum are looked at for its next adder.
constexpr std::size_t WINDOW = 32;

struct Node {
    i64 low, high;
    int depth, group;
    int a, b, shift_a, shift_b, sign_a, sign_b;    // a < 0: an input
    std::vector<i64> form;                         // as a combination of the inputs
};

struct Digit {
    int shift, sign;
};

struct Term {
    int node, shift, sign;
};

struct Coefficient {
    int node;
    i64 value;
};
using Row = std::vector<Coefficient>;

int bits(i64 low, i64 high) {
    u64 most = static_cast<u64>(std::max(high, -low - 1));
    int width = 0;
    for (; most; most >>= 1) width++;
    return width + (low < 0);
}

// Nonzero digits of the shortest signed-digit forms (Reitwiesner's non-adjacent form is one of them).
int weight(i64 value) {
    u64 v = static_cast<u64>(std::llabs(value));
    return __builtin_popcountll(v ^ (3 * v));
}

// Digits that stand in some shortest form: without them the value needs one digit less.
int digits(i64 value, Digit* out) {
    int count = 0, all = weight(value);
    if (!all) return 0;
    int top = 64 - __builtin_clzll(static_cast<u64>(std::llabs(value))) + 1;
    for (int shift = 0; shift < top; shift++)
        for (int sign = -1; sign <= 1; sign += 2)
            if (weight(value - sign * (i64{1} << shift)) == all - 1) out[count++] = {shift, sign};
    return count;
}

// LUTs of (sign_a * a << shift_a) + (sign_b * b << shift_b) with a result from low to high.
double adder_cost(const Node& a, int shift_a, int sign_a, const Node& b, int shift_b, int sign_b, i64 low, i64 high) {
    int width = bits(low, high);
    if (shift_a > shift_b) return adder_cost(b, shift_b, sign_b, a, shift_a, sign_a, low, high);
    // a reaches lower: its bits below b's lowest pass by when it is added, and are negated when it is subtracted.
    double cost = sign_a < 0 ? INVERTED * std::min(shift_b, width) - INVERTED * shift_a : 0;
    bool signed_a = a.low < 0, signed_b = b.low < 0;
    int top_a = shift_a + bits(a.low, a.high), top_b = shift_b + bits(b.low, b.high);
    bool any = sign_a < 0 || sign_b < 0;
    for (int k = shift_b; k < width; k++) {
        bool in_a = k < top_a, in_b = k < top_b;
        if (in_a && in_b) cost += FULL;
        else if (!in_a && !in_b) break;    // the function of the bit below once more
        else if (in_a ? signed_b : signed_a) cost += FULL;
        else cost += any ? INVERTED : PASSED;
    }
    return std::max(cost, PASSED);
}

class Optimizer {
  public:
    std::vector<Node> nodes;
    std::vector<Term> outputs;
    double cost = 0;

    Optimizer(const std::vector<Node>& inputs, const std::vector<Row>& matrix, double exponent, double noise, u64 seed,
              double depth_weight)
        : nodes(inputs), rows(matrix), exponent(exponent), noise(noise), random(seed), depth_weight(depth_weight) {}

    void run() {
        share();
        for (Row& row : rows) outputs.push_back(sum(row));
    }

  private:
    struct Count {
        int places;
        double saving;    // of a place, < 0 while unknown
    };
    struct Candidate {
        double saving;
        u64 pattern;
        bool operator<(const Candidate& other) const {
            return saving < other.saving || (saving == other.saving && pattern > other.pattern);
        }
    };
    // (x_i << max(-d, 0)) + sign * (x_j << max(d, 0)), i <= j
    struct Pattern {
        int i, j, d, sign;
        explicit Pattern(u64 key)
            : i(static_cast<int>(key >> 40)), j(static_cast<int>(key >> 16 & 0xffffff)),
              d(static_cast<int>(key >> 1 & 0x7fff) - 128), sign(key & 1 ? -1 : 1) {}
        static u64 key(int i, int j, int d, int sign) {
            return static_cast<u64>(i) << 40 | static_cast<u64>(j) << 16 | static_cast<u64>(d + 128) << 1 | (sign < 0);
        }
        int shift_i() const { return std::max(-d, 0); }
        int shift_j() const { return std::max(d, 0); }
    };

    std::vector<Row> rows;
    double exponent, noise;
    std::mt19937_64 random;
    double depth_weight;
    std::unordered_map<u64, Count> counts;
    std::priority_queue<Candidate> queue;
    std::vector<std::pair<u64, int>> found;

    double quick_cost(const Node& a, int shift_a, int sign_a, const Node& b, int shift_b, int sign_b) const {
        i64 la = a.low * (i64{1} << shift_a), ha = a.high * (i64{1} << shift_a);
        i64 lb = b.low * (i64{1} << shift_b), hb = b.high * (i64{1} << shift_b);
        i64 low = (sign_a < 0 ? -ha : la) + (sign_b < 0 ? -hb : lb);
        i64 high = (sign_a < 0 ? -la : ha) + (sign_b < 0 ? -lb : hb);
        return adder_cost(a, shift_a, sign_a, b, shift_b, sign_b, low, high);
    }

    double pattern_saving(u64 key) {
        Pattern p(key);
        const Node &a = nodes[p.i], &b = nodes[p.j];
        double best = quick_cost(a, p.shift_i(), 1, b, p.shift_j(), p.sign);
        if (p.sign < 0) best = std::min(best, quick_cost(a, p.shift_i(), -1, b, p.shift_j(), 1));
        double saving = std::pow(best, exponent);
        if (noise > 0) saving *= 1 + noise * static_cast<double>(random() >> 11) * 0x1p-53;
        return saving;
    }

    void change(u64 key, int by) {
        Count& count = counts.try_emplace(key, Count{0, -1}).first->second;
        count.places += by;
        if (by > 0 && count.places >= 2) {
            if (count.saving < 0) count.saving = pattern_saving(key);
            queue.push({(count.places - 1) * count.saving, key});
        }
    }

    void note(u64 key, int most) {
        for (auto& entry : found)
            if (entry.first == key) {
                if (entry.second < most) entry.second++;
                return;
            }
        found.push_back({key, 1});
    }

    int group(const Coefficient& c) const { return nodes[static_cast<std::size_t>(c.node)].group; }

    // Adds (by = 1) or removes the patterns that two coefficients of a row offer.
    void offer(const Coefficient& x, const Coefficient& y, int by) {
        if (group(x) != group(y)) return;
        const Coefficient &a = x.node <= y.node ? x : y, &b = x.node <= y.node ? y : x;
        Digit da[130], db[130];
        found.clear();
        int na = digits(a.value, da);
        if (a.node == b.node) {
            int most = weight(a.value) / 2;
            if (!most) return;
            for (int s = 0; s < na; s++) {
                int nb = digits(a.value - da[s].sign * (i64{1} << da[s].shift), db);
                for (int t = 0; t < nb; t++)
                    if (db[t].shift > da[s].shift)
                        note(Pattern::key(a.node, a.node, db[t].shift - da[s].shift, da[s].sign * db[t].sign), most);
            }
        } else {
            int nb = digits(b.value, db), most = std::min(weight(a.value), weight(b.value));
            for (int s = 0; s < na; s++)
                for (int t = 0; t < nb; t++)
                    note(Pattern::key(a.node, b.node, db[t].shift - da[s].shift, da[s].sign * db[t].sign), most);
        }
        for (auto& entry : found) change(entry.first, by * entry.second);
    }

    void share() {
        for (Row& row : rows)
            for (std::size_t a = 0; a < row.size(); a++)
                for (std::size_t b = a; b < row.size(); b++) offer(row[a], row[b], 1);
        while (!queue.empty()) {
            Candidate top = queue.top();
            queue.pop();
            Count& count = counts.find(top.pattern)->second;
            if (count.places < 2) continue;
            double saving = (count.places - 1) * count.saving;
            if (saving < top.saving - 1e-9) {    // its count fell since it was queued
                queue.push({saving, top.pattern});
                continue;
            }
            if (!apply(top.pattern)) counts.find(top.pattern)->second.places = -(1 << 28);
        }
    }

    struct Match {
        std::size_t row;
        i64 a, b, shared;
    };

    // Takes the pattern out of a pair of coefficients as often as it is in; the factor that it is left with.
    static i64 take(const Pattern& p, i64& a, i64& b) {
        i64 shared = 0;
        Digit da[130], db[130];
        for (;;) {
            bool more = false;
            int na = digits(a, da);
            for (int s = 0; s < na && !more; s++) {
                i64 rest = a - da[s].sign * (i64{1} << da[s].shift);
                const i64& other = p.i == p.j ? rest : b;
                int nb = digits(other, db);
                for (int t = 0; t < nb && !more; t++) {
                    if (db[t].shift - da[s].shift != p.d || da[s].sign * db[t].sign != p.sign) continue;
                    i64 digit = db[t].sign * (i64{1} << db[t].shift);
                    if (p.i == p.j) {
                        a = b = rest - digit;
                    } else {
                        a = rest;
                        b -= digit;
                    }
                    shared += da[s].sign * (i64{1} << (da[s].shift - p.shift_i()));
                    more = true;
                }
            }
            if (!more) return shared;
        }
    }

    bool apply(u64 key) {
        Pattern p(key);
        std::vector<Match> matches;
        int places = 0;
        for (std::size_t r = 0; r < rows.size(); r++) {
            i64 a = 0, b = 0;
            for (const Coefficient& c : rows[r]) {
                if (c.node == p.i) a = c.value;
                if (c.node == p.j) b = c.value;
            }
            if (!a || !b) continue;
            int before = weight(a) + (p.i == p.j ? 0 : weight(b));
            i64 shared = take(p, a, b);
            if (!shared) continue;
            places += (before - weight(a) - (p.i == p.j ? 0 : weight(b))) / 2;
            matches.push_back({r, a, b, shared});
        }
        if (places < 2) return false;
        int sign_i = 1, sign_j = p.sign;
        const Node &x = nodes[p.i], &y = nodes[p.j];
        if (p.sign < 0 && quick_cost(x, p.shift_i(), -1, y, p.shift_j(), 1) < quick_cost(x, p.shift_i(), 1, y, p.shift_j(), -1))
            sign_i = -1, sign_j = 1;
        int node = add(p.i, p.shift_i(), sign_i, p.j, p.shift_j(), sign_j);
        for (const Match& m : matches) {
            Row& row = rows[m.row];
            auto touched = [&](const Coefficient& c) { return c.node == p.i || c.node == p.j || c.node == node; };
            auto offer_touched = [&](int by) {
                for (std::size_t a = 0; a < row.size(); a++)
                    for (std::size_t b = a; b < row.size(); b++)
                        if (touched(row[a]) || touched(row[b])) offer(row[a], row[b], by);
            };
            offer_touched(-1);
            Row next;
            for (const Coefficient& c : row) {
                i64 value = c.node == p.i ? m.a : c.node == p.j ? m.b : c.value;
                if (value) next.push_back({c.node, value});
            }
            next.push_back({node, m.shared * sign_i});
            row = next;
            offer_touched(1);
        }
        return true;
    }

    int add(int a, int shift_a, int sign_a, int b, int shift_b, int sign_b) {
        Node node;
        const Node &x = nodes[a], &y = nodes[b];
        node.a = a, node.b = b, node.shift_a = shift_a, node.shift_b = shift_b, node.sign_a = sign_a, node.sign_b = sign_b;
        node.depth = std::max(x.depth, y.depth) + 1;
        node.group = x.group;
        node.low = node.high = 0;
        for (std::size_t i = 0; i < x.form.size(); i++) {
            i64 c = sign_a * (x.form[i] * (i64{1} << shift_a)) + sign_b * (y.form[i] * (i64{1} << shift_b));
            node.form.push_back(c);
            node.low += c * (c > 0 ? nodes[i].low : nodes[i].high);
            node.high += c * (c > 0 ? nodes[i].high : nodes[i].low);
        }
        cost += adder_cost(x, shift_a, sign_a, y, shift_b, sign_b, node.low, node.high);
        nodes.push_back(node);
        return static_cast<int>(nodes.size()) - 1;
    }

    int top(const Term& t) const {
        const Node& node = nodes[static_cast<std::size_t>(t.node)];
        return t.shift + bits(node.low, node.high);
    }

    struct Price {
        double luts;
        int sign_a, sign_b;
    };

    // What adding two terms costs, with the better of the two ways to subtract.
    Price pair_price(const Term& s, const Term& t) const {
        const Node &a = nodes[static_cast<std::size_t>(s.node)], &b = nodes[static_cast<std::size_t>(t.node)];
        int low = std::min(s.shift, t.shift), unlike = s.sign * t.sign < 0;
        Price best{1e300, 1, 1};
        for (int turn = 0; turn <= unlike; turn++) {
            int sign_a = turn ? -1 : 1, sign_b = unlike ? -sign_a : 1;
            double luts = quick_cost(a, s.shift - low, sign_a, b, t.shift - low, sign_b) + depth_weight * std::max(a.depth, b.depth);
            if (luts < best.luts) best = {luts, sign_a, sign_b};
        }
        return best;
    }

    Term sum(const Row& row) {
        std::vector<Term> terms;
        for (const Coefficient& c : row) {
            u64 rest = static_cast<u64>(std::llabs(c.value));
            int sign = c.value < 0 ? -1 : 1;
            for (int shift = 0; rest; shift++, rest >>= 1)
                if (rest & 1) {
                    int digit = (rest & 3) == 3 ? -1 : 1;
                    terms.push_back({c.node, shift, sign * digit});
                    rest -= static_cast<u64>(digit);
                }
        }
        if (terms.empty()) return {-1, 0, 1};
        // Prices of pairs are kept: of many terms, a step changes one.
        std::vector<std::size_t> names(terms.size());
        for (std::size_t i = 0; i < names.size(); i++) names[i] = i;
        std::size_t named = names.size();
        std::unordered_map<u64, Price> known;
        while (terms.size() > 1) {
            // The narrowest come first, so of a long sum only they need to be looked at.
            std::size_t choice = std::min<std::size_t>(terms.size(), WINDOW);
            if (terms.size() > choice) {
                std::vector<std::size_t> order(terms.size());
                for (std::size_t i = 0; i < order.size(); i++) order[i] = i;
                std::stable_sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) { return top(terms[x]) < top(terms[y]); });
                std::vector<Term> sorted_terms;
                std::vector<std::size_t> sorted_names;
                for (std::size_t i : order) sorted_terms.push_back(terms[i]), sorted_names.push_back(names[i]);
                terms = sorted_terms, names = sorted_names;
            }
            std::size_t best_a = 0, best_b = 1;
            Price best{1e300, 1, 1};
            for (std::size_t a = 0; a < choice; a++)
                for (std::size_t b = a + 1; b < choice; b++) {
                    // The order within a pair is that of the list, which the name has to tell.
                    auto entry = known.try_emplace(static_cast<u64>(names[a]) << 32 | names[b], Price{-1, 1, 1});
                    Price& price = entry.first->second;
                    if (entry.second) price = pair_price(terms[a], terms[b]);
                    if (price.luts < best.luts) best = price, best_a = a, best_b = b;
                }
            Term s = terms[best_a], t = terms[best_b];
            int low = std::min(s.shift, t.shift);
            int node = add(s.node, s.shift - low, best.sign_a, t.node, t.shift - low, best.sign_b);
            terms.erase(terms.begin() + static_cast<std::ptrdiff_t>(best_b));
            names.erase(names.begin() + static_cast<std::ptrdiff_t>(best_b));
            terms[best_a] = {node, low, s.sign * best.sign_a};
            names[best_a] = named++;
        }
        return terms[0];
    }
};

}    // namespace

// settings: inputs, rows, room for adders, tries, inputs of a group: patterns join inputs of one group only. matrix: rows x inputs. low, high, depth: of each input.
// options: LUTs that a level less is worth when the rest of a row is added up.
// adders: per adder a, b, shift_a, shift_b, sign_a, sign_b; outputs: per row node (-1: zero), shift, sign.
// Returns the number of adders, or -1 when there is no room for them.
extern "C" int qfx_adders(const i64* settings, const i64* matrix, const i64* low, const i64* high, const i64* depth,
                          const double* options, i64* adders, i64* outputs) {
    const i64 inputs = settings[0], rows = settings[1], room = settings[2], tries = settings[3];
    std::vector<Node> nodes;
    for (i64 i = 0; i < inputs; i++) {
        Node node{low[i], high[i], static_cast<int>(depth[i]), static_cast<int>(i / settings[4]), -1, -1, 0, 0, 1, 1, std::vector<i64>(static_cast<std::size_t>(inputs))};
        node.form[static_cast<std::size_t>(i)] = 1;
        nodes.push_back(node);
    }
    std::vector<Row> start(static_cast<std::size_t>(rows));
    for (i64 r = 0; r < rows; r++)
        for (i64 i = 0; i < inputs; i++)
            if (i64 value = matrix[r * inputs + i]) start[static_cast<std::size_t>(r)].push_back({static_cast<int>(i), value});
    std::vector<Node> best;
    std::vector<Term> best_outputs;
    double least = 1e300;
    for (i64 t = 0; t < tries; t++) {
        // The first tries weigh a pattern by its adder's size, then by half of that; later ones add noise.
        double exponent = t % 2 ? 0.5 : 1.0, noise = t < 2 ? 0.0 : 0.2;
        Optimizer optimizer(nodes, start, exponent, noise, static_cast<u64>(t) + 1, options[0]);
        optimizer.run();
        if (optimizer.cost < least) {
            least = optimizer.cost;
            best = optimizer.nodes;
            best_outputs = optimizer.outputs;
        }
    }
    i64 count = static_cast<i64>(best.size()) - inputs;
    if (count > room) return -1;
    for (i64 k = 0; k < count; k++) {
        const Node& node = best[static_cast<std::size_t>(inputs + k)];
        const i64 record[6] = {node.a, node.b, node.shift_a, node.shift_b, node.sign_a, node.sign_b};
        std::copy(record, record + 6, adders + 6 * k);
    }
    for (i64 r = 0; r < rows; r++) {
        const Term& term = best_outputs[static_cast<std::size_t>(r)];
        const i64 record[3] = {term.node, term.shift, term.sign};
        std::copy(record, record + 3, outputs + 3 * r);
    }
    return static_cast<int>(count);
}
