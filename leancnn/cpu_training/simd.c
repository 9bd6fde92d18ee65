/* Training kernels with the batch in the vector lanes: what all of them share, and how a list of steps is run.

   program.py drives them. It puts products.c, convolutions.c and steps.c behind this file, then a line for each shape
   of a convolution.

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
#define ALONE static __attribute__((noinline)) /* compiled once, not into each of its callers */
#define UNROLL _Pragma("GCC unroll 16")
#ifndef __has_builtin
#define __has_builtin(name) 0
#endif

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
INLINE vec same(vec v) { return v; }
INLINE vec pick(ivec which, vec yes, vec no) { return (vec)(((ivec)yes & which) | ((ivec)no & ~which)); }
/* 1 / (1 + exp(-v)), to two units in the last place: exp by Cody and Waite's reduction and a polynomial. */
INLINE vec sigmoid(vec v) {
    const vec low = (vec){0} - 87.0f, high = (vec){0} + 87.0f;
    vec x = -v;
    x = pick(x < low, low, pick(x > high, high, x));
    const vec turns = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* rounded */
    const vec whole = pick(turns == turns, turns, (vec){0});
    const vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const vec power = (vec)((__builtin_convertvector(whole, ivec) + 127) << 23);
    return 1.0f / (1.0f + p * power);
}
INLINE vec silu(vec v) { return v * sigmoid(v); }
INLINE vec hard_sigmoid(vec v) { return clip(v + 3.0f) * (1.0f / 6.0f); }
INLINE vec hard_swish(vec v) { return v * hard_sigmoid(v); }

/* The gradient of what an activation gave, from what it read. */
INLINE vec to_linear(vec read, vec v) { return v; }
INLINE vec to_relu(vec read, vec v) { return (vec)((ivec)v & (read > 0.0f)); }
INLINE vec to_clip(vec read, vec v) { return (vec)((ivec)v & (read > 0.0f) & (read < 6.0f)); }
INLINE vec to_sigmoid(vec read, vec v) {
    const vec s = sigmoid(read);
    return v * (s - s * s);
}
INLINE vec to_silu(vec read, vec v) {
    const vec s = sigmoid(read);
    return v * (s + read * (s - s * s));
}
INLINE vec to_hard_sigmoid(vec read, vec v) {
    return (vec)((ivec)(v * (1.0f / 6.0f)) & (read > -3.0f) & (read < 3.0f));
}
INLINE vec to_hard_swish(vec read, vec v) {
    return pick(read >= 3.0f, v, (vec)((ivec)(v * (read * (1.0f / 3.0f) + 0.5f)) & (read > -3.0f)));
}

/* LOOP with an activation and its gradient. Of ReLU and ReLU6 the gradient may also be had from what they gave. */
enum { LINEAR, RELU, RELU6, SILU, SIGMOID, HARD_SIGMOID, HARD_SWISH }; /* as in trace.py */
#define WITH_ACTIVATION(kind, LOOP)                                                                            \
    switch (kind) {                                                                                            \
        case RELU: LOOP(relu, to_relu) break;                                                                  \
        case RELU6: LOOP(clip, to_clip) break;                                                                 \
        case SILU: LOOP(silu, to_silu) break;                                                                  \
        case SIGMOID: LOOP(sigmoid, to_sigmoid) break;                                                         \
        case HARD_SIGMOID: LOOP(hard_sigmoid, to_hard_sigmoid) break;                                          \
        case HARD_SWISH: LOOP(hard_swish, to_hard_swish) break;                                                \
        default: LOOP(same, to_linear) break;                                                                  \
    }

#if __has_builtin(__builtin_shufflevector) && LANES == 8
INLINE float across(vec v) {
    const vec a = v + __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
    const vec b = a + __builtin_shufflevector(a, a, 2, 3, 0, 1, 6, 7, 4, 5);
    return b[0] + b[1];
}
#elif __has_builtin(__builtin_shufflevector) && LANES == 16
INLINE float across(vec v) {
    const vec a = v + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    const vec b = a + __builtin_shufflevector(a, a, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    const vec c = b + __builtin_shufflevector(b, b, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return c[0] + c[1];
}
#else
INLINE float across(vec v) {
    float sum = 0;
    UNROLL for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}
#endif

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
    int64_t out, grad, gate_grad, total; /* places in `tensors`: z; G of the input (-1: nobody asks), and of gates; da when it
                                            has many terms (-1) */
    int64_t blocks, c_in, c_out, groups, height, width, out_height, out_width;
    int64_t weights;           /* elements of weight: (c_out, c_in / groups, kernel, kernel) */
    const float *weight;
    float *weight_grad;
    float *weight_partial;     /* (threads, partial_size), laid out as each kernel likes */
    int64_t partial_size;
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
    int64_t gated;             /* `total` is left behind the activation's gradient, which is dear to compute twice */
    int64_t training, normed;  /* statistics of this batch; batch-norm follows at all */
    int64_t sum_act;           /* of a sum: the activation on it */
    int64_t window, step, border; /* of a pooling: side, stride, pixels around the map that never win */
    const int32_t *windows;    /* of regional maxima: top, left, rows, columns of each */
    int64_t images;            /* of the batch: the last block's other lanes are empty */
    const vec *filled;         /* all bits of a lane that holds an image in the last block */
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
int simd_run(const Step *steps, int count, int threads) {
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

int simd_width(void) { return LANES; }

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
ALONE void see(const Node *n, int64_t block, int64_t i, int64_t from, int64_t count, vec *to) {
    for (int32_t k = n->first[i]; k < n->first[i + 1]; k++) {
        const Tensor *t = &n->tensors[n->terms[k].tensor];
        const int64_t c = n->terms[k].channel;
        const stored *z = plane(t, block, c) + from;
        const float scale = t->scale[c], shift = t->shift[c];
        ahead(z, count);
#define FIRST(act, gate) { for (int64_t p = 0; p < count; p++) to[p] = act(load(z + p) * scale + shift); }
#define MORE(act, gate) { for (int64_t p = 0; p < count; p++) to[p] += act(load(z + p) * scale + shift); }
        if (k == n->first[i]) WITH_ACTIVATION(t->act, FIRST)
        else WITH_ACTIVATION(t->act, MORE)
#undef FIRST
#undef MORE
    }
}

INLINE int last_and_partly_empty(const Node *n, int64_t block) {
    return (block + 1) * LANES > n->images;
}

/* What the readers of output plane `c` left for it, one pointer each, and the sum of those that left the same for all
   pixels (a mean does). Returns how many pointers there are. */
INLINE int32_t gradients_left(const Node *n, int64_t block, int64_t c, const stored **from, vec *flat) {
    const int64_t pixels = n->tensors[n->out].pixels;
    int32_t many = 0;
    *flat = (vec){0};
    for (int32_t u = n->use_first[c]; u < n->use_first[c + 1]; u++) {
        const Tensor *g = &n->tensors[n->uses[u].tensor];
        const stored *left = plane(g, block, n->uses[u].channel);
        if (g->pixels < pixels) *flat += load(left);
        else from[many++] = left;
    }
    return many;
}

/* dz of output plane `c`, `count` pixels from `from`; nothing from empty lanes. */
ALONE void see_gradient(const Node *n, int64_t block, int64_t c, int64_t from, int64_t count, vec *to) {
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
    const int64_t step = g->pixels == out->pixels;
    const stored *da = plane(g, block, channel) + step * from;
    ahead(z, count);
    if (step) ahead(da, count);
#define BACK(act, gate)                                                                                        \
    {                                                                                                          \
        for (int64_t p = 0; p < count; p++) {                                                                  \
            const vec raw = load(z + p);                                                                       \
            to[p] = slope * gate(raw * scale + shift, load(da + p * step)) + (curve * raw + offset);           \
        }                                                                                                      \
    }
    WITH_ACTIVATION(n->gated ? LINEAR : out->act, BACK)
#undef BACK
    if (last_and_partly_empty(n, block))
        for (int64_t p = 0; p < count; p++) to[p] = (vec)((ivec)to[p] & *(const ivec *)n->filled);
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


INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

typedef struct { vec sum, square; } Moments;

/* This thread's share of `all`, from..to. */
#define SHARE(all, thread, threads)                                                                            \
    const int64_t from_ = (all) * (thread) / (threads), to_ = (all) * ((thread) + 1) / (threads)
