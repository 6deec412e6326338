/* AdamW (weight_decay), computed in float */
typedef float T;
/* … what all kernels begin with … */

/* pass 1 of 1: reads p, g, exp_avg, exp_avg_sq; writes p, exp_avg, exp_avg_sq */
void stage_0(const Job *job, const double *host)
{
    PARALLEL
    for (int64_t c = first_of(job); c < last_of(job); c++) {
        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];
        const double *const h = host + job->entry[t] * 9;
        const T h_sub = (T)h[0];
        const T h_betas_1 = (T)h[1];
        const T h_sub_1 = (T)h[2];
        const T h_reciprocal = (T)h[3];
        const T h_eps = (T)h[4];
        const T h_reciprocal_1 = (T)h[5];
        const T h_sub_4 = (T)h[6];
        const T h_neg = (T)h[7];
        float *const at_p = ((void **)job->table[0])[t];
        const float *const at_g = ((void **)job->table[1])[t];
        int8_t *const at_exp_avg = ((void **)job->table[2])[t];
        float *const at_exp_avg_scale = ((void **)job->table[4])[t];
        uint8_t *const at_exp_avg_sq = ((void **)job->table[3])[t];
        float *const at_exp_avg_sq_scale = ((void **)job->table[5])[t];
        const char *const next_p = NEXT(0, at_p);
        const char *const next_g = NEXT(1, at_g);
        const char *const next_exp_avg = NEXT(2, at_exp_avg);
        const char *const next_exp_avg_sq = NEXT(3, at_exp_avg_sq);
        const uint32_t stream_0 = stream((uint32_t)h[8], job->id[t], 0);
        const int64_t from = begin, to = end;
        for (int64_t at = from; at < to; at += 128) {
            AHEAD(at_p, next_p, 128)
            AHEAD(at_g, next_g, 128)
            AHEAD(at_exp_avg, next_exp_avg, 128)
            AHEAD(at_exp_avg_sq, next_exp_avg_sq, 128)
            STRETCH(128,
                T old_exp_avg[128];
                T old_exp_avg_sq[128];
                decode_int8(old_exp_avg, n, at_exp_avg + at, at_exp_avg_scale + at / 128);
                decode_uint8(old_exp_avg_sq, n, at_exp_avg_sq + at, at_exp_avg_sq_scale + at / 128);
                T new_exp_avg[128];
                T new_exp_avg_sq[128];
                SIMD()
                for (int64_t i = at; i < at + n; i++) {
                    const T x_p = at_p[i];
                    const T x_g = at_g[i];
                    const T x_exp_avg = old_exp_avg[i - at];
                    const T x_exp_avg_sq = old_exp_avg_sq[i - at];
                    const T x_lerp = lerp(x_exp_avg, x_g, h_sub);
                    const T x_mul = h_betas_1 * x_exp_avg_sq;
                    const T x_addcmul = x_mul + h_sub_1 * (x_g * x_g);
                    const T x_sqrt = sqrtf(x_addcmul);
                    const T x_mul_1 = x_sqrt * h_reciprocal;
                    const T x_add = x_mul_1 + h_eps;
                    const T x_mul_2 = x_lerp * h_reciprocal_1;
                    const T x_div = x_mul_2 / x_add;
                    const T x_mul_4 = x_p * h_sub_4;
                    const T x_add_scaled = x_mul_4 + h_neg * x_div;
                    at_p[i] = x_add_scaled;
                    new_exp_avg[i - at] = x_lerp;
                    new_exp_avg_sq[i - at] = x_sqrt;
                }
                uint32_t bits_0[128];
                if (job->run) draw_within(stream_0, job->run + 3 * t, at, n, bits_0); else draw(stream_0, at, n, bits_0);
                encode_int8_at_random(new_exp_avg, n, at_exp_avg + at, at_exp_avg_scale + at / 128, bits_0, 0);
                encode_uint8_at_random(new_exp_avg_sq, n, at_exp_avg_sq + at, at_exp_avg_sq_scale + at / 128, bits_0, 16);
            )
        }
    }
}
