/* Vectors of LANES floats with the compiler's own vector types. Choose another width with -DLANES=n
   (16, 8, 4, or 1 for plain loops) and say how many vector registers there are with -DREGISTERS=n. */
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(__ASSOCIATIVE_MATH__) || defined(_M_FP_FAST)
#error "this file needs sums in the order written, NaN and infinities: leave out -ffast-math and -Ofast; -O3 is as fast"
#endif
#include <stddef.h>
#include <stdint.h>
#if defined(__STDC_HOSTED__) && !__STDC_HOSTED__ /* -ffreestanding: the first four are yours, the others where a network has logarithms or powers */
#ifdef __cplusplus
extern "C" {
#endif
void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);
float expf(float x);
float sqrtf(float x);
float logf(float x);
float log1pf(float x);
float powf(float x, float y);
#ifdef __cplusplus
}
#endif
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#else
#define HOSTED
#include <math.h>
#include <string.h>
#endif

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

#if defined(HOSTED) && LANES == 16 && defined(__AVX512F__)
#define AVX512
#elif defined(HOSTED) && LANES == 8 && defined(__AVX__)
#define AVX
#elif defined(HOSTED) && LANES == 4 && defined(__SSE__)
#define SSE
#endif
#if defined(AVX512) || defined(AVX) || defined(SSE)
#include <immintrin.h>
#elif LANES == 4 && defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#if defined(__GNUC__) && LANES > 1
#pragma GCC diagnostic ignored "-Wpsabi" /* wider vectors than the processor's stay in this file */
#endif
#if defined(__clang__) && __clang_major__ >= 12
#pragma clang fp reassociate(off) /* also with -funsafe-math-optimizations, which no macro tells */
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast") /* a * b + c in one instruction, which -std=c11 forbids */
#endif

/*@ alignment.h @*/
/*@ order.h @*/

#if defined(__GNUC__)
#define prefetch(p) __builtin_prefetch(p)
#else
#define prefetch(p) ((void)(p))
#endif

#if defined(__GNUC__)
#define HELPER static inline __attribute__((unused))
#if !defined(__clang__) && __GNUC__ >= 8 /* one function of all layers compiles for minutes, */
#define LAYER static __attribute__((noipa)) void /* and gcc 12 -O2 may take one for a call without effects */
#else
#define LAYER static __attribute__((noinline)) void
#endif
#else
#define HELPER static inline
#define LAYER static void
#endif

#if LANES == 1
typedef float vf;
typedef int32_t vi;
typedef uint32_t vu;
HELPER vf load(const float *p) { return *p; }
HELPER void store(float *p, vf x) { *p = x; }
HELPER vf keep(vf x, const int32_t *mask) { return *mask ? x : 0.0f; }
HELPER vf choose(vf x, vf y, vf z) { return x > 0.0f ? y : z; }
HELPER vf greater(vf x, vf y) { return x > y ? x : y; }
HELPER vf lesser(vf x, vf y) { return x < y ? x : y; }
HELPER vu bits(vf x) { vu y; memcpy(&y, &x, sizeof y); return y; }
HELPER vf real(vu x) { vf y; memcpy(&y, &x, sizeof y); return y; }
#else
typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef float vf_anywhere __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t vi_anywhere __attribute__((vector_size(4 * LANES), aligned(4)));
HELPER vf load(const float *p) { return *(const vf_anywhere *)p; }
HELPER void store(float *p, vf x) { *(vf_anywhere *)p = x; }
HELPER vf keep(vf x, const int32_t *mask) { return (vf)((vi)x & *(const vi_anywhere *)mask); }
HELPER vu bits(vf x) { return (vu)x; }
HELPER vf real(vu x) { return (vf)x; }
/* y where x is above 0, else z */
HELPER vf choose(vf x, vf y, vf z)
{
    vi above = (vi)(x > 0.0f);
    return (vf)(((vi)y & above) | ((vi)z & ~above));
}
/* The one that is greater, or lesser; y where one of them is not a number. */
#ifdef AVX512
HELPER vf greater(vf x, vf y) { return (vf)_mm512_max_ps((__m512)x, (__m512)y); }
HELPER vf lesser(vf x, vf y) { return (vf)_mm512_min_ps((__m512)x, (__m512)y); }
#elif defined(AVX)
HELPER vf greater(vf x, vf y) { return (vf)_mm256_max_ps((__m256)x, (__m256)y); }
HELPER vf lesser(vf x, vf y) { return (vf)_mm256_min_ps((__m256)x, (__m256)y); }
#elif defined(SSE)
HELPER vf greater(vf x, vf y) { return (vf)_mm_max_ps((__m128)x, (__m128)y); }
HELPER vf lesser(vf x, vf y) { return (vf)_mm_min_ps((__m128)x, (__m128)y); }
#elif LANES == 4 && defined(__ARM_NEON) /* not a number where one of them is not: as good */
HELPER vf greater(vf x, vf y) { return (vf)vmaxq_f32((float32x4_t)x, (float32x4_t)y); }
HELPER vf lesser(vf x, vf y) { return (vf)vminq_f32((float32x4_t)x, (float32x4_t)y); }
#else
HELPER vf greater(vf x, vf y)
{
    vi above = (vi)(x > y);
    return (vf)(((vi)x & above) | ((vi)y & ~above));
}
HELPER vf lesser(vf x, vf y)
{
    vi below = (vi)(x < y);
    return (vf)(((vi)x & below) | ((vi)y & ~below));
}
#endif
#endif

/* What is not a number stays so in all that follows. Of two values both are asked, and their bits put
   together: those of equal numbers are the same, and of something and NaN they are NaN. */
#ifdef AVX512 /* one instruction puts x back where it is NaN: of its eight kinds of numbers the first two */
HELPER vf restored(vf x, vf most) { return (vf)_mm512_fixupimm_ps((__m512)most, (__m512)x, _mm512_set1_epi32(0x22), 0); }
HELPER vf larger(vf x, vf y) { return restored(x, greater(x, y)); }
HELPER vf smaller(vf x, vf y) { return restored(x, lesser(x, y)); }
#else
HELPER vf larger(vf x, vf y) { return real(bits(greater(x, y)) | bits(greater(y, x))); }
HELPER vf smaller(vf x, vf y) { return real(bits(lesser(x, y)) | bits(lesser(y, x))); }
#endif
/* x where it is above, or below, a number */
HELPER vf floored(vf x, vf low) { return greater(low, x); }
HELPER vf capped(vf x, vf high) { return lesser(high, x); }
/* x - 0 is x, so this is one broadcast. */
HELPER vf splat(float x)
{
    const vf none = {0};
    return x - none;
}
HELPER vf clip(vf x, float low, float high) { return capped(floored(x, splat(low)), splat(high)); }
HELPER vf magnitude(vf x) { return real(bits(x) & 0x7FFFFFFFu); }
HELPER vf signs(vf x, vf y) { return real(bits(x) | (bits(y) & 0x80000000u)); } /* of y, on x >= 0 */
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
    for (int i = 0; i < LANES; i++) v[i] = (v[i] > 0.0f ? v[i] : 0.0f) + log1pf(expf(v[i] > 0.0f ? -v[i] : v[i]));
    return load(v);
}

/* The nearest whole number, half to even, of what is within 2^22. */
HELPER vf nearest(vf x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    return (x + shift) - shift;
}
/* exp x is e^r 2^n: n, and (e^r - 1) / r, for |x| < 105; r, |r| < 0.35, is x less n times log 2 in two parts. */
HELPER vf reduced(vf x, vf *n, vf *r)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    const vf t = x * 1.44269504f + shift;
    *n = t - shift;
    *r = (x - *n * 0.693359375f) + *n * 2.12194440e-4f;
    vf m = 1.39506534e-3f * *r + 8.36900622e-3f;
    m = m * *r + 4.1666206e-2f;
    m = m * *r + 0.166665182f;
    m = m * *r + 0.5f;
    return m * *r + 1.0f;
}
/* x times 2^n for whole n, also where that is no normal number: in two steps, neither of which is too far */
HELPER vf scaled(vf x, vf n)
{
#ifdef AVX512
    return (vf)_mm512_scalef_ps((__m512)x, (__m512)n);
#else
    const vu whole = bits(n + 12583168.0f) - 0x4B400000u; /* n + 256 */
    const vu half = whole / 2, rest = whole - half;
    return x * real((half - 1) << 23) * real((rest - 1) << 23);
#endif
}
/* exp to 1 unit in the last place, from 0 to infinity */
HELPER vf exponential(vf x)
{
    vf n, r;
    const vf m = reduced(clip(x, -104.0f, 89.0f), &n, &r);
    return scaled(m * r + 1.0f, n);
}
/* exp x - 1, to 2 units in the last place also near 0 */
HELPER vf growth(vf x)
{
    vf n, r;
    const vf m = reduced(clip(x, -30.0f, 89.0f), &n, &r);
    return scaled(m * r + (1.0f - scaled(splat(1.0f), -n)), n);
}
/* exp of what is not above 0 */
HELPER vf decay(vf x)
{
    vf n, r;
    const vf m = reduced(floored(x, splat(-104.0f)), &n, &r);
    return scaled(m * r + 1.0f, n);
}
/* y / (1 + e^-x), below 0 as y e^x / (e^x + 1): what is large is never computed */
HELPER vf gated(vf x, vf y)
{
    const vf e = decay(real(bits(x) | 0x80000000u));
    return y * choose(x, splat(1.0f), e) / (1.0f + e);
}
HELPER vf sigmoid(vf x) { return gated(x, splat(1.0f)); }
HELPER vf silu(vf x) { return gated(x, x); }
HELPER vf tangent(vf x)
{
    const vf e = growth(2.0f * capped(magnitude(x), splat(10.0f)));
    return signs(e / (e + 2.0f), x);
}
/* erf: x times a polynomial of its square; from 0.93 on 1 - exp of one, the logarithm of what is missing */
HELPER vf error_function(vf x)
{
    const vf a = capped(magnitude(x), splat(4.05f)), s = a * a;
    vf y = 8.34522507e-5f * s - 8.13743798e-4f;
    y = y * s + 5.20063424e-3f;
    y = y * s - 2.68592704e-2f;
    y = y * s + 0.112836942f;
    y = y * s - 0.376126349f;
    y = y * s + 0.128379166f;
    y = y * a + a;
    vf q = 1.98221009e-4f * a - 3.06550274e-3f;
    q = q * a + 2.2315260e-2f;
    q = q * a - 0.104113765f;
    q = q * a - 0.636976004f;
    q = q * a - 1.12779725f;
    q = q * a - 1.66435537e-4f;
    return signs(choose(a - 0.93f, 1.0f - decay(q), y), x);
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
    int32_t odd[LANES]; /* whether it is not a number: without a branch, which would be guessed wrong */
    store(v, x);
    for (int i = 0; i < LANES; i++) odd[i] = v[i] != v[i];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) {
            v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
            odd[i] |= odd[i + half];
        }
    return odd[0] ? NAN : v[0];
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
