/* What the rows and the columns of matrices come to, in one reading. A block of ROWS × COLUMNS elements, which are
   defined before, as is T, a kind of number, and BITS, as many bits, lays down one number for each of its rows and
   columns; who adds up those of all blocks gets the same sums on any number of threads. */
#include <stdint.h>
#include <string.h>

#define PRAGMA(x) _Pragma(#x)
#define SIMD(reduction) PRAGMA(omp simd reduction)
#define PARALLEL_FOR PRAGMA(omp parallel for num_threads(threads) if(threads > 1) schedule(static))

static int64_t less(int64_t a, int64_t b) { return a < b ? a : b; }
/* of what is not negative: bits are ordered like numbers, and NaN is above all */
static inline BITS bits_of(T x) { BITS y; memcpy(&y, &x, sizeof y); return y; }
static inline T number_of(BITS x) { T y; memcpy(&y, &x, sizeof y); return y; }
static inline T smaller(T a, T b) { return a <= b || a != a ? a : b; }

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
        for (int64_t i = 0; i < rows; i++, row += n) {
            T sum = 0;
            SIMD(reduction(+: sum))
            for (int64_t j = 0; j < columns; j++) {
                const T square = row[j] * row[j];
                of_columns[j] += square;
                sum += square;
            }
            of_rows[i] = sum;
        }
    }
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
        for (int64_t j = 0; j < columns; j++) of_columns[j] = 0;
        for (int64_t i = 0; i < rows; i++, row += n) {
            const T of_row = r[top + i];
            BITS most = 0;
            SIMD(reduction(max: most))
            for (int64_t j = 0; j < columns; j++) {
                const BITS v = bits_of(kept * smaller(of_row, bound[j]) + added * (row[j] * row[j]));
                const BITS before = bits_of(of_columns[j]);
                of_columns[j] = number_of(v > before ? v : before);
                most = v > most ? v : most;
            }
            by_row[strip * m + top + i] = number_of(most);
        }
    }
}
