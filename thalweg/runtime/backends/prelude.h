#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
int omp_get_thread_num(void);
int omp_get_num_threads(void);
#endif

#define PRAGMA(x) _Pragma(#x)
#define SIMD(reduction) PRAGMA(omp simd reduction)
#define INLINE static inline __attribute__((always_inline))
#ifdef _OPENMP
#define PARALLEL PRAGMA(omp parallel num_threads(job->threads) if(job->threads > 1))
#else
#define PARALLEL
#endif

typedef struct {
    int64_t threads, tensors, chunks;
    const int64_t *tensor, *begin, *end, *cost;  /* of each chunk; cost adds up, to split the work evenly */
    void **table;                                /* table[k][t]: where the k-th kind of data of tensor t lies */
    double **number, **sum;                      /* number[k][t], sum[k][t]: one a tensor; sums of rows one a row */
    double *partial;                             /* what each chunk adds to sums and totals */
    const int64_t *columns, *row;                /* of each tensor: the length of a row, and the rows before it */
    const uint32_t *id;                          /* the tensor's number in the optimizer, for random bits */
    const int64_t *run;                          /* of parts of larger tensors, three each: where elements lie there */
    const int64_t *entry;                        /* which of the entries in the table of host numbers it takes */
} Job;

/* where the k-th kind of data of the next chunk begins; of the last chunk, where it ends */
#define NEXT(k, x) (c + 1 < job->chunks ? (const char *)(((void **)job->table[k])[job->tensor[c + 1]]) \
        + job->begin[c + 1] * (int64_t)sizeof *x : (const char *)(x + end))
/* fetch what the loop will read soon, in this chunk or the next: of many streams, beside arithmetic, the processor
   foresees too little, and of the next tensor nothing */
#define AHEAD(x, next_x, most) { \
        const int64_t over = at + (end - begin < 128 ? end - begin : 128) - end; \
        const char *const there = over < 0 ? (const char *)(x + end + over) : next_x + over * (int64_t)sizeof *x; \
        for (size_t byte = 0; byte < (most) * sizeof *x; byte += 64) __builtin_prefetch(there + byte); }
/* Whether this is worth while for numbers that are kept as they are computed. AMD's processors foresee the rest of a chunk
   once they have seen its beginning: a fifth of SGD's step was lost by fetching it. */
#if defined __znver3__ || defined __znver4__ || defined __znver5__
#define UNFORESEEN (at >= (end - begin < 1024 ? begin : end - 128))
#else
#define UNFORESEEN 1
#endif
#define MOST 128  /* elements of a stretch, at most */
/* do something for n elements from `at`, at most so many; nearly always as many, which, told beforehand, spares the
   compiler the loops for a rest */
#define STRETCH(most, ...) if (to - at >= most) { enum { n = most }; __VA_ARGS__ } \
    else { const int64_t n = to - at; __VA_ARGS__ }

/* the sum of n numbers, a power of two, in an order that does not depend on the processor; they are written over */
INLINE T sum_of(T *x, int64_t n)
{
    for (n /= 2; n; n /= 2) {
        SIMD()
        for (int64_t i = 0; i < n; i++) x[i] += x[n + i];
    }
    return *x;
}

static int64_t border(const Job *job, int64_t part, int64_t parts)
{
    const int64_t wanted = job->cost[job->chunks] / parts * part;
    int64_t low = 0, high = job->chunks;
    if (part == parts) return high;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (job->cost[middle] < wanted) low = middle + 1; else high = middle;
    }
    return low;
}
#ifdef _OPENMP
static int64_t first_of(const Job *job)
{
    return border(job, omp_get_thread_num(), omp_get_num_threads());
}
static int64_t last_of(const Job *job)
{
    return border(job, omp_get_thread_num() + 1, omp_get_num_threads());
}
#else
static int64_t first_of(const Job *job) { return 0; }
static int64_t last_of(const Job *job) { return job->chunks; }
#endif

/* Of all chunks, lay down those of tensors that have a gradient; `some` has room for them. */
void select_chunks(const Job *all, const uint64_t *gradient, int64_t *tensor, int64_t *begin, int64_t *end, int64_t *cost,
                   Job *some)
{
    int64_t n = 0;
    for (int64_t c = 0; c < all->chunks; c++) {
        if (!gradient[all->tensor[c]]) continue;
        tensor[n] = all->tensor[c];
        begin[n] = all->begin[c];
        end[n] = all->end[c];
        cost[n + 1] = cost[n] + all->cost[c + 1] - all->cost[c];
        n++;
    }
    some->chunks = n;
}

static inline float as_float(uint32_t x) { float y; memcpy(&y, &x, 4); return y; }
static inline uint32_t as_bits(float x) { uint32_t y; memcpy(&y, &x, 4); return y; }
static inline int is_finite(uint32_t u) { return (u & 0x7F800000u) != 0x7F800000u; }
static inline float up(uint32_t random) { return (float)(int32_t)random * 0x1p-16f; }
/* as torch does it: b, and not nearly so, where k is 1 */
INLINE T lerp(T a, T b, T k) { return (k < (T)0.5 ? a : b) + (k < (T)0.5 ? k : k - 1) * (b - a); }
/* e^x to about 1 unit in the last place, without a call, so that loops stay vectorized (Cephes' polynomial) */
static inline float exp_float(float x)
{
    x = 89 < x ? 89 : x;      /* from here on infinity, */
    x = -104 > x ? -104 : x;  /* and 0; NaN stays NaN */
    const float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f;
    r -= n * -2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1;
    const int32_t k = (int32_t)n, half = k >> 1;  /* 2^n itself may be no normal float; its two halves are */
    return y * as_float((uint32_t)(half + 127) << 23) * as_float((uint32_t)(k - half + 127) << 23);
}
#define EXP(x) _Generic((T)0, float: exp_float, double: exp)(x)
/* the cube root to about 1 unit in the last place, without a quotient: a^(-1/3) by a third of the exponent and a step of
   Householder's method of the third order, then a step of Newton's on a^(1/3) */
static inline float cbrt_float(float x)
{
    const int32_t small = fabsf(x) < 1e-30f;
    const float a = small ? fabsf(x) * 16777216 : fabsf(x);  /* 2^24, of root 2^8 */
    float z = as_float((uint32_t)(1419900000 - (int32_t)((float)(int32_t)as_bits(a) * (1 / 3.f))));
    const float h = 1 - a * z * z * z;
    z += z * h * (1 / 3.f + h * (2 / 9.f + h * (14 / 81.f)));
    float y = a * z * z;
    y -= (y * y * y - a) * (z * z * (1 / 3.f));
    y = copysignf(small ? y * (1 / 256.f) : y, x);
    return fabsf(x) < INFINITY ? y : x;  /* infinity and NaN are their own */
}
#define CBRT(x) _Generic((T)0, float: cbrt_float, double: cbrt)(x)

static inline uint32_t mix(uint32_t x)
{
    x ^= x >> 16; x *= 0x21F0AAADu; x ^= x >> 15; x *= 0x735A2D97u;
    return x ^ (x >> 15);
}
static inline uint32_t stream(uint32_t key, uint32_t tensor, uint32_t pair)
{
    return mix(key ^ mix(tensor * 8 + pair + 1));
}
/* 32 random bits for each of n elements, and half of them; there is room for whole groups of 32. Elements 16 apart share
   a hash, which the second takes turned by a byte. */
INLINE uint32_t turned(uint32_t x) { return x >> 8 | x << 24; }
INLINE void draw_anywhere(uint32_t stream, int64_t at, int64_t n, uint32_t *restrict bits)
{
    for (int64_t i = 0; i < n; i++) {
        const int64_t place = at + i;
        const uint32_t x = mix((uint32_t)(place / 32 * 16 + place % 16) * 0x9E3779B9u + stream);
        bits[i] = place & 16 ? turned(x) : x;
    }
}
INLINE void draw(uint32_t stream, int64_t at, int64_t n, uint32_t *restrict bits)
{
    if (at % 32 == 0) {
        for (int64_t i = 0; i < n; i += 32) {
            const uint32_t first = (uint32_t)((at + i) / 2) * 0x9E3779B9u + stream;
            uint32_t *restrict const here = bits + i, *restrict const there = here + 16;
            SIMD()
            for (int64_t j = 0; j < 16; j++) {
                const uint32_t x = mix((uint32_t)j * 0x9E3779B9u + first);
                here[j] = x;
                there[j] = turned(x);
            }
        }
        return;
    }
    draw_anywhere(stream, at, n, bits);  /* rows begin anywhere */
}
/* the same for a part of a larger tensor, where its elements lie `run[1]` side by side, from `run[0]`, `run[2]` apart */
static inline void draw_within(uint32_t stream, const int64_t *run, int64_t at, int64_t n, uint32_t *restrict bits)
{
    for (int64_t i = at; i < at + n;) {
        const int64_t k = i % run[1], rest = at + n - i, here = run[1] - k < rest ? run[1] - k : rest;
        draw_anywhere(stream, run[0] + i / run[1] * run[2] + k, here, bits + (i - at));
        i += here;
    }
}
#define HALF(bits, shift) ((bits) >> (shift) & 0xFFFF)

/* the formats: n numbers as they are kept, and back; `at_random` where a number is rounded up or down by random bits */
INLINE void decode_bfloat16(T *restrict y, int64_t n, const uint16_t *restrict x)
{
    SIMD()
    for (int64_t i = 0; i < n; i++) y[i] = as_float((uint32_t)x[i] << 16);
}
INLINE void encode_bfloat16(const T *restrict y, int64_t n, uint16_t *restrict x)
{
    SIMD()
    for (int64_t i = 0; i < n; i++) {
        const uint32_t u = as_bits(y[i]);
        x[i] = y[i] != y[i] ? 0x7FC0 : (uint16_t)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
    }
}
INLINE void encode_bfloat16_at_random(const T *restrict y, int64_t n, uint16_t *restrict x,
                                      const uint32_t *restrict bits, int shift)
{
    SIMD()
    for (int64_t i = 0; i < n; i++) {
        const uint32_t u = as_bits(y[i]);
        x[i] = y[i] != y[i] ? 0x7FC0 : (uint16_t)((u + HALF(bits[i], shift)) >> 16);  /* infinity has no bits to carry */
    }
}
/* on x86, gcc knows _Float16 from 12 on and clang from 15 on; where nothing stands in for it, kernels of float16 do not
   compile, and another backend serves them */
#if defined __FLT16_MANT_DIG__
typedef _Float16 float16;
#elif defined __clang__
typedef __fp16 float16;
#elif defined __F16C__
#include <immintrin.h>
typedef uint16_t float16;
#define TO_FLOAT16(x) _cvtss_sh((float)(x), 0)
#define FROM_FLOAT16(x) _cvtsh_ss(x)
#else
#define NO_FLOAT16
#endif
#ifndef TO_FLOAT16
#define TO_FLOAT16(x) (float16)(x)
#define FROM_FLOAT16(x) (x)
#endif
#ifndef NO_FLOAT16
INLINE void decode_float16(T *restrict y, int64_t n, const float16 *restrict x)
{
    SIMD()
    for (int64_t i = 0; i < n; i++) y[i] = FROM_FLOAT16(x[i]);
}
INLINE void encode_float16(const T *restrict y, int64_t n, float16 *restrict x)
{
    SIMD()
    for (int64_t i = 0; i < n; i++) x[i] = TO_FLOAT16(y[i]);
}
INLINE void encode_float16_at_random(const T *restrict y, int64_t n, float16 *restrict x,
                                     const uint32_t *restrict bits, int shift)
{
    SIMD()
    for (int64_t i = 0; i < n; i++) {
        const uint32_t u = as_bits(y[i]);
        const float fine = floorf((float)y[i] * 0x1p24f + up(HALF(bits[i], shift))) * 0x1p-24f;  /* among the smallest */
        const float rounded = as_float((u + (HALF(bits[i], shift) & 0x1FFF)) & ~0x1FFFu);
        x[i] = TO_FLOAT16(fabsf((float)y[i]) < 0x1p-14f ? fine : is_finite(u) ? rounded : y[i]);
    }
}
#endif
INLINE void decode_split16(T *restrict y, int64_t n, const uint16_t *restrict high, const int16_t *restrict low)
{
    SIMD()
    for (int64_t i = 0; i < n; i++) y[i] = as_float(((uint32_t)high[i] << 16) + (uint32_t)low[i]);
}
INLINE void encode_split16(const T *restrict y, int64_t n, uint16_t *restrict high, int16_t *restrict low)
{
    SIMD()
    for (int64_t i = 0; i < n; i++) {
        const uint32_t u = y[i] != y[i] ? 0x7FC00000 : as_bits(y[i]), top = (u + 0x8000) >> 16;
        high[i] = (uint16_t)top;
        low[i] = (int16_t)(u - (top << 16));  /* of what is not finite 0 */
    }
}
/* by way of 16 bits: bytes beside numbers would make the compiler widen all of them fourfold */
INLINE void decode_split8(T *restrict y, int64_t n, const uint16_t *restrict high, const int8_t *restrict low)
{
    int16_t wide[MOST];
    SIMD()
    for (int64_t i = 0; i < n; i++) wide[i] = (int16_t)(low[i] * 256);
    decode_split16(y, n, high, wide);
}
INLINE void encode_split8(const T *restrict y, int64_t n, uint16_t *restrict high, int8_t *restrict low)
{
    T rounded[MOST];
    int16_t wide[MOST];
    SIMD()
    for (int64_t i = 0; i < n; i++) {
        rounded[i] = y[i] != y[i] ? y[i] : as_float((as_bits(y[i]) + 0x80) & ~0xFFu);
    }
    encode_split16(rounded, n, high, wide);
    SIMD()
    for (int64_t i = 0; i < n; i++) low[i] = (int8_t)(wide[i] >> 8);
}
/* what is given as the product of a number for each row and one for each column of matrices, and where we are in it: at
   column j of a row, behind which `left` rows of its matrix lie. It is read from one end to the other, so that the
   quotients are taken once. */
typedef struct { const T *row, *column; int64_t j, width, left, height; } Product;
INLINE Product product(const T *row, const T *column, int64_t at, int64_t width, int64_t area)
{
    const int64_t matrix = at / area, inside = at - matrix * area, i = inside / width, height = area / width;
    return (Product){row + matrix * height + i, column + matrix * width, inside - i * width, width, height - 1 - i, height};
}
INLINE void next_row(Product *x)
{
    x->j = 0;
    x->row++;
    if (x->left-- > 0) return;
    x->left = x->height - 1;
    x->column += x->width;
}
INLINE void decode_product(T *restrict y, int64_t n, Product *restrict x)
{
    if (x->j == x->width) next_row(x);
    if (x->j + n <= x->width) {
        const T row = *x->row, *const column = x->column + x->j;
        SIMD()
        for (int64_t i = 0; i < n; i++) y[i] = row * column[i];
        x->j += n;
        return;
    }
    for (int64_t i = 0; i < n; x->j++, i++) {
        if (x->j == x->width) next_row(x);
        y[i] = *x->row * x->column[x->j];
    }
}

/* the formats of a block with one scale, its largest element; a code is found with 16 bits behind the point, to which
   random bits are added: a denominator that is not zero stays so */
#define POINT 65536.0f
INLINE float largest(const T *restrict y, int64_t n)
{
    uint32_t most = 0;  /* bits of |x| are ordered like it, and NaN is above all */
    SIMD(reduction(max: most))
    for (int64_t i = 0; i < n; i++) {
        const uint32_t u = as_bits(y[i]) & 0x7FFFFFFFu;
        most = u > most ? u : most;
    }
    return as_float(most);
}
INLINE void decode_int8(T *restrict y, int64_t n, const int8_t *restrict code, const float *restrict scale)
{
    const float linear = *scale * (0.5f / 127), cubic = *scale * (0.5f / (127 * 127 * 127));
    SIMD()
    for (int64_t i = 0; i < n; i++) {
        const float z = code[i];
        y[i] = z * (linear + cubic * (z * z));
    }
}
INLINE void encode_int8_at_random(const T *restrict y, int64_t n, int8_t *restrict code, float *restrict scale,
                                  const uint32_t *restrict bits, int shift)
{
    const float top = largest(y, n), unit = top > 0 ? 1 / top : 0;
    *scale = top;
    SIMD()
    for (int64_t i = 0; i < n; i++) {
        const float z = (float)y[i] * unit, a = fabsf(z);
        const float over = POINT * 254 + a * (POINT * 127 * 6.2869f + POINT * 127 * 11.4696f * a);
        const float under = 1 + a * (3.0840f + a * (10.9547f + 4.7196f * a));
        code[i] = (int8_t)(((int32_t)(z * over / under) + (int32_t)HALF(bits[i], shift)) >> 16);
    }
}
INLINE void decode_uint8(T *restrict y, int64_t n, const uint8_t *restrict code, const float *restrict scale)
{
    const float unit = *scale * (1.0f / 255);
    SIMD()
    for (int64_t i = 0; i < n; i++) {
        const float root = code[i] * unit;
        y[i] = root * root;
    }
}
INLINE void encode_uint8_at_random(const T *restrict root, int64_t n, uint8_t *restrict code, float *restrict scale,
                                   const uint32_t *restrict bits, int shift)
{
    const float top = largest(root, n), unit = top > 0 ? (POINT * 255 - 4) / top : 0;  /* rounded, still below 255 */
    *scale = top;
    SIMD()
    for (int64_t i = 0; i < n; i++) {
        const int32_t q = (int32_t)((float)root[i] * unit), least = root[i] > 0 ? (int32_t)POINT : 0;
        code[i] = (uint8_t)(((q > least ? q : least) + (int32_t)HALF(bits[i], shift)) >> 16);
    }
}
