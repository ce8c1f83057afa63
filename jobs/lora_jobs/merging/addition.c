/* Adds a float32 update to bf16 weights and rounds, wherever float32 is precise enough to know how.
 *
 * The float32 sum t differs from the exact one by less than an error that is known. Where t - error
 * and t + error round to the same bf16 number, so does the exact sum; elsewhere the weight is
 * doubtful and is summed again in float64. What comes out therefore does not depend on how a CPU or
 * a compiler orders float32 arithmetic.
 *
 * A tile of columns is gone through at a time, for all rows: what it needs of the right factor
 * lies together and stays in the CPU's first cache.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TILE 256  /* columns; `addition.py` lays the right factor out by it */
#define WIDTH 64  /* columns at a time: as many sums as registers hold, and bits of a mask */
#define LANES 16
#define PARTS 8 /* sums in float64 that do not wait for each other */
#define SUM_TOLERANCE 0x1p-22f /* of |t|: one float32 addition, and those of the tolerance itself */
#define ABOVE_LARGEST 0x7F80u  /* bf16 infinity without its sign; NaN is above */

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float widened(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* To nearest, in the upper half; what lies in the middle of two goes away from zero, but is
 * doubtful anyway. */
static inline uint32_t rounded(float value) { return bits_of(value) + 0x8000u; }

static inline float magnitude(float value) {
    uint32_t bits = bits_of(value) & 0x7FFFFFFFu;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* update = left @ right, of one row and WIDTH columns of a tile. Two sums of each, for one would
 * wait for its last addition. */
static inline void multiply(const float *restrict left, const float *restrict right, size_t rank,
                            float *restrict update) {
    float even[WIDTH] = {0}, odd[WIDTH] = {0};
    size_t k = 0;
    for (; k + 2 <= rank; k += 2) {
        for (size_t i = 0; i < WIDTH; i++) even[i] += left[k] * right[k * TILE + i];
        for (size_t i = 0; i < WIDTH; i++) odd[i] += left[k + 1] * right[(k + 1) * TILE + i];
    }
    if (k < rank)
        for (size_t i = 0; i < WIDTH; i++) even[i] += left[k] * right[k * TILE + i];
    for (size_t i = 0; i < WIDTH; i++) update[i] = even[i] + odd[i];
}

/* t - error and t + error, rounded; returns whether they differ anywhere. */
static inline uint32_t round_both(const uint16_t *restrict weights, const float *restrict update,
                                  float tolerance, uint32_t *restrict low,
                                  uint32_t *restrict high) {
    uint32_t differ = 0;
    for (size_t i = 0; i < WIDTH; i++) {
        float sum = widened(weights[i]) + update[i];
        float error = tolerance + magnitude(sum) * SUM_TOLERANCE;
        low[i] = rounded(sum - error);
        high[i] = rounded(sum + error);
        differ |= low[i] ^ high[i];
    }
    return differ >> 16;
}

/* A bit for each weight whose two roundings differ. */
static inline uint64_t doubtful(const uint32_t *restrict low, const uint32_t *restrict high) {
    uint64_t found = 0;
    for (size_t i = 0; i < WIDTH; i++)
        found |= (uint64_t)((low[i] ^ high[i]) > 0xFFFFu) << i;
    return found;
}

/* One weight as `tensors.narrow` rounds it: from float64 through float32, ties to even. */
static inline uint32_t exactly(uint16_t weight, const double *left, const double *right,
                               size_t rank) {
    double parts[PARTS] = {0}, sum = 0;
    size_t k = 0;
    for (; k + PARTS <= rank; k += PARTS)
        for (size_t part = 0; part < PARTS; part++) parts[part] += left[k + part] * right[k + part];
    for (; k < rank; k++) sum += left[k] * right[k];
    for (size_t part = 0; part < PARTS; part++) sum += parts[part];
    uint32_t bits = bits_of((float)(sum + widened(weight)));
    return bits + 0x7FFFu + ((bits >> 16) & 1u);
}

/* The upper halves; returns the largest without its sign. */
static inline uint16_t narrow(const uint32_t *restrict rounded, uint16_t *restrict sums) {
    uint16_t largest = 0;
    for (size_t i = 0; i < WIDTH; i++) {
        sums[i] = (uint16_t)(rounded[i] >> 16);
        uint16_t size = sums[i] & 0x7FFFu;
        largest = size > largest ? size : largest;
    }
    return largest;
}

/* WIDTH sums of one row; returns the largest without its sign. */
static inline uint16_t add(const uint16_t *weights, const float *left, const float *tile,
                           float tolerance, const double *left_exact, const double *right,
                           size_t rank, uint16_t *sums) {
    float update[WIDTH];
    uint32_t low[WIDTH], high[WIDTH];
    multiply(left, tile, rank, update);
    if (round_both(weights, update, tolerance, low, high))
        for (uint64_t rest = doubtful(low, high); rest; rest &= rest - 1) {
            size_t i = (size_t)__builtin_ctzll(rest);
            high[i] = exactly(weights[i], left_exact, right + i * rank, rank);
        }
    return narrow(high, sums);
}

static inline size_t count_equal(const uint16_t *one, const uint16_t *other, size_t count) {
    uint16_t equal = 0; /* a tile's fit */
    for (size_t i = 0; i < count; i++) equal += one[i] == other[i];
    return equal;
}

static inline double sum_of_squares(const uint16_t *weights, size_t count) {
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++) {
            float weight = widened(weights[i + lane]);
            lanes[lane] += weight * weight;
        }
    double total = 0;
    for (; i < count; i++) total += (double)widened(weights[i]) * widened(weights[i]);
    for (size_t lane = 0; lane < LANES; lane++) total += lanes[lane];
    return total;
}

/* WIDTH columns at most, and their sums; returns the largest without its sign. */
static inline uint16_t add_some(const uint16_t *weights, size_t count, const float *left,
                                const float *tile, float tolerance, const double *left_exact,
                                const double *right, size_t rank, uint16_t *sums) {
    if (count >= WIDTH)
        return add(weights, left, tile, tolerance, left_exact, right, rank, sums);
    uint16_t given[WIDTH] = {0}, taken[WIDTH];
    memcpy(given, weights, count * sizeof *given);
    uint16_t largest = add(given, left, tile, tolerance, left_exact, right, rank, taken);
    memcpy(sums, taken, count * sizeof *taken);
    return largest;
}

/* sums = weights + left @ right, of `rows` x `columns` weights.
 *
 * left: (rows, rank), in both precisions.
 * tiles: the right factor in float32, (tiles, rank, TILE).
 * right: it in float64, transposed: (tiles * TILE, rank); both are filled up with zeros.
 * tolerances: of each row, how far its updates in float32 may lie from the exact ones.
 * squares, unchanged: the sum of weight^2, and how many sums are their weights, are added to them.
 * Returns 0, or -1: a sum is not finite in bf16.
 */
FOR_EACH_CPU
int add_rounded_bf16(const uint16_t *weights, const float *left, const float *tiles,
                     const float *tolerances, const double *left_exact, const double *right,
                     size_t rows, size_t rank, size_t columns, uint16_t *sums, double *squares,
                     size_t *unchanged) {
    uint16_t largest = 0;
    for (size_t tile = 0; tile < columns; tile += TILE)
        for (size_t row = 0; row < rows; row++) {
            size_t first = row * columns + tile;
            size_t count = columns - tile < TILE ? columns - tile : TILE;
            for (size_t done = 0; done < count; done += WIDTH) {
                uint16_t size = add_some(weights + first + done, count - done, left + row * rank,
                                         tiles + tile * rank + done, tolerances[row],
                                         left_exact + row * rank, right + (tile + done) * rank,
                                         rank, sums + first + done);
                largest = size > largest ? size : largest;
            }
            *squares += sum_of_squares(weights + first, count);
            *unchanged += count_equal(weights + first, sums + first, count);
        }
    return largest >= ABOVE_LARGEST ? -1 : 0;
}
