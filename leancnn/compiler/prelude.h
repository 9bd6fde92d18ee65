/* Vectors of LANES floats with the compiler's own vector types. Choose another width with -DLANES=n
   (16, 8, 4, or 1 for plain loops) and say how many vector registers there are with -DREGISTERS=n. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef LANES
#if !defined(__GNUC__)
#define LANES 1
#elif defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#elif defined(__SSE2__) || defined(__ARM_NEON) || defined(__wasm_simd128__) || defined(__riscv_vector)
#define LANES 4
#else
#define LANES 1
#endif
#endif
#ifndef REGISTERS
#if defined(__AVX512F__) || defined(__aarch64__) || defined(__riscv)
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#endif

#if LANES > 1 && defined(__AVX512F__) && LANES == 16
#include <immintrin.h>
#endif
#if defined(__GNUC__) && LANES > 1
#pragma GCC diagnostic ignored "-Wpsabi" /* wider vectors than the processor's stay in this file */
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast") /* a * b + c in one instruction, which -std=c11 forbids */
#endif

#if defined(__GNUC__)
#define prefetch(p) __builtin_prefetch(p)
#else
#define prefetch(p) ((void)(p))
#endif

#if defined(__GNUC__)
#define HELPER static inline __attribute__((unused))
#define LAYER static __attribute__((noinline)) void /* one function of all layers compiles for minutes */
#else
#define HELPER static inline
#define LAYER static void
#endif

#if LANES == 1
typedef float vf;
typedef int32_t vi;
HELPER vf load(const float *p) { return *p; }
HELPER void store(float *p, vf x) { *p = x; }
HELPER vf keep(vf x, const int32_t *mask) { return *mask ? x : 0.0f; }
HELPER vf larger(vf x, vf y) { return x > y ? x : y; }
HELPER vf smaller(vf x, vf y) { return x < y ? x : y; }
HELPER vf choose(vf x, vf y, vf z) { return x > 0.0f ? y : z; }
#else
typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef float vf_anywhere __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t vi_anywhere __attribute__((vector_size(4 * LANES), aligned(4)));
HELPER vf load(const float *p) { return *(const vf_anywhere *)p; }
HELPER void store(float *p, vf x) { *(vf_anywhere *)p = x; }
HELPER vf keep(vf x, const int32_t *mask) { return (vf)((vi)x & *(const vi_anywhere *)mask); }
/* y where x is above 0, else z */
HELPER vf choose(vf x, vf y, vf z)
{
    vi above = (vi)(x > 0.0f);
    return (vf)(((vi)y & above) | ((vi)z & ~above));
}
#if defined(__AVX512F__) && LANES == 16
HELPER vf larger(vf x, vf y) { return (vf)_mm512_max_ps((__m512)x, (__m512)y); }
HELPER vf smaller(vf x, vf y) { return (vf)_mm512_min_ps((__m512)x, (__m512)y); }
#else
HELPER vf larger(vf x, vf y) { return choose(x - y, x, y); }
HELPER vf smaller(vf x, vf y) { return choose(x - y, y, x); }
#endif
#endif

/* x - 0 is x, so this is one broadcast. */
HELPER vf splat(float x) { return x - (vf){0}; }
HELPER vf clip(vf x, float low, float high) { return smaller(larger(x, splat(low)), splat(high)); }
HELPER vf root(vf x)
{
    float v[LANES];
    store(v, x);
    for (int i = 0; i < LANES; i++) v[i] = sqrtf(v[i]);
    return load(v);
}
/* Functions of C's library, number by number. */
HELPER vf logarithm(vf x)
{
    float v[LANES];
    store(v, x);
    for (int i = 0; i < LANES; i++) v[i] = logf(v[i]);
    return load(v);
}
HELPER vf power(vf x, float n)
{
    float v[LANES];
    store(v, x);
    for (int i = 0; i < LANES; i++) v[i] = powf(v[i], n);
    return load(v);
}
/* log(1 + exp x) */
HELPER vf softplus(vf x)
{
    float v[LANES];
    store(v, x);
    for (int i = 0; i < LANES; i++) v[i] = (v[i] > 0.0f ? v[i] : 0.0f) + log1pf(expf(-fabsf(v[i])));
    return load(v);
}

/* exp to 5e-7 of itself for |x| < 10 and 4e-6 at the ends, beyond which it stays: 2^n by the exponent's
   bits, 2^r by a polynomial on |r| <= 1/2. */
HELPER vf exponential(vf x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    x = clip(x, -87.0f, 87.0f);
    vf t = x * 1.44269504f + shift;
    vf n = t - shift, r = x * 1.44269504f - n;
    vf e = 1.535336188e-4f * r + 1.339887440e-3f;
    e = e * r + 9.618437357e-3f;
    e = e * r + 5.550332471e-2f;
    e = e * r + 2.402264791e-1f;
    e = e * r + 6.931472029e-1f;
    e = e * r + 1.0f;
    vi bits, power;
    memcpy(&bits, &t, sizeof bits);
    memcpy(&power, &e, sizeof power);
    power += (bits - 0x4B400000) * (1 << 23);
    memcpy(&e, &power, sizeof e);
    return e;
}
HELPER vf sigmoid(vf x) { return 1.0f / (1.0f + exponential(-x)); }
HELPER vf silu(vf x) { return x / (1.0f + exponential(-x)); }
/* erf to 5e-7: Abramowitz and Stegun 7.1.26. */
HELPER vf error_function(vf x)
{
    const vf a = larger(x, -x), t = 1.0f / (1.0f + 0.3275911f * a);
    vf y = 1.061405429f * t - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    y = 1.0f - y * t * exponential(-a * a);
    return choose(x, y, -y);
}
HELPER vf hardsigmoid(vf x) { return clip(x * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f); }

HELPER float total(vf x)
{
    float v[LANES];
    store(v, x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
}
HELPER float largest(vf x)
{
    float v[LANES];
    store(v, x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
    return v[0];
}
/* LANES floats from anywhere in the arena. */
HELPER vf gather(const float *s, const int32_t *places)
{
    float v[LANES];
    for (int i = 0; i < LANES; i++) v[i] = s[places[i]];
    return load(v);
}
/* Every second float of LANES from x on and, in the upper half, of LANES from y on. */
#if __GNUC__ >= 12 || defined(__clang__)
#if LANES == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#elif LANES == 4
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#endif
#endif
#ifdef EVEN
HELPER vf evens(const float *x, const float *y) { return __builtin_shufflevector(load(x), load(y), EVEN); }
HELPER vf odds(const float *x, const float *y) { return __builtin_shufflevector(load(x), load(y), ODD); }
#else
HELPER vf evens(const float *x, const float *y)
{
    float v[LANES];
    for (int i = 0; i < LANES; i++) v[i] = i < LANES / 2 || LANES == 1 ? x[2 * i] : y[2 * i - LANES];
    return load(v);
}
HELPER vf odds(const float *x, const float *y) { return evens(x + 1, y + 1); }
#endif
HELPER void unzip(const float *x, float *even, float *odd)
{
    const vf a = evens(x, x + LANES), b = odds(x, x + LANES);
    store(even, a);
    store(odd, b);
}
/* Element j of vector i to element i of vector j: the halves of all vectors are zipped, over and over. */
#ifdef LOW
HELPER void zip(const vf *x, vf *y)
{
    for (int i = 0; i < LANES / 2; i++) {
        y[2 * i] = __builtin_shufflevector(x[i], x[i + LANES / 2], LOW);
        y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + LANES / 2], HIGH);
    }
}
HELPER void transpose(vf *x)
{
    vf y[LANES];
    zip(x, y);
    zip(y, x);
#if LANES > 4
    zip(x, y);
#if LANES == 8
    for (int i = 0; i < LANES; i++) x[i] = y[i];
#else
    zip(y, x);
#endif
#endif
}
#else
HELPER void transpose(vf *x)
{
    float v[LANES * LANES];
    for (int i = 0; i < LANES; i++) store(v + i * LANES, x[i]);
    for (int i = 0; i < LANES; i++) {
        float y[LANES];
        for (int j = 0; j < LANES; j++) y[j] = v[j * LANES + i];
        x[i] = load(y);
    }
}
#endif
/* Where output p of a line begins in one twice as wide whose rows are `apart` for each of its own. */
HELPER int doubled(int p, int pitch, int apart) { return p / pitch * apart + p % pitch * 2; }
/* Zeros around planes: before the first row, and from the end of each plane to the next. */
HELPER void clear_gaps(float *first, int planes, int stride, int line, int below)
{
    for (int i = -below; i < 0; i++) first[i] = 0.0f;
    for (int c = 0; c < planes; c++)
        for (int i = line; i < stride; i++) first[(ptrdiff_t)c * stride + i] = 0.0f;
}
