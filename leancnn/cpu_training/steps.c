
/* ---- norms, and steps without weights ---- */

/* What the batch-norm after a convolution needs from its sums: thread 0 alone. */
void simd_normalise(const Node *n, int thread, int threads) {
    if (thread) return;
    const double count = (double)(n->images * n->out_height * n->out_width);
    for (int64_t c = 0; c < n->c_out; c++) {
        const double bias = n->bias ? (double)n->bias[c] : 0;
        if (!n->normed) {
            n->scale[c] = 1;
            n->shift[c] = (float)bias;
            continue;
        }
        double mean = (double)n->running_mean[c] - bias, var = (double)n->running_var[c];
        if (n->training) {
            double sum = 0, square = 0;
            for (int t = 0; t < threads; t++) {
                sum += n->sums[2 * t * n->c_out + c];
                square += n->sums[(2 * t + 1) * n->c_out + c];
            }
            sum /= count;
            mean = (double)n->running_mean[c] + sum; /* of z, which is without the convolution's bias */
            var = square / count - sum * sum;
            if (var < 0) var = 0;
            n->running_mean[c] += (float)(n->momentum * (mean + bias - (double)n->running_mean[c]));
            n->running_var[c] += (float)(n->momentum * (var * count / (count - 1) - (double)n->running_var[c]));
        }
        const double inverse = 1 / sqrt(var + n->eps);
        n->mean[c] = (float)mean;
        n->inverse[c] = (float)inverse;
        n->scale[c] = (float)((double)n->gamma[c] * inverse);
        n->shift[c] = (float)((double)n->beta[c] - mean * inverse * (double)n->gamma[c]);
    }
}

/* da of each output plane: its sums over pixels, and its terms added up once when there are several. */
void simd_reduce(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out];
    double *sums = n->sums + 2 * thread * n->c_out;
    memset(sums, 0, 2 * (size_t)n->c_out * sizeof(double));
    const int64_t units = n->blocks * n->c_out;
    for (int64_t unit = units * thread / threads; unit < units * (thread + 1) / threads; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        const stored *z = plane(out, block, c);
        const stored *from[8];
        vec flat;
        const int32_t many = gradients_left(n, block, c, from, &flat);
        stored *total = n->total >= 0 ? plane(&n->tensors[n->total], block, c) : 0;
        const float scale = n->scale[c], shift = n->shift[c], mean = n->normed ? n->mean[c] : 0;
        vec sum = {0}, product = {0};
        const int gated = n->gated != 0;
#define ADD(act, gate)                                                                                         \
    {                                                                                                          \
        for (int64_t p = 0; p < out->pixels; p++) {                                                            \
            vec all = flat;                                                                                    \
            for (int32_t u = 0; u < many; u++) all += load(from[u] + p);                                       \
            const vec raw = load(z + p), da = gate(raw * scale + shift, all);                                  \
            if (total) store(total + p, gated ? da : all);                                                     \
            sum += da;                                                                                         \
            product += da * (raw - mean);                                                                      \
        }                                                                                                      \
    }
        WITH_ACTIVATION(out->act, ADD)
#undef ADD
        sums[c] += (double)across(sum);
        sums[n->c_out + c] += (double)across(product);
    }
}

/* Gradients of scale and shift, and the three numbers that turn da into dz: thread 0 alone. */
void simd_denormalise(const Node *n, int thread, int threads) {
    if (thread) return;
    const double count = (double)(n->images * n->out_height * n->out_width);
    for (int64_t c = 0; c < n->c_out; c++) {
        double sum = 0, product = 0;
        for (int t = 0; t < threads; t++) {
            sum += n->sums[2 * t * n->c_out + c];
            product += n->sums[(2 * t + 1) * n->c_out + c];
        }
        n->slope[c] = 1;
        n->curve[c] = n->offset[c] = 0;
        if (n->beta_grad) n->beta_grad[c] = (float)sum;
        if (!n->normed) continue;
        const double inverse = (double)n->inverse[c], slope = (double)n->gamma[c] * inverse;
        const double curve = -slope * inverse * inverse * product / count;
        n->gamma_grad[c] = (float)(product * inverse);
        n->slope[c] = (float)slope;
        n->curve[c] = (float)curve;
        n->offset[c] = (float)(-slope * sum / count - curve * (double)n->mean[c]);
    }
}

/* A sum of planes that has to exist in memory: before a ReLU on it, or because another reader wants it whole. */
void simd_sum(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out];
    vec *line = n->scratch + thread * n->scratch_size;
    double *sums = n->sums + 2 * thread * n->c_out;
    const int gathers = n->training && n->normed;
    if (gathers) memset(sums, 0, 2 * (size_t)n->c_out * sizeof(double));
    SHARE(n->blocks * n->c_out, thread, threads);
    for (int64_t unit = from_; unit < to_; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        stored *to = plane(out, block, c);
        const ivec filled = last_and_partly_empty(n, block) ? *(const ivec *)n->filled : ~(ivec){0};
        Moments moments = {{0}, {0}};
        for (int64_t p = 0; p < out->pixels; p += CHUNK) {
            const int64_t count = least(CHUNK, out->pixels - p);
            see(n, block, c, p, count, line);
#define WRITE(act, gate) { for (int64_t k = 0; k < count; k++) store(to + p + k, act(line[k])); }
            WITH_ACTIVATION(n->sum_act, WRITE)
#undef WRITE
            for (int64_t k = 0; k < count && gathers; k++) {
                const vec d = (vec)((ivec)(line[k] - n->running_mean[c]) & filled);
                moments.sum += d;
                moments.square += d * d;
            }
        }
        if (!gathers) continue;
        sums[c] += (double)across(moments.sum);
        sums[n->c_out + c] += (double)across(moments.square);
    }
}

/* The gradient of a sum that its readers see through a norm or an activation of their own. */
void simd_seen_gradient(const Node *n, int thread, int threads) {
    const Tensor *grad = &n->tensors[n->grad];
    vec *line = n->scratch + thread * n->scratch_size;
    SHARE(n->blocks * n->c_out, thread, threads);
    for (int64_t unit = from_; unit < to_; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        stored *to = plane(grad, block, c);
        for (int64_t p = 0; p < grad->pixels; p += CHUNK) {
            const int64_t count = least(CHUNK, grad->pixels - p);
            see_gradient(n, block, c, p, count, line);
            for (int64_t k = 0; k < count; k++) store(to + p + k, line[k]);
        }
    }
}

/* Its gradient: all uses added, stopped where the activation stopped the value. */
void simd_sum_gradient(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out], *grad = &n->tensors[n->grad];
    const int64_t units = n->blocks * n->c_out;
    for (int64_t unit = units * thread / threads; unit < units * (thread + 1) / threads; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        const stored *z = plane(out, block, c);
        stored *to = plane(grad, block, c);
        const stored *from[8];
        vec flat;
        const int32_t many = gradients_left(n, block, c, from, &flat);
#define STOP(act, gate)                                                                                        \
    {                                                                                                          \
        for (int64_t p = 0; p < out->pixels; p++) {                                                            \
            vec da = flat;                                                                                     \
            for (int32_t u = 0; u < many; u++) da += load(from[u] + p);                                        \
            store(to + p, gate(load(z + p), da));                                                              \
        }                                                                                                      \
    }
        WITH_ACTIVATION(n->sum_act, STOP)
#undef STOP
    }
}

/* Input plane `c` in its border of -infinity, wide enough for windows that begin inside and end outside. */
INLINE void see_bordered(const Node *n, int64_t block, int64_t c, int64_t pitch, int64_t size, vec *to) {
    const vec nothing = (vec){0} - INFINITY;
    for (int64_t p = 0; p < size; p++) to[p] = nothing;
    for (int64_t y = 0; y < n->height; y++)
        see(n, block, c, y * n->width, n->width, to + (y + n->border) * pitch + n->border);
}

#define POOL_PITCH(n) ((n)->width + 2 * (n)->border + (n)->window)
#define POOL_SIZE(n) (POOL_PITCH(n) * ((n)->height + 2 * (n)->border + (n)->window))

/* The largest value of each window; NaN wins. */
void simd_max(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out];
    const int64_t pitch = POOL_PITCH(n), units = n->blocks * n->c_out;
    vec *a = n->scratch + thread * n->scratch_size;
    for (int64_t unit = units * thread / threads; unit < units * (thread + 1) / threads; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        stored *to = plane(out, block, c);
        see_bordered(n, block, c, pitch, POOL_SIZE(n), a);
        for (int64_t y = 0; y < n->out_height; y++)
            for (int64_t x = 0; x < n->out_width; x++) {
                const vec *from = a + y * n->step * pitch + x * n->step;
                vec most = *from;
                for (int64_t ky = 0; ky < n->window; ky++)
                    for (int64_t kx = 0; kx < n->window; kx++) {
                        const vec v = from[ky * pitch + kx];
                        const ivec wins = (v > most) | (v != v);
                        most = (vec)(((ivec)v & wins) | ((ivec)most & ~wins));
                    }
                store(to + y * n->out_width + x, most);
            }
    }
}

/* Its gradient: to the first of the largest values, as torch has it; found again, not remembered. */
void simd_max_gradient(const Node *n, int thread, int threads) {
    const Tensor *grad = &n->tensors[n->grad];
    const int64_t pitch = POOL_PITCH(n), units = n->blocks * n->c_out;
    vec *a = n->scratch + thread * n->scratch_size, *sum = a + POOL_SIZE(n);
    for (int64_t unit = units * thread / threads; unit < units * (thread + 1) / threads; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        stored *to = plane(grad, block, c);
        see_bordered(n, block, c, pitch, POOL_SIZE(n), a);
        memset(sum, 0, (size_t)POOL_SIZE(n) * sizeof(vec));
        const stored *left[8];
        vec flat;
        const int32_t many = gradients_left(n, block, c, left, &flat);
        for (int64_t y = 0; y < n->out_height; y++)
            for (int64_t x = 0; x < n->out_width; x++) {
                const int64_t corner = y * n->step * pitch + x * n->step;
                vec da = flat, most = a[corner];
                for (int32_t u = 0; u < many; u++) da += load(left[u] + y * n->out_width + x);
                for (int64_t ky = 0; ky < n->window; ky++)
                    for (int64_t kx = 0; kx < n->window; kx++) {
                        const vec v = a[corner + ky * pitch + kx];
                        const ivec wins = v > most;
                        most = (vec)(((ivec)v & wins) | ((ivec)most & ~wins));
                    }
                ivec open = ~(ivec){0};
                for (int64_t ky = 0; ky < n->window; ky++)
                    for (int64_t kx = 0; kx < n->window; kx++) {
                        const int64_t at = corner + ky * pitch + kx;
                        const ivec here = (a[at] == most) & open;
                        sum[at] += (vec)((ivec)da & here);
                        open &= ~here;
                    }
            }
        for (int64_t y = 0; y < n->height; y++)
            for (int64_t x = 0; x < n->width; x++)
                store(to + y * n->width + x, sum[(y + n->border) * pitch + n->border + x]);
    }
}


/* The mean of each plane; its gradient is the same for all pixels, and left once. */
void simd_mean(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out];
    vec *line = n->scratch + thread * n->scratch_size;
    const int64_t pixels = n->height * n->width;
    SHARE(n->blocks * n->c_out, thread, threads);
    for (int64_t unit = from_; unit < to_; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        vec all = {0};
        for (int64_t p = 0; p < pixels; p += CHUNK) {
            const int64_t count = least(CHUNK, pixels - p);
            see(n, block, c, p, count, line);
            vec sum = {0};
            for (int64_t k = 0; k < count; k++) sum += line[k];
            all += sum;
        }
        store(plane(out, block, c), all / (float)pixels);
    }
}

void simd_mean_gradient(const Node *n, int thread, int threads) {
    const float pixels = (float)(n->height * n->width);
    SHARE(n->blocks * n->c_out, thread, threads);
    for (int64_t unit = from_; unit < to_; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        const stored *from[8];
        vec da;
        const int32_t many = gradients_left(n, block, c, from, &da);
        for (int32_t u = 0; u < many; u++) da += load(from[u]);
        store(plane(&n->tensors[n->grad], block, c), da / pixels);
    }
}

/* Each plane times a number of its own: input planes c_out and after it, of one pixel each. */
void simd_gate(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out];
    vec *line = n->scratch + thread * n->scratch_size;
    SHARE(n->blocks * n->c_out, thread, threads);
    for (int64_t unit = from_; unit < to_; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        stored *to = plane(out, block, c);
        vec gate;
        see(n, block, n->c_out + c, 0, 1, &gate);
        for (int64_t p = 0; p < out->pixels; p += CHUNK) {
            const int64_t count = least(CHUNK, out->pixels - p);
            see(n, block, c, p, count, line);
            for (int64_t k = 0; k < count; k++) store(to + p + k, line[k] * gate);
        }
    }
}

void simd_gate_gradient(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out];
    vec *line = n->scratch + thread * n->scratch_size;
    SHARE(n->blocks * n->c_out, thread, threads);
    for (int64_t unit = from_; unit < to_; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        stored *to = n->grad >= 0 ? plane(&n->tensors[n->grad], block, c) : 0;
        const stored *from[8];
        vec flat, gate, all = {0};
        const int32_t many = gradients_left(n, block, c, from, &flat);
        see(n, block, n->c_out + c, 0, 1, &gate);
        for (int64_t p = 0; p < out->pixels; p += CHUNK) {
            const int64_t count = least(CHUNK, out->pixels - p);
            vec sum = {0};
            see(n, block, c, p, count, line);
            for (int64_t k = 0; k < count; k++) {
                vec da = flat;
                for (int32_t u = 0; u < many; u++) da += load(from[u] + p + k);
                sum += da * line[k];
                if (to) store(to + p + k, da * gate);
            }
            all += sum;
        }
        store(plane(&n->tensors[n->gate_grad], block, c), all);
    }
}

INLINE vec larger(vec most, vec v) { return pick((v > most) | (v != v), v, most); } /* NaN wins */

/* The largest value of each plane in each of some windows: (channels, 1, windows). */
void simd_peaks(const Node *n, int thread, int threads) {
    vec *a = n->scratch + thread * n->scratch_size;
    SHARE(n->blocks * n->c_out, thread, threads);
    for (int64_t unit = from_; unit < to_; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        stored *to = plane(&n->tensors[n->out], block, c);
        see(n, block, c, 0, n->height * n->width, a);
        for (int64_t w = 0; w < n->out_width; w++) {
            const int32_t *window = n->windows + 4 * w;
            vec most = a[window[0] * n->width + window[1]];
            for (int64_t y = window[0]; y < window[0] + window[2]; y++)
                for (int64_t x = window[1]; x < window[1] + window[3]; x++) most = larger(most, a[y * n->width + x]);
            store(to + w, most);
        }
    }
}

/* Its gradient, as torch's amax over rows and then columns has it: shared by the columns that tie, and in each by the
   rows that do. */
void simd_peaks_gradient(const Node *n, int thread, int threads) {
    const int64_t pixels = n->height * n->width;
    vec *a = n->scratch + thread * n->scratch_size, *sum = a + pixels, *top = sum + pixels;
    const vec one = (vec){0} + 1.0f;
    SHARE(n->blocks * n->c_out, thread, threads);
    for (int64_t unit = from_; unit < to_; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        const stored *from[8];
        vec flat;
        const int32_t many = gradients_left(n, block, c, from, &flat);
        stored *to = plane(&n->tensors[n->grad], block, c);
        see(n, block, c, 0, pixels, a);
        memset(sum, 0, (size_t)pixels * sizeof(vec));
        for (int64_t w = 0; w < n->out_width; w++) {
            const int32_t *window = n->windows + 4 * w;
            const int64_t left = window[1], right = window[1] + window[3], bottom = window[0] + window[2];
            vec da = flat, columns = {0}, most = (vec){0} - INFINITY;
            for (int32_t u = 0; u < many; u++) da += load(from[u] + w);
            for (int64_t x = left; x < right; x++) {
                top[x] = (vec){0} - INFINITY;
                for (int64_t y = window[0]; y < bottom; y++) top[x] = larger(top[x], a[y * n->width + x]);
                most = larger(most, top[x]);
            }
            for (int64_t x = left; x < right; x++) columns += (vec)((ivec)one & (top[x] == most));
            for (int64_t x = left; x < right; x++) {
                vec rows = {0};
                for (int64_t y = window[0]; y < bottom; y++)
                    rows += (vec)((ivec)one & (a[y * n->width + x] == most));
                const vec share = da / (columns * rows);
                for (int64_t y = window[0]; y < bottom; y++)
                    sum[y * n->width + x] += (vec)((ivec)share & (a[y * n->width + x] == most));
            }
        }
        for (int64_t p = 0; p < pixels; p++) store(to + p, sum[p]);
    }
}

INLINE vec root(vec v) {
    vec r = {0};
    for (int i = 0; i < LANES; i++) r[i] = sqrtf(v[i]);
    return r;
}

/* The sum of planes' pixels after each pixel's vector over channels was divided by its length, or by eps if that is
   shorter: the lengths are left in scratch. */
INLINE void lengths(const Node *n, int64_t block, vec *line, vec *length, vec *inverse) {
    for (int64_t w = 0; w < n->width; w++) length[w] = (vec){0};
    for (int64_t c = 0; c < n->c_out; c++) {
        see(n, block, c, 0, n->width, line);
        for (int64_t w = 0; w < n->width; w++) length[w] += line[w] * line[w];
    }
    for (int64_t w = 0; w < n->width; w++) {
        const vec least_length = (vec){0} + (float)n->eps;
        length[w] = root(length[w]);
        inverse[w] = 1.0f / pick(length[w] < least_length, least_length, length[w]);
    }
}

void simd_units(const Node *n, int thread, int threads) {
    vec *line = n->scratch + thread * n->scratch_size, *length = line + n->width, *inverse = length + n->width;
    SHARE(n->blocks, thread, threads);
    for (int64_t block = from_; block < to_; block++) {
        lengths(n, block, line, length, inverse);
        for (int64_t c = 0; c < n->c_out; c++) {
            see(n, block, c, 0, n->width, line);
            vec sum = {0};
            for (int64_t w = 0; w < n->width; w++) sum += line[w] * inverse[w];
            store(plane(&n->tensors[n->out], block, c), sum);
        }
    }
}

void simd_units_gradient(const Node *n, int thread, int threads) {
    vec *line = n->scratch + thread * n->scratch_size, *length = line + n->width, *inverse = length + n->width;
    vec *dot = inverse + n->width, *da = dot + n->width;
    SHARE(n->blocks, thread, threads);
    for (int64_t block = from_; block < to_; block++) {
        lengths(n, block, line, length, inverse);
        for (int64_t w = 0; w < n->width; w++) dot[w] = (vec){0};
        for (int64_t c = 0; c < n->c_out; c++) {
            const stored *from[8];
            const int32_t many = gradients_left(n, block, c, from, &da[c]);
            for (int32_t u = 0; u < many; u++) da[c] += load(from[u]);
            see(n, block, c, 0, n->width, line);
            for (int64_t w = 0; w < n->width; w++) dot[w] += da[c] * line[w] * inverse[w];
        }
        for (int64_t w = 0; w < n->width; w++) /* a length below eps is a constant */
            dot[w] = (vec)((ivec)(dot[w] * inverse[w]) & (length[w] >= (float)n->eps));
        for (int64_t c = 0; c < n->c_out; c++) {
            stored *to = plane(&n->tensors[n->grad], block, c);
            see(n, block, c, 0, n->width, line);
            for (int64_t w = 0; w < n->width; w++) store(to + w, (da[c] - line[w] * dot[w]) * inverse[w]);
        }
    }
}
