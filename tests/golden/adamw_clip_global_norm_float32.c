/* AdamW (clip_global_norm, weight_decay), computed in float */
typedef float T;
/* … what all kernels begin with … */

/* pass 1 of 2: reads g; writes nothing */
void stage_0(const Job *job, const double *host)
{
    PARALLEL
    for (int64_t c = first_of(job); c < last_of(job); c++) {
        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];
        const float *const at_g = ((void **)job->table[1])[t];
        const char *const next_g = NEXT(1, at_g);
        double all_grad_squares = 0;
        const int64_t from = begin, to = end;
        T sum_grad_squares[32] = {0};
        for (int64_t at = from; at < to; at += 32) {
            if (UNFORESEEN) {
                AHEAD(at_g, next_g, 32)
            }
            STRETCH(32,
                SIMD()
                for (int64_t i = at; i < at + n; i++) {
                    const T x_g = at_g[i];
                    const T x_mul = x_g * x_g;
                    sum_grad_squares[i - at] += x_mul;
                }
            )
        }
        all_grad_squares += sum_of(sum_grad_squares, 32);
        job->partial[c * 1 + 0] = all_grad_squares;
    }
}

/* pass 2 of 2: reads p, g, exp_avg, exp_avg_sq; writes p, exp_avg, exp_avg_sq */
void stage_1(const Job *job, const double *host)
{
    PARALLEL
    for (int64_t c = first_of(job); c < last_of(job); c++) {
        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];
        const double *const h = host + job->entry[t] * 11;
        const T h_clip_global_norm = (T)h[0];
        const T h_sub = (T)h[1];
        const T h_betas_1 = (T)h[2];
        const T h_sub_1 = (T)h[3];
        const T h_reciprocal = (T)h[4];
        const T h_eps = (T)h[5];
        const T h_reciprocal_1 = (T)h[6];
        const T h_sub_4 = (T)h[7];
        const T h_neg = (T)h[8];
        float *const at_p = ((void **)job->table[0])[t];
        const float *const at_g = ((void **)job->table[1])[t];
        float *const at_exp_avg = ((void **)job->table[2])[t];
        float *const at_exp_avg_sq = ((void **)job->table[3])[t];
        const char *const next_p = NEXT(0, at_p);
        const char *const next_g = NEXT(1, at_g);
        const char *const next_exp_avg = NEXT(2, at_exp_avg);
        const char *const next_exp_avg_sq = NEXT(3, at_exp_avg_sq);
        const T t_grad_squares = (T)h[9];
        const T t_sqrt = sqrtf(t_grad_squares);
        const T t_add = t_sqrt + 1e-06f;
        const T t_div = h_clip_global_norm / t_add;
        const T t_minimum = (!(t_div >= 1.0f) & (1.0f == 1.0f) ? t_div : 1.0f);
        const int64_t from = begin, to = end;
        for (int64_t at = from; at < to; at += 32) {
            if (UNFORESEEN) {
                AHEAD(at_p, next_p, 32)
                AHEAD(at_g, next_g, 32)
                AHEAD(at_exp_avg, next_exp_avg, 32)
                AHEAD(at_exp_avg_sq, next_exp_avg_sq, 32)
            }
            STRETCH(32,
                SIMD()
                for (int64_t i = at; i < at + n; i++) {
                    const T x_p = at_p[i];
                    const T x_g = at_g[i];
                    const T x_exp_avg = at_exp_avg[i];
                    const T x_exp_avg_sq = at_exp_avg_sq[i];
                    const T x_mul_1 = x_g * t_minimum;
                    const T x_lerp = lerp(x_exp_avg, x_mul_1, h_sub);
                    const T x_mul_2 = h_betas_1 * x_exp_avg_sq;
                    const T x_addcmul = x_mul_2 + h_sub_1 * (x_mul_1 * x_mul_1);
                    const T x_sqrt_1 = sqrtf(x_addcmul);
                    const T x_mul_3 = x_sqrt_1 * h_reciprocal;
                    const T x_add_1 = x_mul_3 + h_eps;
                    const T x_mul_4 = x_lerp * h_reciprocal_1;
                    const T x_div_1 = x_mul_4 / x_add_1;
                    const T x_mul_6 = x_p * h_sub_4;
                    const T x_add_scaled = x_mul_6 + h_neg * x_div_1;
                    at_p[i] = x_add_scaled;
                    at_exp_avg[i] = x_lerp;
                    at_exp_avg_sq[i] = x_addcmul;
                }
            )
        }
    }
}
