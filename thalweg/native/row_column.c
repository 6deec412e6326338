/* What the rows and the columns of matrices come to, in one reading. A block of ROWS × COLUMNS elements, which are
   defined before, as is T, a kind of number, and BITS, as many bits, lays down one number for each of its rows and
   columns; who adds up those of all blocks gets the same sums on any number of threads. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define PRAGMA(x) _Pragma(#x)
#define SIMD(reduction) PRAGMA(omp simd reduction)
#define INLINE static inline __attribute__((always_inline))
#define PARALLEL_FOR PRAGMA(omp parallel for num_threads(threads) if(threads > 1) schedule(static))

#define SQRT(x) _Generic((T)0, float: sqrtf, double: sqrt)(x)
static int64_t less(int64_t a, int64_t b) { return a < b ? a : b; }
/* of what is not negative: bits are ordered like numbers, and NaN is above all */
static inline BITS bits_of(T x) { BITS y; memcpy(&y, &x, sizeof y); return y; }
static inline T number_of(BITS x) { T y; memcpy(&y, &x, sizeof y); return y; }
static inline T smaller(T a, T b) { return a <= b || a != a ? a : b; }

/* Add the squares of rows, one below the other, to the columns; lay down the sum of each row. Of four rows at once, the
   columns are loaded and stored a quarter as often. */
INLINE void add_squares(const int together, const T *restrict a, int64_t n, int64_t columns, T *restrict of_rows,
                        T *restrict of_columns)
{
    const T *restrict b = a + n, *restrict c = b + n, *restrict d = c + n;
    T of_a = 0, of_b = 0, of_c = 0, of_d = 0;
    SIMD(reduction(+: of_a, of_b, of_c, of_d))
    for (int64_t j = 0; j < columns; j++) {
        const T A = a[j] * a[j], B = together > 1 ? b[j] * b[j] : 0;
        const T C = together > 1 ? c[j] * c[j] : 0, D = together > 1 ? d[j] * d[j] : 0;
        of_columns[j] += (A + B) + (C + D);
        of_a += A, of_b += B, of_c += C, of_d += D;
    }
    const T sums[] = {of_a, of_b, of_c, of_d};
    for (int i = 0; i < together; i++) of_rows[i] = sums[i];
}

/* The sums of squares of `count` matrices of m × n, one behind the other.
   by_row[matrix][strip of columns][row], by_column[matrix][block of rows][column] */
void squares(const T *x, int64_t count, int64_t m, int64_t n, T *by_row, T *by_column, int threads)
{
    const int64_t blocks = (m + ROWS - 1) / ROWS, strips = (n + COLUMNS - 1) / COLUMNS;
    PARALLEL_FOR
    for (int64_t k = 0; k < count * blocks * strips; k++) {
        const int64_t matrix = k / (blocks * strips), block = k / strips % blocks, strip = k % strips;
        const int64_t top = block * ROWS, rows = less(ROWS, m - top);
        const int64_t left = strip * COLUMNS, columns = less(COLUMNS, n - left);
        const T *restrict row = x + (matrix * m + top) * n + left;
        T *restrict of_rows = by_row + (matrix * strips + strip) * m + top;
        T *restrict of_columns = by_column + (matrix * blocks + block) * n + left;
        for (int64_t j = 0; j < columns; j++) of_columns[j] = 0;
        int64_t i = 0;
        for (; i + 4 <= rows; i += 4, row += 4 * n) add_squares(4, row, n, columns, of_rows + i, of_columns);
        for (; i < rows; i++, row += n) add_squares(1, row, n, columns, of_rows + i, of_columns);
    }
}

/* as torch does it: b, and not nearly so, where the weight is 1 */
static inline T lerp(T a, T b, T weight) { return (weight < (T)0.5 ? a : b) + (weight < (T)0.5 ? weight : weight - 1) * (b - a); }

/* The same for matrices of few elements, of which a block is done in one go, and at once what follows from the sums: the
   running means r and c of the means of x² + added, and 1 / √(r c / r̄) of each element. */
#define SMALL 2048  /* numbers of a block that lie in a processor's first cache */
INLINE void small_block(const T *restrict x, int64_t count, const int64_t m, const int64_t n, const T *restrict r,
                        const T *restrict c, T weight, T added, T least, T *restrict new_r, T *restrict new_c,
                        T *restrict root)
{
    T of_row[SMALL], of_column[SMALL], mean[SMALL];
    for (int64_t k = 0; k < count; k++) {
        const T *restrict matrix = x + k * m * n;
        T *restrict rows = of_row + k * m, *restrict columns = of_column + k * n;
        for (int64_t j = 0; j < n; j++) columns[j] = 0;
        for (int64_t i = 0; i < m; i++) {
            T sum = 0;
            for (int64_t j = 0; j < n; j++) {
                const T square = matrix[i * n + j] * matrix[i * n + j];
                columns[j] += square;
                sum += square;
            }
            rows[i] = sum;
        }
    }
    SIMD()
    for (int64_t i = 0; i < count * m; i++) new_r[i] = lerp(r[i], of_row[i] / n + added, weight);
    SIMD()
    for (int64_t j = 0; j < count * n; j++) {
        new_c[j] = lerp(c[j], of_column[j] / m + added, weight);
        of_column[j] = 1 / SQRT(new_c[j]);
    }
    for (int64_t k = 0; k < count; k++) {
        T sum = 0;
        for (int64_t i = 0; i < m; i++) sum += new_r[k * m + i];
        const T average = sum / m;
        for (int64_t i = 0; i < m; i++) mean[k * m + i] = average < least ? least : average;
    }
    SIMD()
    for (int64_t i = 0; i < count * m; i++) of_row[i] = 1 / SQRT(new_r[i] / mean[i]);
    for (int64_t k = 0; k < count; k++)
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) root[(k * m + i) * n + j] = of_row[k * m + i] * of_column[k * n + j];
}

/* the sizes of most kernels of convolutions, known beforehand, spare the compiler its loops */
#define OF_SIZE(size) if (m == size && n == size) { \
        small_block(x + k * m * n, some, size, size, r + k * m, c + k * n, weight, added, least, new_r + k * m, new_c + k * n, \
                    root + k * m * n); continue; }
void small(const T *x, int64_t count, int64_t m, int64_t n, const T *r, const T *c, double weight_of_new,
           double added_to_square, double least_mean, T *new_r, T *new_c, T *root, int threads)
{
    const T weight = (T)weight_of_new, added = (T)added_to_square, least = (T)least_mean;
    const int64_t at_once = SMALL / (m > n ? m : n), blocks = (count + at_once - 1) / at_once;
    PARALLEL_FOR
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t k = block * at_once, some = less(at_once, count - k);
        OF_SIZE(1) OF_SIZE(3) OF_SIZE(5) OF_SIZE(7)
        small_block(x + k * m * n, some, m, n, r + k * m, c + k * n, weight, added, least, new_r + k * m, new_c + k * n,
                    root + k * m * n);
    }
}

INLINE BITS more(BITS a, BITS b) { return a > b ? a : b; }
/* Raise the columns to the largest of rows, one below the other; lay down the largest of each row. */
INLINE void raise(const int together, const T *restrict a, int64_t n, int64_t columns, T kept, T added, const T *r,
                  const T *restrict c, T *restrict of_rows, T *restrict of_columns)
{
#define V(i) bits_of(kept * smaller(r##i, c[j]) + added * (a[(i) * n + j] * a[(i) * n + j]))
    const T r0 = r[0], r1 = together > 1 ? r[1] : 0, r2 = together > 1 ? r[2] : 0, r3 = together > 1 ? r[3] : 0;
    BITS most0 = 0, most1 = 0, most2 = 0, most3 = 0;
    SIMD(reduction(max: most0, most1, most2, most3))
    for (int64_t j = 0; j < columns; j++) {
        const BITS v0 = V(0), v1 = together > 1 ? V(1) : 0, v2 = together > 1 ? V(2) : 0, v3 = together > 1 ? V(3) : 0;
        of_columns[j] = number_of(more(bits_of(of_columns[j]), more(more(v0, v1), more(v2, v3))));
        most0 = more(v0, most0), most1 = more(v1, most1), most2 = more(v2, most2), most3 = more(v3, most3);
    }
    const BITS most[] = {most0, most1, most2, most3};
    for (int i = 0; i < together; i++) of_rows[i] = number_of(most[i]);
#undef V
}

/* The largest of kept · min(r of the row, c of the column) + added · x² in each row and column of an m × n matrix, laid
   down like the sums above; nothing of it is negative. */
void largest(const T *x, int64_t m, int64_t n, const T *r, const T *c, double kept_of_least, double added_of_square,
             T *by_row, T *by_column, int threads)
{
    const int64_t blocks = (m + ROWS - 1) / ROWS, strips = (n + COLUMNS - 1) / COLUMNS;
    const T kept = (T)kept_of_least, added = (T)added_of_square;
    PARALLEL_FOR
    for (int64_t k = 0; k < blocks * strips; k++) {
        const int64_t block = k / strips, strip = k % strips;
        const int64_t top = block * ROWS, rows = less(ROWS, m - top);
        const int64_t left = strip * COLUMNS, columns = less(COLUMNS, n - left);
        const T *restrict row = x + top * n + left;
        const T *restrict bound = c + left;
        T *restrict of_columns = by_column + block * n + left;
        T *restrict of_rows = by_row + strip * m + top;
        for (int64_t j = 0; j < columns; j++) of_columns[j] = 0;
        int64_t i = 0;
        for (; i + 4 <= rows; i += 4, row += 4 * n)
            raise(4, row, n, columns, kept, added, r + top + i, bound, of_rows + i, of_columns);
        for (; i < rows; i++, row += n)
            raise(1, row, n, columns, kept, added, r + top + i, bound, of_rows + i, of_columns);
    }
}
