/* SGD (momentum), computed in float */
typedef float T;
/* … what all kernels begin with … */

/* pass 1 of 1: reads p, g, momentum_buffer; writes p, momentum_buffer */
void stage_0(const Job *job, const double *host)
{
    PARALLEL
    for (int64_t c = first_of(job); c < last_of(job); c++) {
        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];
        const double *const h = host + job->entry[t] * 4;
        const T h_momentum = (T)h[0];
        const T h_sub_1 = (T)h[1];
        const T h_neg = (T)h[2];
        float *const at_p = ((void **)job->table[0])[t];
        const float *const at_g = ((void **)job->table[1])[t];
        float *const at_momentum_buffer = ((void **)job->table[2])[t];
        const char *const next_p = NEXT(0, at_p);
        const char *const next_g = NEXT(1, at_g);
        const char *const next_momentum_buffer = NEXT(2, at_momentum_buffer);
        const int64_t from = begin, to = end;
        for (int64_t at = from; at < to; at += 32) {
            if (UNFORESEEN) {
                AHEAD(at_p, next_p, 32)
                AHEAD(at_g, next_g, 32)
                AHEAD(at_momentum_buffer, next_momentum_buffer, 32)
            }
            STRETCH(32,
                SIMD()
                for (int64_t i = at; i < at + n; i++) {
                    const T x_p = at_p[i];
                    const T x_g = at_g[i];
                    const T x_momentum_buffer = at_momentum_buffer[i];
                    const T x_mul_1 = h_momentum * x_momentum_buffer;
                    const T x_add_scaled = x_mul_1 + h_sub_1 * x_g;
                    const T x_add_scaled_1 = x_p + h_neg * x_add_scaled;
                    at_p[i] = x_add_scaled_1;
                    at_momentum_buffer[i] = x_add_scaled;
                }
            )
        }
    }
}
