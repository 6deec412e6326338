#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
int omp_get_thread_num(void);
int omp_get_num_threads(void);
#endif

#define PRAGMA(x) _Pragma(#x)
#define SIMD(reduction) PRAGMA(omp simd reduction)
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
    double **share, *partial;                    /* this batch's part of a total; what each chunk adds to sums */
    const int64_t *columns, *row;                /* of each tensor: the length of a row, and the rows before it */
    const uint32_t *id;                          /* the tensor's number in the optimizer, for random bits */
} Job;

/* where the k-th kind of data of the next chunk begins; of the last chunk, where it ends */
#define NEXT(k, x) (c + 1 < job->chunks ? (const char *)(((void **)job->table[k])[job->tensor[c + 1]]) \
        + job->begin[c + 1] * (int64_t)sizeof *x : (const char *)(x + end))
/* fetch what the loop will read soon, in this chunk or the next: of many streams, beside arithmetic, the processor
   foresees too little, and of the next tensor nothing */
#define AHEAD(x, next_x, at, stride) { \
        const int64_t over = at + (end - begin < 128 ? end - begin : 128) - end; \
        const char *const there = over < 0 ? (const char *)(x + end + over) : next_x + over * (int64_t)sizeof *x; \
        for (size_t byte = 0; byte < (stride) * sizeof *x; byte += 64) __builtin_prefetch(there + byte); }

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

static inline float as_float(uint32_t x) { float y; memcpy(&y, &x, 4); return y; }
static inline uint32_t as_bits(float x) { uint32_t y; memcpy(&y, &x, 4); return y; }
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
static inline uint32_t bits(uint32_t stream, uint32_t i)
{
    return mix(i * 0x9E3779B9u + stream);
}

static inline float from_bfloat16(uint16_t x) { return as_float((uint32_t)x << 16); }
static inline uint16_t to_bfloat16(float x)
{
    const uint32_t u = as_bits(x);
    return x != x ? 0x7FC0 : (uint16_t)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}
static inline uint16_t bfloat16_at_random(float x, uint32_t random)
{
    const uint32_t u = as_bits(x), finite = (u & 0x7F800000u) != 0x7F800000u;
    return x != x ? 0x7FC0 : (uint16_t)((u + (finite ? random & 0xFFFF : 0)) >> 16);
}
static inline _Float16 float16_at_random(float x, uint32_t random)
{
    const uint32_t u = as_bits(x), finite = (u & 0x7F800000u) != 0x7F800000u;
    return (_Float16)(finite ? as_float((u + (random & 0x1FFF)) & ~0x1FFFu) : x);
}
static inline float join(uint16_t high, int32_t low) { return as_float(((uint32_t)high << 16) + (uint32_t)low); }
static inline void split16(float x, uint16_t *high, int16_t *low)
{
    const uint32_t u = as_bits(x), finite = (u & 0x7F800000u) != 0x7F800000u;
    const uint32_t top = x != x ? 0x7FC0 : (u + (finite ? 0x8000u : 0)) >> 16;
    *high = (uint16_t)top;
    *low = finite ? (int16_t)(u - (top << 16)) : 0;
}
static inline void split8(float x, uint16_t *high, int8_t *low)
{
    const uint32_t v = as_bits(x), finite = (v & 0x7F800000u) != 0x7F800000u;
    const uint32_t u = finite ? (v + 0x80) & ~0xFFu : v;
    const uint32_t top = x != x ? 0x7FC0 : (u + (finite ? 0x8000u : 0)) >> 16;
    *high = (uint16_t)top;
    *low = finite ? (int8_t)((int32_t)(u - (top << 16)) >> 8) : 0;
}
static void decode_int8(const int8_t *restrict code, float *restrict x, int64_t n, float scale)
{
    PRAGMA(omp simd)
    for (int64_t i = 0; i < n; i++) {
        const float z = code[i] * (1.0f / 127);
        x[i] = z * (0.5f + 0.5f * z * z) * scale;
    }
}
static void decode_uint8(const uint8_t *restrict code, float *restrict x, int64_t n, float scale)
{
    PRAGMA(omp simd)
    for (int64_t i = 0; i < n; i++) {
        const float root = code[i] * (1.0f / 255) * scale;
        x[i] = root * root;
    }
}
static inline uint32_t larger_bits(uint32_t most, float x)  /* bits of |x| are ordered like it, and NaN is above all */
{
    const uint32_t u = as_bits(x) & 0x7FFFFFFFu;
    return u > most ? u : most;
}
static inline float up(uint32_t random) { return (float)(int32_t)random * 0x1p-16f; }
static void encode_int8(const float *restrict x, int8_t *restrict code, int64_t n, float top,
                        const uint32_t *restrict random)
{
    const float unit = top > 0 ? 1 / top : 0;
    PRAGMA(omp simd)
    for (int64_t i = 0; i < n; i++) {
        const float z = x[i] * unit, a = fabsf(z);
        const float over = z * (2 + a * (6.2869f + 11.4696f * a)), under = 1 + a * (3.0840f + a * (10.9547f + 4.7196f * a));
        code[i] = (int8_t)(int32_t)floorf(over / under * 127 + up(random[i]));
    }
}
static void encode_uint8(const float *restrict root, uint8_t *restrict code, int64_t n, float top,
                         const uint32_t *restrict random)
{
    const float unit = top > 0 ? 255 / top : 0;
    PRAGMA(omp simd)
    for (int64_t i = 0; i < n; i++) {
        int32_t q = (int32_t)(root[i] * unit + up(random[i]));
        q = q > 255 ? 255 : q;
        code[i] = (uint8_t)(q < 1 ? root[i] > 0 : q);  /* a denominator that is not zero stays so */
    }
}
