/* SGD (centralize=True), computed in float */
typedef float T;
/* … what all kernels begin with … */

/* pass 1 of 2: reads g; writes nothing */
void stage_0(const Job *job, const double *host)
{
    PARALLEL
    for (int64_t c = first_of(job); c < last_of(job); c++) {
        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];
        const uint16_t *const at_g = ((void **)job->table[1])[t];
        const char *const next_g = NEXT(1, at_g);
        const int64_t columns = job->columns[t];
        int64_t r = job->row[t] + begin / columns;
        for (int64_t row = begin; row < end; row += columns, r++) {
            double row_row_sum = 0;
            for (int64_t from = row; from < row + columns; from += 16384) {
                const int64_t left = row + columns - from;
                const int64_t to = from + (left < 16384 ? left : 16384);
                T sum_row_sum[32] = {0};
                for (int64_t at = from; at < to; at += 32) {
                    AHEAD(at_g, next_g, 32)
                    STRETCH(32,
                        T old_g[32];
                        decode_bfloat16(old_g, n, at_g + at);
                        SIMD()
                        for (int64_t i = at; i < at + n; i++) {
                            const T x_g = old_g[i - at];
                            sum_row_sum[i - at] += x_g;
                        }
                    )
                }
                row_row_sum += sum_of(sum_row_sum, 32);
            }
            job->sum[0][r] = row_row_sum;
        }
    }
}

/* pass 2 of 2: reads p, g; writes p */
void stage_1(const Job *job, const double *host)
{
    PARALLEL
    for (int64_t c = first_of(job); c < last_of(job); c++) {
        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];
        const double *const h = host + job->entry[t] * 2;
        const T h_neg = (T)h[0];
        uint16_t *const at_p = ((void **)job->table[0])[t];
        int16_t *const at_p_bits = ((void **)job->table[2])[t];
        const uint16_t *const at_g = ((void **)job->table[1])[t];
        const char *const next_p = NEXT(0, at_p);
        const char *const next_g = NEXT(1, at_g);
        const T t_is_matrix = (T)job->number[0][t];
        const T t_row_size = (T)job->number[1][t];
        const int64_t columns = job->columns[t];
        int64_t r = job->row[t] + begin / columns;
        for (int64_t row = begin; row < end; row += columns, r++) {
            const T r_row_sum = (T)job->sum[0][r];
            const T r_div = r_row_sum / t_row_size;
            const T r_mul = t_is_matrix * r_div;
            for (int64_t from = row; from < row + columns; from += 16384) {
                const int64_t left = row + columns - from;
                const int64_t to = from + (left < 16384 ? left : 16384);
                for (int64_t at = from; at < to; at += 32) {
                    AHEAD(at_p, next_p, 32)
                    AHEAD(at_g, next_g, 32)
                    STRETCH(32,
                        T old_p[32];
                        T old_g[32];
                        decode_split16(old_p, n, at_p + at, at_p_bits + at);
                        decode_bfloat16(old_g, n, at_g + at);
                        T new_p[32];
                        SIMD()
                        for (int64_t i = at; i < at + n; i++) {
                            const T x_p = old_p[i - at];
                            const T x_g = old_g[i - at];
                            const T x_sub = x_g - r_mul;
                            const T x_add_scaled = x_p + h_neg * x_sub;
                            new_p[i - at] = x_add_scaled;
                        }
                        encode_split16(new_p, n, at_p + at, at_p_bits + at);
                    )
                }
            }
        }
    }
}
