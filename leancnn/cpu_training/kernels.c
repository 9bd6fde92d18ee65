/* Training kernels with the batch in the vector lanes; driven by program.py, which appends a line per layer shape.

   A tensor is (blocks, channels, rows, columns, LANES): LANES images side by side, so that every pixel is one full
   vector whatever the size of the map, the group or the border. A convolution's input is a list of planes, each the
   sum of terms `act(scale * z + shift)` read from raw convolution outputs z: batch-norm, ReLU, skip additions,
   concatenations and channel shuffles are never written to memory.

   Names: z raw output of a convolution, a what its reader sees, da and dz their gradients, G the gradient that a
   reader leaves for each plane of its input. STORED is float, or 16 bits (bfloat16) when HALF is 1; sums are float. */

#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined __AVX512F__
#define LANES 16
#elif defined __AVX__
#define LANES 8
#else
#define LANES 4
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4 * LANES)));
typedef uint16_t hvec __attribute__((vector_size(2 * LANES), aligned(2 * LANES)));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#if HALF
typedef hvec stored;
INLINE vec load(const stored *p) { return (vec)(__builtin_convertvector(*p, uvec) << 16); }
INLINE void store(stored *p, vec v) {
    const uvec bits = (uvec)v, nan = (uvec)(v != v); /* rounded up, some NaN would become zero */
    const uvec half = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *p = __builtin_convertvector((half & ~nan) | (((bits >> 16) | 0x40) & nan), hvec);
}
#else
typedef vec stored;
INLINE vec load(const stored *p) { return *p; }
INLINE void store(stored *p, vec v) { *p = v; }
#endif

INLINE vec relu(vec v) { return (vec)((ivec)v & ~(v < 0.0f)); } /* NaN stays NaN: it must reach the loss */
INLINE vec clip(vec v) { /* ReLU6 */
    const vec low = relu(v);
    const ivec over = low > 6.0f;
    return (vec)(((ivec)low & ~over) | ((ivec)((vec){0} + 6.0f) & over));
}
INLINE vec where_positive(vec gate, vec v) { return (vec)((ivec)v & (gate > 0.0f)); }
INLINE vec where_inside(vec gate, vec v) { return (vec)((ivec)v & (gate > 0.0f) & (gate < 6.0f)); }
INLINE vec same(vec v) { return v; }
INLINE vec everywhere(vec gate, vec v) { return v; }

/* LOOP with a tensor's activation and its gradient (of the gate that it read, or of what it gave). */
enum { LINEAR, RELU, RELU6 }; /* as in trace.py */
#define WITH_ACTIVATION(kind, LOOP)                                                                            \
    do {                                                                                                       \
        if ((kind) == RELU6) LOOP(clip, where_inside)                                                          \
        else if ((kind) == RELU) LOOP(relu, where_positive)                                                    \
        else LOOP(same, everywhere)                                                                            \
    } while (0)

INLINE float across(vec v) {
    float sum = 0;
    UNROLL for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

typedef struct {
    stored *data;        /* (blocks, channels, pixels) */
    const float *scale;  /* per channel, with shift: how its readers see it */
    const float *shift;
    int64_t channels, pixels;
    int64_t act;         /* then through this activation */
} Tensor;

typedef struct { int32_t tensor, channel; } Term;

/* One convolution (or one sum), forward and backward. Unused pointers are null. */
typedef struct {
    const Tensor *tensors;
    const int32_t *first;      /* terms of input plane i: first[i] .. first[i + 1] */
    const Term *terms;
    const int32_t *use_first;  /* gradients left for output plane c: use_first[c] .. use_first[c + 1] */
    const Term *uses;
    int64_t out, grad, total;  /* places in `tensors`: z; G of the input (-1: nobody asks); da when it has many terms (-1) */
    int64_t blocks, c_in, c_out, groups, height, width, out_height, out_width;
    int64_t weights;           /* elements of weight: (c_out, c_in / groups, kernel, kernel) */
    const float *weight;
    float *weight_grad;
    vec *weight_partial;       /* (threads, weights) */
    double *sums;              /* (threads, 2, c_out) */
    vec *scratch;              /* (threads, scratch_size) */
    int64_t scratch_size;
    float *scale, *shift;      /* written: how z is seen */
    float *mean, *inverse;     /* batch mean and 1 / sqrt(var + eps) */
    float *slope, *curve, *offset;  /* dz = slope * da + curve * z + offset */
    const float *gamma, *beta, *bias;
    float *gamma_grad, *beta_grad;
    float *running_mean, *running_var;
    double eps, momentum;
    int64_t training, normed;  /* statistics of this batch; batch-norm follows at all */
    int64_t sum_act;           /* of a sum: the activation on it */
    int64_t window, step, border; /* of a pooling: side, stride, pixels around the map that never win */
} Node;

typedef struct {
    void (*run)(const Node *, int thread, int threads);
    const Node *node;
} Step;

/* ---- running a list of steps on several threads, a barrier after each ---- */

/* Threads wait at `gate` until all have been made; where one could not be, `missing`, none begins. */
typedef struct { pthread_barrier_t barrier; pthread_mutex_t gate; int missing; } Meeting;
typedef struct { const Step *steps; int count, thread, threads; Meeting *meeting; } Crew;

static void *work(void *argument) {
    const Crew *crew = argument;
    pthread_mutex_lock(&crew->meeting->gate);
    const int missing = crew->meeting->missing;
    pthread_mutex_unlock(&crew->meeting->gate);
    for (int i = 0; i < crew->count && !missing; i++) {
        crew->steps[i].run(crew->steps[i].node, crew->thread, crew->threads);
        pthread_barrier_wait(&crew->meeting->barrier);
    }
    return 0;
}

/* 0, or -1 where this many threads cannot be had: then nothing was done and none is left. */
int lanes_run(const Step *steps, int count, int threads) {
    Meeting meeting = {.gate = PTHREAD_MUTEX_INITIALIZER};
    Crew crew[threads];
    pthread_t ids[threads];
    if (pthread_barrier_init(&meeting.barrier, 0, (unsigned)threads)) return -1;
    for (int t = 0; t < threads; t++) crew[t] = (Crew){steps, count, t, threads, &meeting};
    int made = 1;
    pthread_mutex_lock(&meeting.gate);
    while (made < threads && !pthread_create(&ids[made], 0, work, &crew[made])) made++;
    meeting.missing = threads - made;
    pthread_mutex_unlock(&meeting.gate);
    work(&crew[0]);
    for (int t = 1; t < made; t++) pthread_join(ids[t], 0);
    pthread_mutex_destroy(&meeting.gate);
    pthread_barrier_destroy(&meeting.barrier);
    return meeting.missing ? -1 : 0;
}

int lanes_width(void) { return LANES; }

/* ---- reading planes ---- */

INLINE stored *plane(const Tensor *t, int64_t block, int64_t channel) {
    return t->data + (block * t->channels + channel) * t->pixels;
}

/* The pixels after these, for the next chunk or band: planes are far apart, and no prefetcher guesses them. */
INLINE void ahead(const stored *p, int64_t count) {
    const int64_t step = sizeof(stored) < 64 ? 64 / sizeof(stored) : 1;
    for (int64_t k = 0; k < count; k += step) __builtin_prefetch(p + count + k);
}

/* Input plane `i`, `count` pixels from `from`, as its reader sees it. */
INLINE void see(const Node *n, int64_t block, int64_t i, int64_t from, int64_t count, vec *to) {
    for (int32_t k = n->first[i]; k < n->first[i + 1]; k++) {
        const Tensor *t = &n->tensors[n->terms[k].tensor];
        const int64_t c = n->terms[k].channel;
        const stored *z = plane(t, block, c) + from;
        const float scale = t->scale[c], shift = t->shift[c];
        ahead(z, count);
#define FIRST(act, gate) { for (int64_t p = 0; p < count; p++) to[p] = act(load(z + p) * scale + shift); }
#define MORE(act, gate) { for (int64_t p = 0; p < count; p++) to[p] += act(load(z + p) * scale + shift); }
        if (k == n->first[i]) WITH_ACTIVATION(t->act, FIRST);
        else WITH_ACTIVATION(t->act, MORE);
#undef FIRST
#undef MORE
    }
}

/* dz of output plane `c`, `count` pixels from `from`. */
INLINE void see_gradient(const Node *n, int64_t block, int64_t c, int64_t from, int64_t count, vec *to) {
    const Tensor *out = &n->tensors[n->out];
    const stored *z = plane(out, block, c) + from;
    const float scale = n->scale[c], shift = n->shift[c];
    const float slope = n->slope[c], curve = n->curve[c], offset = n->offset[c];
    const Tensor *g;
    int64_t channel = c;
    if (n->total >= 0) g = &n->tensors[n->total];
    else {
        const Term use = n->uses[n->use_first[c]];
        g = &n->tensors[use.tensor];
        channel = use.channel;
    }
    const stored *da = plane(g, block, channel) + from;
    ahead(z, count);
    ahead(da, count);
#define BACK(act, gate)                                                                                        \
    {                                                                                                          \
        for (int64_t p = 0; p < count; p++) {                                                                  \
            const vec raw = load(z + p);                                                                       \
            to[p] = slope * gate(raw * scale + shift, load(da + p)) + (curve * raw + offset);                  \
        }                                                                                                      \
    }
    WITH_ACTIVATION(out->act, BACK);
#undef BACK
}

/* Rows from `top` (may be outside) into a zero-padded scratch plane of pitch width + 2 * pad. */
#define PADDED(READ, node, block, channel, top, rows, height, width, pad, to)                                   \
    do {                                                                                                       \
        const int64_t pitch_ = (width) + 2 * (pad);                                                            \
        for (int64_t r_ = 0; r_ < (rows); r_++) {                                                              \
            vec *line_ = (to) + r_ * pitch_;                                                                   \
            const int64_t y_ = (top) + r_;                                                                     \
            if (y_ < 0 || y_ >= (height)) { memset(line_, 0, (size_t)pitch_ * sizeof(vec)); continue; }        \
            for (int64_t x_ = 0; x_ < (pad); x_++) line_[x_] = line_[(pad) + (width) + x_] = (vec){0};         \
            READ(node, block, channel, y_ * (width), width, line_ + (pad));                                    \
        }                                                                                                      \
    } while (0)

/* ---- the arithmetic: everything below is specialised on its `const int` arguments ---- */

/* acc[o][x] = sum over i, ky, kx of weight[o][i][ky][kx] * a[i][ky][x * stride + kx] */
INLINE void tile(const int inputs, const int outputs, const int pixels, const int kernel, const int stride,
                 const vec *a, int64_t plane_size, int64_t pitch, const float *weight, int64_t weight_step,
                 vec acc[16][16]) {
    UNROLL for (int o = 0; o < outputs; o++)
        UNROLL for (int x = 0; x < pixels; x++) acc[o][x] = (vec){0};
    for (int i = 0; i < inputs; i++)
        for (int ky = 0; ky < kernel; ky++)
            UNROLL for (int kx = 0; kx < kernel; kx++) {
                const vec *from = a + i * plane_size + ky * pitch + kx;
                const float *w = weight + (i * kernel + ky) * kernel + kx;
                vec v[16];
                UNROLL for (int x = 0; x < pixels; x++) v[x] = from[x * stride];
                UNROLL for (int o = 0; o < outputs; o++)
                    UNROLL for (int x = 0; x < pixels; x++) acc[o][x] += w[o * weight_step] * v[x];
            }
}

/* The largest tiles that keep sums, pixels and one weight in registers: 32 of them with 16 lanes, else 16. */
#define REGISTERS (LANES >= 16 ? 31 : 15)
#define DIVISOR(n, most)                                                                                       \
    ((most) >= 8 && (n) % 8 == 0 ? 8 : (most) >= 7 && (n) % 7 == 0 ? 7 : (n) % 6 == 0 ? 6 : (n) % 5 == 0 ? 5     \
     : (n) % 4 == 0 ? 4 : (n) % 3 == 0 ? 3 : (n) % 2 == 0 ? 2 : 1)
#define PIXEL_TILE(outputs) (REGISTERS / ((outputs) + 1) > 8 ? 8 : REGISTERS / ((outputs) + 1))

typedef struct { vec sum, square; } Moments;

/* A row of convolution outputs; `to` steps by `to_step` per output channel; moments (or null) gather statistics. */
INLINE void row(const int inputs, const int outputs, const int kernel, const int stride, const vec *a,
                int64_t plane_size, int64_t pitch, const float *weight, int64_t width, stored *to, int64_t to_step,
                const float *pivot, Moments *moments) {
    const int some = DIVISOR(outputs, 8), wide = PIXEL_TILE(some);
    const int64_t weight_step = (int64_t)inputs * kernel * kernel;
    for (int o = 0; o < outputs; o += some) {
#define PIECE(pixels)                                                                                          \
    {                                                                                                          \
        vec acc[16][16];                                                                                       \
        tile(inputs, some, pixels, kernel, stride, a + x * stride, plane_size, pitch, weight + o * weight_step, \
             weight_step, acc);                                                                                \
        UNROLL for (int k = 0; k < some; k++) {                                                                \
            UNROLL for (int j = 0; j < pixels; j++) store(to + (o + k) * to_step + x + j, acc[k][j]);          \
            if (moments) {                                                                                     \
                vec sum = {0}, square = {0};                                                                   \
                UNROLL for (int j = 0; j < pixels; j++) {                                                      \
                    const vec d = acc[k][j] - pivot[o + k];                                                    \
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
        while (x + 2 <= width) PIECE(2)
        while (x < width) PIECE(1)
#undef PIECE
    }
}

/* partial[o][i][ky][kx] += sum over rows and pixels of dz[o][y][x] * a[i][y * stride + ky][x * stride + kx] */
INLINE void weight_rows(const int inputs, const int outputs, const int kernel, const int stride, const vec *a,
                        int64_t a_plane, int64_t a_pitch, const vec *dz, int64_t dz_plane, int64_t dz_pitch,
                        int64_t rows, int64_t width, vec *partial) {
    const int out_tile = DIVISOR(outputs, 6);
    const int in_tile = kernel > 1 ? 1 : inputs % 4 == 0 ? 4 : inputs % 3 == 0 ? 3 : inputs % 2 == 0 ? 2 : 1;
    const int ky_tile = kernel > 1 && outputs <= 2 ? kernel : 1;
    for (int o = 0; o < outputs; o += out_tile)
        for (int i = 0; i < inputs; i += in_tile)
            for (int ky = 0; ky < kernel; ky += ky_tile) {
                vec acc[8][4][3][3];
                UNROLL for (int p = 0; p < out_tile; p++)
                    UNROLL for (int q = 0; q < in_tile; q++)
                        UNROLL for (int r = 0; r < ky_tile; r++)
                            UNROLL for (int s = 0; s < kernel; s++) acc[p][q][r][s] = (vec){0};
                for (int64_t y = 0; y < rows; y++)
                    for (int64_t x = 0; x < width; x++) {
                        vec d[8];
                        UNROLL for (int p = 0; p < out_tile; p++) d[p] = dz[(o + p) * dz_plane + y * dz_pitch + x];
                        UNROLL for (int q = 0; q < in_tile; q++)
                            UNROLL for (int r = 0; r < ky_tile; r++)
                                UNROLL for (int s = 0; s < kernel; s++) {
                                    const vec v = a[(i + q) * a_plane + (y * stride + ky + r) * a_pitch + x * stride + s];
                                    UNROLL for (int p = 0; p < out_tile; p++) acc[p][q][r][s] += d[p] * v;
                                }
                    }
                UNROLL for (int p = 0; p < out_tile; p++)
                    UNROLL for (int q = 0; q < in_tile; q++)
                        UNROLL for (int r = 0; r < ky_tile; r++)
                            UNROLL for (int s = 0; s < kernel; s++)
                                partial[(((o + p) * inputs + i + q) * kernel + ky + r) * kernel + s] += acc[p][q][r][s];
            }
}

/* G rows of a stride-2 convolution: only the taps whose parity meets the pixel's. dz is padded by one on all sides. */
INLINE void strided_gradient(const int inputs, const int outputs, const int kernel, const int pad, const vec *dz,
                             int64_t dz_plane, int64_t dz_pitch, const float *weight, int64_t height, int64_t width,
                             stored *to, int64_t to_step) {
    const int some = DIVISOR(inputs, 8), wide = PIXEL_TILE(some);
    for (int64_t y = 0; y < height; y++)
        for (int parity = 0; parity < 2; parity++) /* of the column */
            for (int i = 0; i < inputs; i += some)
                for (int64_t x = parity; x < width; x += 2 * wide) {
                    vec acc[16][16];
                    UNROLL for (int k = 0; k < some; k++)
                        UNROLL for (int j = 0; j < wide; j++) acc[k][j] = (vec){0};
                    for (int o = 0; o < outputs; o++)
                        for (int ky = (int)((y + pad) & 1); ky < kernel; ky += 2)
                            for (int kx = (int)((x + pad) & 1); kx < kernel; kx += 2) {
                                const vec *from = dz + o * dz_plane + ((y + pad - ky) / 2 + 1) * dz_pitch + (x + pad - kx) / 2 + 1;
                                const float *w = weight + ((int64_t)o * inputs + i) * kernel * kernel + ky * kernel + kx;
                                UNROLL for (int k = 0; k < some; k++)
                                    UNROLL for (int j = 0; j < wide; j++) acc[k][j] += w[k * kernel * kernel] * from[j];
                            }
                    UNROLL for (int k = 0; k < some; k++)
                        UNROLL for (int j = 0; j < wide; j++)
                            if (x + 2 * j < width) store(to + (i + k) * to_step + y * width + x + 2 * j, acc[k][j]);
                }
}

/* ---- the steps ---- */

#define CHUNK 32    /* pixels of a 1×1 convolution at a time */
#define BAND 8      /* rows of a 3×3 convolution at a time */

#define UNITS(n, thread, threads)                                                                              \
    const int64_t units_ = (n)->blocks * (n)->groups;                                                          \
    for (int64_t unit = units_ * (thread) / (threads); unit < units_ * ((thread) + 1) / (threads); unit++)

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE void forward(const int inputs, const int outputs, const int kernel, const int stride, const int pad,
                    const Node *n, int thread, int threads) {
    vec *a = n->scratch + thread * n->scratch_size;
    double *sums = n->sums + 2 * thread * n->c_out;
    memset(sums, 0, 2 * (size_t)n->c_out * sizeof(double));
    const Tensor *out = &n->tensors[n->out];
    UNITS(n, thread, threads) {
        const int64_t block = unit / n->groups, group = unit % n->groups;
        const float *weight = n->weight + group * outputs * inputs * kernel * kernel;
        const float *pivot = n->running_mean + group * outputs;
        stored *to = plane(out, block, group * outputs);
        Moments moments[outputs];
        memset(moments, 0, sizeof moments);
        Moments *gather = n->training && n->normed ? moments : 0;
        if (kernel == 1 && stride == 1) {
            for (int64_t p = 0; p < out->pixels; p += CHUNK) {
                const int64_t count = least(CHUNK, out->pixels - p);
                for (int i = 0; i < inputs; i++) see(n, block, group * inputs + i, p, count, a + i * CHUNK);
                row(inputs, outputs, 1, 1, a, CHUNK, CHUNK, weight, count, to + p, out->pixels, pivot, gather);
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
                    row(inputs, outputs, kernel, stride, a + r * stride * pitch, size, pitch, weight, n->out_width,
                        to + (y + r) * n->out_width, out->pixels, pivot, gather);
            }
        }
        if (gather)
            for (int o = 0; o < outputs; o++) {
                sums[group * outputs + o] += (double)across(moments[o].sum);
                sums[n->c_out + group * outputs + o] += (double)across(moments[o].square);
            }
    }
}

INLINE void backward(const int inputs, const int outputs, const int kernel, const int stride, const int pad,
                     const Node *n, int thread, int threads) {
    vec *scratch = n->scratch + thread * n->scratch_size;
    const int64_t taps = kernel * kernel, group_weights = (int64_t)outputs * inputs * taps;
    vec *partial_all = n->weight_partial ? n->weight_partial + thread * group_weights * n->groups : 0;
    if (partial_all) memset(partial_all, 0, (size_t)(group_weights * n->groups) * sizeof(vec));
    const Tensor *out = &n->tensors[n->out];
    const Tensor *grad = n->grad >= 0 ? &n->tensors[n->grad] : 0;
    float *turned = (float *)(scratch + n->scratch_size) - group_weights; /* weight with inputs and outputs exchanged, taps reversed */
    int64_t turned_group = -1;
    UNITS(n, thread, threads) {
        const int64_t block = unit / n->groups, group = unit % n->groups;
        const float *weight = n->weight + group * group_weights;
        vec *partial = partial_all ? partial_all + group * group_weights : 0;
        if (grad && turned_group != group)
            for (int o = 0; o < outputs; o++)
                for (int i = 0; i < inputs; i++)
                    for (int64_t t = 0; t < taps; t++)
                        turned[(i * outputs + o) * taps + taps - 1 - t] = weight[(o * inputs + i) * taps + t];
        turned_group = group;
        stored *to = grad ? plane(grad, block, group * inputs) : 0;
        if (kernel == 1 && stride == 1) {
            vec *a = scratch, *dz = scratch + inputs * CHUNK;
            for (int64_t p = 0; p < out->pixels; p += CHUNK) {
                const int64_t count = least(CHUNK, out->pixels - p);
                for (int o = 0; o < outputs; o++) see_gradient(n, block, group * outputs + o, p, count, dz + o * CHUNK);
                if (partial) {
                    for (int i = 0; i < inputs; i++) see(n, block, group * inputs + i, p, count, a + i * CHUNK);
                    weight_rows(inputs, outputs, 1, 1, a, CHUNK, CHUNK, dz, CHUNK, CHUNK, 1, count, partial);
                }
                if (grad) row(outputs, inputs, 1, 1, dz, CHUNK, CHUNK, turned, count, to + p, grad->pixels, 0, 0);
            }
        } else if (stride == 1 && 2 * pad == kernel - 1) {
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
                            to + (y + r) * n->width, grad->pixels, 0, 0);
            }
        } else { /* stride 2: whole planes */
            const int64_t a_pitch = n->width + 2 * pad, a_size = (n->height + 2 * pad) * a_pitch;
            const int64_t dz_pitch = n->out_width + 2 * (int64_t)(PIXEL_TILE(1)), dz_size = (n->out_height + 2) * dz_pitch;
            vec *a = scratch, *dz = scratch + inputs * a_size;
            for (int o = 0; o < outputs; o++) {
                vec *top = dz + o * dz_size;
                memset(top, 0, (size_t)dz_size * sizeof(vec));
                for (int64_t y = 0; y < n->out_height; y++)
                    see_gradient(n, block, group * outputs + o, y * n->out_width, n->out_width, top + (y + 1) * dz_pitch + 1);
            }
            if (partial) {
                for (int i = 0; i < inputs; i++)
                    PADDED(see, n, block, group * inputs + i, -pad, n->height + 2 * pad, n->height, n->width, pad, a + i * a_size);
                weight_rows(inputs, outputs, kernel, stride, a, a_size, a_pitch, dz + dz_pitch + 1, dz_size, dz_pitch,
                            n->out_height, n->out_width, partial);
            }
            if (grad)
                strided_gradient(inputs, outputs, kernel, pad, dz, dz_size, dz_pitch, weight, n->height, n->width, to,
                                 grad->pixels);
        }
    }
}

/* What the batch-norm after a convolution needs from its sums: thread 0 alone. */
void lanes_normalise(const Node *n, int thread, int threads) {
    if (thread) return;
    const double count = (double)(n->blocks * LANES * n->out_height * n->out_width);
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
void lanes_reduce(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out];
    double *sums = n->sums + 2 * thread * n->c_out;
    memset(sums, 0, 2 * (size_t)n->c_out * sizeof(double));
    const int64_t units = n->blocks * n->c_out;
    for (int64_t unit = units * thread / threads; unit < units * (thread + 1) / threads; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        const stored *z = plane(out, block, c);
        const Term *uses = n->uses + n->use_first[c];
        const int32_t many = n->use_first[c + 1] - n->use_first[c];
        stored *total = n->total >= 0 ? plane(&n->tensors[n->total], block, c) : 0;
        const float scale = n->scale[c], shift = n->shift[c], mean = n->normed ? n->mean[c] : 0;
        const stored *from[8];
        for (int32_t u = 0; u < many && u < 8; u++)
            from[u] = plane(&n->tensors[uses[u].tensor], block, uses[u].channel);
        vec sum = {0}, product = {0};
#define ADD(act, gate)                                                                                         \
    {                                                                                                          \
        for (int64_t p = 0; p < out->pixels; p++) {                                                            \
            vec da = {0};                                                                                      \
            for (int32_t u = 0; u < many; u++) da += load(from[u] + p);                                        \
            if (total) store(total + p, da);                                                                   \
            const vec raw = load(z + p);                                                                       \
            da = gate(raw * scale + shift, da);                                                                \
            sum += da;                                                                                         \
            product += da * (raw - mean);                                                                      \
        }                                                                                                      \
    }
        WITH_ACTIVATION(out->act, ADD);
#undef ADD
        sums[c] += (double)across(sum);
        sums[n->c_out + c] += (double)across(product);
    }
}

/* Gradients of scale and shift, and the three numbers that turn da into dz: thread 0 alone. */
void lanes_denormalise(const Node *n, int thread, int threads) {
    if (thread) return;
    const double count = (double)(n->blocks * LANES * n->out_height * n->out_width);
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

/* The weight gradient from its partial sums over threads and lanes. */
void lanes_weights(const Node *n, int thread, int threads) {
    const int64_t weights = n->weights;
    for (int64_t w = weights * thread / threads; w < weights * (thread + 1) / threads; w++) {
        vec sum = n->weight_partial[w];
        for (int t = 1; t < threads; t++) sum += n->weight_partial[t * weights + w];
        n->weight_grad[w] = across(sum);
    }
}

/* A sum of planes that has to exist in memory: before a ReLU on it, or because another reader wants it whole. */
void lanes_sum(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out];
    vec *line = n->scratch + thread * n->scratch_size;
    const int64_t units = n->blocks * n->c_out;
    for (int64_t unit = units * thread / threads; unit < units * (thread + 1) / threads; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        stored *to = plane(out, block, c);
        for (int64_t p = 0; p < out->pixels; p += CHUNK) {
            const int64_t count = least(CHUNK, out->pixels - p);
            see(n, block, c, p, count, line);
#define WRITE(act, gate) { for (int64_t k = 0; k < count; k++) store(to + p + k, act(line[k])); }
            WITH_ACTIVATION(n->sum_act, WRITE);
#undef WRITE
        }
    }
}

/* Its gradient: all uses added, stopped where the activation stopped the value. */
void lanes_sum_gradient(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out], *grad = &n->tensors[n->grad];
    const int64_t units = n->blocks * n->c_out;
    for (int64_t unit = units * thread / threads; unit < units * (thread + 1) / threads; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        const stored *z = plane(out, block, c);
        stored *to = plane(grad, block, c);
        const Term *uses = n->uses + n->use_first[c];
        const int32_t many = n->use_first[c + 1] - n->use_first[c];
        const stored *from[8];
        for (int32_t u = 0; u < many && u < 8; u++)
            from[u] = plane(&n->tensors[uses[u].tensor], block, uses[u].channel);
#define STOP(act, gate)                                                                                        \
    {                                                                                                          \
        for (int64_t p = 0; p < out->pixels; p++) {                                                            \
            vec da = {0};                                                                                      \
            for (int32_t u = 0; u < many; u++) da += load(from[u] + p);                                        \
            store(to + p, gate(load(z + p), da));                                                              \
        }                                                                                                      \
    }
        WITH_ACTIVATION(n->sum_act, STOP);
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
void lanes_max(const Node *n, int thread, int threads) {
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
void lanes_max_gradient(const Node *n, int thread, int threads) {
    const Tensor *out = &n->tensors[n->out], *grad = &n->tensors[n->grad];
    const int64_t pitch = POOL_PITCH(n), units = n->blocks * n->c_out;
    vec *a = n->scratch + thread * n->scratch_size, *sum = a + POOL_SIZE(n);
    for (int64_t unit = units * thread / threads; unit < units * (thread + 1) / threads; unit++) {
        const int64_t block = unit / n->c_out, c = unit % n->c_out;
        stored *to = plane(grad, block, c);
        see_bordered(n, block, c, pitch, POOL_SIZE(n), a);
        memset(sum, 0, (size_t)POOL_SIZE(n) * sizeof(vec));
        for (int64_t y = 0; y < n->out_height; y++)
            for (int64_t x = 0; x < n->out_width; x++) {
                const int64_t corner = y * n->step * pitch + x * n->step;
                vec da = {0}, most = a[corner];
                for (int32_t u = n->use_first[c]; u < n->use_first[c + 1]; u++)
                    da += load(plane(&n->tensors[n->uses[u].tensor], block, n->uses[u].channel) + y * n->out_width + x);
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

#define CONVOLUTION(name, inputs, outputs, kernel, stride, pad)                                                \
    void forward_##name(const Node *n, int thread, int threads) {                                              \
        forward(inputs, outputs, kernel, stride, pad, n, thread, threads);                                     \
    }                                                                                                          \
    void backward_##name(const Node *n, int thread, int threads) {                                             \
        backward(inputs, outputs, kernel, stride, pad, n, thread, threads);                                    \
    }
