
/* ---- k×k convolutions, and 1×1 ones of few channels: everything here is specialised on its `const int` arguments ---- */

/* acc[o][x] = sum over i, ky, kx of weight[i][ky][kx][o] * a[i][ky][x * stride + kx] */
INLINE void tile(const int inputs, const int outputs, const int pixels, const int kernel, const int stride,
                 const vec *a, int64_t plane_size, int64_t pitch, const float *weight, vec acc[8][8]) {
    UNROLL for (int o = 0; o < outputs; o++)
        UNROLL for (int x = 0; x < pixels; x++) acc[o][x] = (vec){0};
    for (int i = 0; i < inputs; i++)
        for (int ky = 0; ky < kernel; ky++)
            UNROLL for (int kx = 0; kx < kernel; kx++) {
                const vec *from = a + i * plane_size + ky * pitch + kx;
                const float *w = weight + ((i * kernel + ky) * kernel + kx) * outputs;
                vec v[8];
                UNROLL for (int x = 0; x < pixels; x++) v[x] = from[x * stride];
                UNROLL for (int o = 0; o < outputs; o++)
                    UNROLL for (int x = 0; x < pixels; x++) acc[o][x] += w[o] * v[x];
            }
}

/* The largest tiles that keep sums, pixels and one weight in registers: 32 of them with 16 lanes, else 16. */
#define REGISTERS (LANES >= 16 ? 31 : 15)
#define OUT_TILE(n)                                                                                            \
    (LANES >= 16 && (n) % 8 == 0 ? 8 : (n) % 4 == 0 ? 4 : (n) % 6 == 0 ? 6 : (n) % 7 == 0 && LANES >= 16 ? 7     \
     : (n) % 5 == 0 ? 5 : (n) % 3 == 0 ? 3 : (n) % 2 == 0 ? 2 : 1)
#define PIXEL_TILE(outputs) (REGISTERS / ((outputs) + 1) > 8 ? 8 : REGISTERS / ((outputs) + 1))

/* A row of convolution outputs; `to` steps by `to_step` per output channel; moments (or null) gather statistics of the
   lanes in `filled`. */
INLINE void row(const int inputs, const int outputs, const int kernel, const int stride, const vec *a,
                int64_t plane_size, int64_t pitch, const float *weight, int64_t width, stored *to, int64_t to_step,
                const float *pivot, Moments *moments, ivec filled) {
    const int some = OUT_TILE(outputs), wide = PIXEL_TILE(some);
    const int64_t weight_step = (int64_t)inputs * kernel * kernel;
    for (int o = 0; o < outputs; o += some) {
#define PIECE(pixels)                                                                                          \
    {                                                                                                          \
        vec acc[8][8];                                                                                         \
        tile(inputs, some, pixels, kernel, stride, a + x * stride, plane_size, pitch, weight + o * weight_step, acc); \
        UNROLL for (int k = 0; k < some; k++) {                                                                \
            UNROLL for (int j = 0; j < pixels; j++) store(to + (o + k) * to_step + x + j, acc[k][j]);          \
            if (moments) {                                                                                     \
                vec sum = {0}, square = {0};                                                                   \
                UNROLL for (int j = 0; j < pixels; j++) {                                                      \
                    const vec d = (vec)((ivec)(acc[k][j] - pivot[o + k]) & filled);                            \
                    sum += d;                                                                                  \
                    square += d * d;                                                                           \
                }                                                                                              \
                moments[o + k].sum += sum;                                                                     \
                moments[o + k].square += square;                                                               \
            }                                                                                                  \
        }                                                                                                      \
        x += pixels;                                                                                           \
    }
        int64_t x = 0;
        while (x + wide <= width) PIECE(wide)
        if (wide > 2)
            while (x + 2 <= width) PIECE(2)
        while (x < width) PIECE(1)
#undef PIECE
    }
}

/* Weights (outputs, inputs, taps) of a group as `row` reads them: (outputs / tile, inputs, taps, tile). When turned,
   with inputs and outputs exchanged and taps reversed. */
INLINE void pack_taps(const int inputs, const int outputs, const int taps, int turned, const float *weight, float *to) {
    const int rows = turned ? inputs : outputs, depth = turned ? outputs : inputs;
    const int some = turned ? OUT_TILE(inputs) : OUT_TILE(outputs);
    for (int r = 0; r < rows; r += some)
        for (int d = 0; d < depth; d++)
            for (int t = 0; t < taps; t++)
                for (int k = r; k < r + some; k++)
                    *to++ = turned ? weight[((int64_t)d * inputs + k) * taps + taps - 1 - t]
                                   : weight[((int64_t)k * inputs + d) * taps + t];
}

/* partial[o][i][ky][kx] += sum over rows and pixels of dz[o][y][x] * a[i][y * stride + ky][x * stride + kx] */
INLINE void weight_rows(const int inputs, const int outputs, const int kernel, const int stride, const vec *a,
                        int64_t a_plane, int64_t a_pitch, const vec *dz, int64_t dz_plane, int64_t dz_pitch,
                        int64_t rows, int64_t width, float *partial) {
    const int most = REGISTERS - 1; /* sums; as many outputs as inputs where both can be had */
    const int ky_tile = kernel == 3 && (outputs == 1 || (LANES >= 16 && outputs % 2 == 0)) ? 3 : 1;
    const int taps = ky_tile * kernel;
    const int out_tile = outputs % 4 == 0 && 4 * (taps + 1) <= most ? 4
                         : outputs % 3 == 0 && 3 * (taps + 1) <= most ? 3
                         : outputs % 2 == 0 && 2 * (taps + 1) <= most ? 2 : 1;
    const int in_tile = inputs % 4 == 0 && out_tile * (4 * taps + 1) <= most ? 4
                        : inputs % 3 == 0 && out_tile * (3 * taps + 1) <= most ? 3
                        : inputs % 2 == 0 && out_tile * (2 * taps + 1) <= most ? 2 : 1;
    for (int o = 0; o < outputs; o += out_tile)
        for (int i = 0; i < inputs; i += in_tile)
            for (int ky = 0; ky < kernel; ky += ky_tile) {
                vec acc[32];
#define SUMS                                                                                                   \
    UNROLL for (int p = 0; p < out_tile; p++)                                                                  \
        UNROLL for (int q = 0; q < in_tile; q++)                                                               \
            UNROLL for (int r = 0; r < ky_tile; r++)                                                           \
                UNROLL for (int s = 0; s < kernel; s++)
#define PLACE (((p * in_tile + q) * ky_tile + r) * kernel + s)
                SUMS acc[PLACE] = (vec){0};
                for (int64_t y = 0; y < rows; y++)
                    for (int64_t x = 0; x < width; x++) {
                        vec d[4];
                        UNROLL for (int p = 0; p < out_tile; p++) d[p] = dz[(o + p) * dz_plane + y * dz_pitch + x];
                        UNROLL for (int q = 0; q < in_tile; q++)
                            UNROLL for (int r = 0; r < ky_tile; r++)
                                UNROLL for (int s = 0; s < kernel; s++) {
                                    const vec v = a[(i + q) * a_plane + (y * stride + ky + r) * a_pitch + x * stride + s];
                                    UNROLL for (int p = 0; p < out_tile; p++) acc[PLACE] += d[p] * v;
                                }
                    }
                SUMS partial[(((o + p) * inputs + i + q) * kernel + ky + r) * kernel + s] += across(acc[PLACE]);
#undef SUMS
#undef PLACE
            }
}

/* Rows top..bottom of G of a strided convolution: only the taps whose remainder meets the pixel's. dz begins at its row
   `first` and is padded by `border` columns on the left. */
INLINE void strided_gradient(const int inputs, const int outputs, const int kernel, const int stride, const int pad,
                             const vec *dz, int64_t dz_plane, int64_t dz_pitch, int64_t first, int border,
                             const float *weight, int64_t top, int64_t bottom, int64_t width, stored *to, int64_t to_step) {
    const int some = OUT_TILE(inputs), wide = PIXEL_TILE(some);
    for (int64_t y = top; y < bottom; y++)
        for (int phase = 0; phase < stride; phase++) /* of the column */
            for (int i = 0; i < inputs; i += some)
                for (int64_t x = phase; x < width; x += stride * wide) {
                    vec acc[8][8];
                    UNROLL for (int k = 0; k < some; k++)
                        UNROLL for (int j = 0; j < wide; j++) acc[k][j] = (vec){0};
                    for (int o = 0; o < outputs; o++)
                        for (int ky = (int)((y + pad) % stride); ky < kernel; ky += stride)
                            for (int kx = (int)((x + pad) % stride); kx < kernel; kx += stride) {
                                const int64_t from_y = (y + pad - ky) / stride - first, from_x = (x + pad - kx) / stride;
                                const vec *from = dz + o * dz_plane + from_y * dz_pitch + from_x + border;
                                const float *w = weight + ((int64_t)(i / some * outputs + o) * kernel * kernel
                                                           + (kernel - 1 - ky) * kernel + kernel - 1 - kx) * some;
                                UNROLL for (int k = 0; k < some; k++)
                                    UNROLL for (int j = 0; j < wide; j++) acc[k][j] += w[k] * from[j];
                            }
                    UNROLL for (int k = 0; k < some; k++)
                        UNROLL for (int j = 0; j < wide; j++)
                            if (x + stride * j < width) store(to + (i + k) * to_step + y * width + x + stride * j, acc[k][j]);
                }
}

#define CHUNK 32    /* pixels of a 1×1 convolution at a time */
#define BAND 8      /* rows of a k×k convolution's outputs at a time */

#define UNITS(n, thread, threads)                                                                              \
    const int64_t units_ = (n)->blocks * (n)->groups;                                                          \
    for (int64_t unit = units_ * (thread) / (threads); unit < units_ * ((thread) + 1) / (threads); unit++)

/* Rows and columns of zeros that a strided gradient reads beyond dz; wide tiles read further on the right. */
#define BEFORE(kernel, stride, pad) (((kernel)-1 - (pad)) > 0 ? ((kernel)-1 - (pad) + (stride)-1) / (stride) : 0)
#define BEHIND(kernel, stride, pad) (((pad) + (stride)-1) / (stride) + 1)
#define STRAIGHT(kernel, stride, pad) ((stride) == 1 && 2 * (pad) == (kernel)-1)

/* Vectors of scratch memory, without packed weights, which lie behind. */
INLINE int64_t convolution_scratch(const int inputs, const int outputs, const int kernel, const int stride,
                                   const int pad, const Node *n) {
    if (kernel == 1 && stride == 1 && pad == 0) return CHUNK * (inputs + outputs);
    const int64_t pitch = n->width + 2 * pad, forward = inputs * ((BAND - 1) * stride + kernel) * pitch;
    if (STRAIGHT(kernel, stride, pad)) return (inputs + outputs) * (BAND + 2 * pad) * pitch;
    const int64_t dz = (BAND + BEFORE(kernel, stride, pad) + BEHIND(kernel, stride, pad) + kernel)
                       * (n->out_width + BEFORE(kernel, stride, pad) + BEHIND(kernel, stride, pad) + kernel + 16);
    return forward + outputs * dz;
}

INLINE void forward(const int inputs, const int outputs, const int kernel, const int stride, const int pad,
                    const Node *n, int thread, int threads) {
    const int taps = kernel * kernel;
    vec *a = n->scratch + thread * n->scratch_size;
    float *packed = (float *)(a + convolution_scratch(inputs, outputs, kernel, stride, pad, n));
    double *sums = n->sums + 2 * thread * n->c_out;
    memset(sums, 0, 2 * (size_t)n->c_out * sizeof(double));
    const Tensor *out = &n->tensors[n->out];
    int64_t packed_group = -1;
    UNITS(n, thread, threads) {
        const int64_t group = unit / n->blocks, block = unit % n->blocks;
        const float *pivot = n->running_mean + group * outputs;
        const ivec filled = last_and_partly_empty(n, block) ? *(const ivec *)n->filled : ~(ivec){0};
        stored *to = plane(out, block, group * outputs);
        if (packed_group != group) pack_taps(inputs, outputs, taps, 0, n->weight + group * outputs * inputs * taps, packed);
        packed_group = group;
        Moments moments[outputs];
        memset(moments, 0, sizeof moments);
        Moments *gather = n->training && n->normed ? moments : 0;
        if (kernel == 1 && stride == 1 && pad == 0) {
            for (int64_t p = 0; p < out->pixels; p += CHUNK) {
                const int64_t count = least(CHUNK, out->pixels - p);
                for (int i = 0; i < inputs; i++) see(n, block, group * inputs + i, p, count, a + i * CHUNK);
                row(inputs, outputs, 1, 1, a, CHUNK, CHUNK, packed, count, to + p, out->pixels, pivot, gather, filled);
            }
        } else {
            const int64_t pitch = n->width + 2 * pad;
            const int64_t size = ((BAND - 1) * stride + kernel) * pitch;
            for (int64_t y = 0; y < n->out_height; y += BAND) {
                const int64_t rows = least(BAND, n->out_height - y);
                for (int i = 0; i < inputs; i++)
                    PADDED(see, n, block, group * inputs + i, y * stride - pad, (rows - 1) * stride + kernel, n->height,
                           n->width, pad, a + i * size);
                for (int64_t r = 0; r < rows; r++)
                    row(inputs, outputs, kernel, stride, a + r * stride * pitch, size, pitch, packed, n->out_width,
                        to + (y + r) * n->out_width, out->pixels, pivot, gather, filled);
            }
        }
        if (gather)
            for (int o = 0; o < outputs; o++) {
                sums[group * outputs + o] += (double)across(moments[o].sum);
                sums[n->c_out + group * outputs + o] += (double)across(moments[o].square);
            }
    }
}

/* A unit whose stride leaves pixels out, or whose border is not half its window: bands of outputs and what they read. */
INLINE void strided_unit(const int inputs, const int outputs, const int kernel, const int stride, const int pad,
                         const Node *n, int64_t block, int64_t group, const float *turned, float *partial, vec *a) {
    const Tensor *grad = n->grad >= 0 ? &n->tensors[n->grad] : 0;
    stored *to = grad ? plane(grad, block, group * inputs) : 0;
    const int before = BEFORE(kernel, stride, pad), behind = BEHIND(kernel, stride, pad);
    const int64_t pitch = n->width + 2 * pad, size = ((BAND - 1) * stride + kernel) * pitch;
    const int64_t dz_pitch = n->out_width + before + behind + kernel + 16;
    const int64_t dz_size = (BAND + before + behind + kernel) * dz_pitch;
    const vec none = {0};
    vec *dz = a + inputs * size;
    for (int64_t y = 0; y < n->out_height; y += BAND) {
        const int64_t rows = least(BAND, n->out_height - y);
        const int last = y + rows == n->out_height;
        for (int o = 0; o < outputs; o++) {
            vec *top = dz + o * dz_size;
            const int64_t all = rows + before + behind + (last ? kernel : 0);
            for (int64_t r = 0; r < all; r++, top += dz_pitch) {
                const int64_t from = y - before + r;
                const int inside = from >= 0 && from < n->out_height;
                for (int64_t x = 0; x < before; x++) top[x] = none;
                for (int64_t x = before + (inside ? n->out_width : 0); x < dz_pitch; x++) top[x] = none;
                if (inside) see_gradient(n, block, group * outputs + o, from * n->out_width, n->out_width, top + before);
            }
        }
        if (partial) {
            for (int i = 0; i < inputs; i++)
                PADDED(see, n, block, group * inputs + i, y * stride - pad, (rows - 1) * stride + kernel, n->height,
                       n->width, pad, a + i * size);
            weight_rows(inputs, outputs, kernel, stride, a, size, pitch, dz + before * dz_pitch + before, dz_size, dz_pitch,
                        rows, n->out_width, partial);
        }
        if (grad)
            strided_gradient(inputs, outputs, kernel, stride, pad, dz, dz_size, dz_pitch, y - before, before, turned,
                             least(y * stride, n->height), last ? n->height : least((y + rows) * stride, n->height),
                             n->width, to, grad->pixels);
    }
}

INLINE void backward(const int inputs, const int outputs, const int kernel, const int stride, const int pad,
                     const Node *n, int thread, int threads) {
    vec *scratch = n->scratch + thread * n->scratch_size;
    const int64_t taps = kernel * kernel, group_weights = (int64_t)outputs * inputs * taps;
    float *partial_all = n->weight_partial ? n->weight_partial + thread * n->partial_size : 0;
    if (partial_all) memset(partial_all, 0, (size_t)(group_weights * n->groups) * sizeof(float));
    const Tensor *out = &n->tensors[n->out];
    const Tensor *grad = n->grad >= 0 ? &n->tensors[n->grad] : 0;
    float *turned = (float *)(scratch + convolution_scratch(inputs, outputs, kernel, stride, pad, n));
    int64_t turned_group = -1;
    const ivec filled = ~(ivec){0};
    UNITS(n, thread, threads) {
        const int64_t group = unit / n->blocks, block = unit % n->blocks;
        float *partial = partial_all ? partial_all + group * group_weights : 0;
        if (grad && turned_group != group)
            pack_taps(inputs, outputs, (int)taps, 1, n->weight + group * group_weights, turned);
        turned_group = group;
        stored *to = grad ? plane(grad, block, group * inputs) : 0;
        if (kernel == 1 && stride == 1 && pad == 0) {
            vec *a = scratch, *dz = scratch + inputs * CHUNK;
            for (int64_t p = 0; p < out->pixels; p += CHUNK) {
                const int64_t count = least(CHUNK, out->pixels - p);
                for (int o = 0; o < outputs; o++) see_gradient(n, block, group * outputs + o, p, count, dz + o * CHUNK);
                if (partial) {
                    for (int i = 0; i < inputs; i++) see(n, block, group * inputs + i, p, count, a + i * CHUNK);
                    weight_rows(inputs, outputs, 1, 1, a, CHUNK, CHUNK, dz, CHUNK, CHUNK, 1, count, partial);
                }
                if (grad)
                    row(outputs, inputs, 1, 1, dz, CHUNK, CHUNK, turned, count, to + p, grad->pixels, 0, 0, filled);
            }
        } else if (STRAIGHT(kernel, stride, pad)) {
            const int64_t pitch = n->width + 2 * pad, size = (BAND + 2 * pad) * pitch;
            vec *a = scratch, *dz = scratch + inputs * size;
            for (int64_t y = 0; y < n->height; y += BAND) {
                const int64_t rows = least(BAND, n->height - y);
                for (int o = 0; o < outputs; o++)
                    PADDED(see_gradient, n, block, group * outputs + o, y - pad, rows + 2 * pad, n->height, n->width, pad,
                           dz + o * size);
                if (partial) {
                    for (int i = 0; i < inputs; i++)
                        PADDED(see, n, block, group * inputs + i, y - pad, rows + 2 * pad, n->height, n->width, pad,
                               a + i * size);
                    weight_rows(inputs, outputs, kernel, 1, a, size, pitch, dz + pad * pitch + pad, size, pitch, rows,
                                n->width, partial);
                }
                if (grad)
                    for (int64_t r = 0; r < rows; r++)
                        row(outputs, inputs, kernel, 1, dz + r * pitch, size, pitch, turned, n->width,
                            to + (y + r) * n->width, grad->pixels, 0, 0, filled);
            }
        } else strided_unit(inputs, outputs, kernel, stride, pad, n, block, group, turned, partial, scratch);
    }
}

/* The weight gradient from its partial sums over threads. */
void simd_weights(const Node *n, int thread, int threads) {
    SHARE(n->weights, thread, threads);
    for (int64_t w = from_; w < to_; w++) {
        float sum = n->weight_partial[w];
        for (int t = 1; t < threads; t++) sum += n->weight_partial[t * n->partial_size + w];
        n->weight_grad[w] = sum;
    }
}

#define CONVOLUTION(name, inputs, outputs, kernel, stride, pad)                                                \
    void forward_##name(const Node *n, int thread, int threads) {                                              \
        forward(inputs, outputs, kernel, stride, pad, n, thread, threads);                                     \
    }                                                                                                          \
    void backward_##name(const Node *n, int thread, int threads) {                                             \
        backward(inputs, outputs, kernel, stride, pad, n, thread, threads);                                    \
    }                                                                                                          \
    int64_t scratch_##name(const Node *n) {                                                                    \
        const int64_t weights = (int64_t)(inputs) * (outputs) * (kernel) * (kernel);                           \
        return convolution_scratch(inputs, outputs, kernel, stride, pad, n) + weights / LANES + 1;             \
    }
