/* Muon (weight_decay), computed in float */
typedef float T;
/* … what all kernels begin with … */

/* pass 1 of 2: reads g, momentum_buffer; writes momentum_buffer, lerp_1 */
void stage_0(const Job *job, const double *host)
{
    PARALLEL
    for (int64_t c = first_of(job); c < last_of(job); c++) {
        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];
        const double *const h = host + job->entry[t] * 3;
        const T h_sub = (T)h[0];
        const T h_momentum = (T)h[1];
        const float *const at_g = ((void **)job->table[1])[t];
        float *const at_momentum_buffer = ((void **)job->table[2])[t];
        float *const at_lerp_1 = ((void **)job->table[3])[t];
        const char *const next_g = NEXT(1, at_g);
        const char *const next_momentum_buffer = NEXT(2, at_momentum_buffer);
        const char *const next_lerp_1 = NEXT(3, at_lerp_1);
        const int64_t from = begin, to = end;
        for (int64_t at = from; at < to; at += 32) {
            if (UNFORESEEN) {
                AHEAD(at_g, next_g, 32)
                AHEAD(at_momentum_buffer, next_momentum_buffer, 32)
                AHEAD(at_lerp_1, next_lerp_1, 32)
            }
            STRETCH(32,
                SIMD()
                for (int64_t i = at; i < at + n; i++) {
                    const T x_g = at_g[i];
                    const T x_momentum_buffer = at_momentum_buffer[i];
                    const T x_lerp = lerp(x_momentum_buffer, x_g, h_sub);
                    const T x_lerp_1 = lerp(x_g, x_lerp, h_momentum);
                    at_momentum_buffer[i] = x_lerp;
                    at_lerp_1[i] = x_lerp_1;
                }
            )
        }
    }
}

/* pass 2 of 2: reads p, orthogonalize; writes p */
void stage_1(const Job *job, const double *host)
{
    PARALLEL
    for (int64_t c = first_of(job); c < last_of(job); c++) {
        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];
        const double *const h = host + job->entry[t] * 3;
        const T h_sub_1 = (T)h[0];
        const T h_neg = (T)h[1];
        float *const at_p = ((void **)job->table[0])[t];
        const float *const at_orthogonalize = ((void **)job->table[4])[t];
        const char *const next_p = NEXT(0, at_p);
        const char *const next_orthogonalize = NEXT(4, at_orthogonalize);
        const T t_update_scale = (T)job->number[0][t];
        const int64_t from = begin, to = end;
        for (int64_t at = from; at < to; at += 32) {
            if (UNFORESEEN) {
                AHEAD(at_p, next_p, 32)
                AHEAD(at_orthogonalize, next_orthogonalize, 32)
            }
            STRETCH(32,
                SIMD()
                for (int64_t i = at; i < at + n; i++) {
                    const T x_p = at_p[i];
                    const T x_orthogonalize = at_orthogonalize[i];
                    const T x_mul = x_orthogonalize * t_update_scale;
                    const T x_mul_2 = x_p * h_sub_1;
                    const T x_add_scaled = x_mul_2 + h_neg * x_mul;
                    at_p[i] = x_add_scaled;
                }
            )
        }
    }
}
