/* Adds a float32 update to bf16 weights and rounds, wherever float32 is precise enough to know how.
 *
 * The float32 sum t differs from the exact one by less than an error that is known. Where t - error
 * and t + error round to the same bf16 number, so does the exact sum; elsewhere the weight is
 * doubtful and is summed again in float64. What comes out therefore does not depend on how a CPU or
 * a compiler orders float32 arithmetic.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TILE 256
#define LANES 16
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

/* To nearest; what lies in the middle of two goes away from zero, but is doubtful anyway. */
static inline uint16_t rounded(float value) { return (uint16_t)((bits_of(value) + 0x8000u) >> 16); }

static inline float magnitude(float value) { return value < 0 ? -value : value; }

/* One tile; `differ` takes where the two roundings differ. Returns whether any do. */
static inline uint16_t add_tile(const uint16_t *restrict weights, const float *restrict update,
                                float tolerance, size_t count, uint16_t *restrict sums,
                                uint16_t *restrict differ, uint16_t *above) {
    uint16_t doubt = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        float sum = widened(weights[i]) + update[i];
        float error = tolerance + magnitude(sum) * SUM_TOLERANCE;
        uint16_t low = rounded(sum - error), high = rounded(sum + error);
        uint16_t size = high & 0x7FFFu;
        sums[i] = high;
        differ[i] = low ^ high;
        doubt |= low ^ high;
        largest = size > largest ? size : largest;
    }
    *above |= largest >= ABOVE_LARGEST;
    return doubt;
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

/* One weight as `tensors.narrow` rounds it: from float64 through float32, ties to even. */
static inline uint16_t exactly(uint16_t weight, const double *left, const double *right,
                               size_t rank, size_t columns) {
    double sum = 0;
    for (size_t k = 0; k < rank; k++) sum += left[k] * right[k * columns];
    uint32_t bits = bits_of((float)(sum + widened(weight)));
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

/* sums = weights + left @ right, of `rows` x `columns` weights.
 *
 * left, right: (rows, rank) and (rank, columns).
 * update: left @ right in float32.
 * tolerances: of each row, how far its updates may lie from the exact ones.
 * squares: the sum of weight^2 is added to it.
 * Returns 0, or -1: a sum is not finite in bf16.
 */
FOR_EACH_CPU
int add_rounded_bf16(const uint16_t *weights, const float *update, const float *tolerances,
                     const double *left, const double *right, size_t rows, size_t rank,
                     size_t columns, uint16_t *sums, double *squares) {
    uint16_t above = 0, differ[TILE];
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < columns; column += TILE) {
            size_t first = row * columns + column;
            size_t count = columns - column < TILE ? columns - column : TILE;
            *squares += sum_of_squares(weights + first, count);
            if (!add_tile(weights + first, update + first, tolerances[row], count, sums + first,
                          differ, &above))
                continue;
            for (size_t i = 0; i < count; i++)
                if (differ[i]) {
                    uint16_t sum = exactly(weights[first + i], left + row * rank,
                                           right + column + i, rank, columns);
                    above |= (sum & 0x7FFFu) >= ABOVE_LARGEST;
                    sums[first + i] = sum;
                }
        }
    return above ? -1 : 0;
}
