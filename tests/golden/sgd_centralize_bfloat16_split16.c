/* SGD (centralize=True), computed in float */
typedef float T;
/* … what all kernels begin with … */

/* pass 1 of 2: reads g; writes nothing */
void stage_0(const Job *job, const double *h)
{
    PARALLEL
    for (int64_t c = first_of(job); c < last_of(job); c++) {
        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];
        const uint16_t *const g = ((void **)job->table[1])[t];
        const char *const next_g = NEXT(1, g);
        const int64_t columns = job->columns[t];
        int64_t r = job->row[t] + begin / columns;
        for (int64_t from = begin; from < end; from += columns, r++) {
            const int64_t to = from + columns;
            T sum_row_sum[32] = {0};
            for (int64_t at = from; at < to; at += 32) {
                AHEAD(g, next_g, 32)
                STRETCH(32,
                    T old_g[32];
                    decode_bfloat16(old_g, n, g + at);
                    SIMD()
                    for (int64_t i = at; i < at + n; i++) {
                        const T x_g = old_g[i - at];
                        sum_row_sum[i - at] += x_g;
                    }
                )
            }
            job->sum[0][r] = sum_of(sum_row_sum, 32);
        }
    }
}

/* pass 2 of 2: reads p, g; writes p */
void stage_1(const Job *job, const double *h)
{
    const T h_neg = (T)h[0];
    PARALLEL
    for (int64_t c = first_of(job); c < last_of(job); c++) {
        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];
        uint16_t *const p = ((void **)job->table[0])[t];
        int16_t *const p_bits = ((void **)job->table[2])[t];
        const uint16_t *const g = ((void **)job->table[1])[t];
        const char *const next_p = NEXT(0, p);
        const char *const next_g = NEXT(1, g);
        const T t_is_matrix = (T)job->number[0][t];
        const T t_row_size = (T)job->number[1][t];
        const int64_t columns = job->columns[t];
        int64_t r = job->row[t] + begin / columns;
        for (int64_t from = begin; from < end; from += columns, r++) {
            const int64_t to = from + columns;
            const T r_row_sum = (T)job->sum[0][r];
            const T r_div = r_row_sum / t_row_size;
            const T r_mul = t_is_matrix * r_div;
            for (int64_t at = from; at < to; at += 32) {
                AHEAD(p, next_p, 32)
                AHEAD(g, next_g, 32)
                STRETCH(32,
                    T old_p[32];
                    T old_g[32];
                    decode_split16(old_p, n, p + at, p_bits + at);
                    decode_bfloat16(old_g, n, g + at);
                    T new_p[32];
                    SIMD()
                    for (int64_t i = at; i < at + n; i++) {
                        const T x_p = old_p[i - at];
                        const T x_g = old_g[i - at];
                        const T x_sub = x_g - r_mul;
                        const T x_add_scaled = x_p + h_neg * x_sub;
                        new_p[i - at] = x_add_scaled;
                    }
                    encode_split16(new_p, n, p + at, p_bits + at);
                )
            }
        }
    }
}
