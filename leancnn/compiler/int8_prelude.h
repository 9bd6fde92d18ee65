/* Quads: four channels of a pixel in one word, LANES pixels in a vector. Ways to multiply them by
   quads of weights and add up: one instruction (VNNI, Arm dot product), pairs of bytes (AVX2, SSSE3, of
   weights that suit them) or of 16-bit products (SSE2, WebAssembly), NEON's long multiplication, or
   plain loops. All are exact, so all are equal.
   Choose less with -DLANES=8, 4 or 1, and -DREGISTERS=n. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifndef LANES
#if !defined(__GNUC__)
#define LANES 1
#elif defined(__AVX512BW__) && defined(__AVX512VL__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#elif defined(__SSE2__) || (defined(__aarch64__) && defined(__ARM_NEON)) || defined(__wasm_simd128__)
#define LANES 4
#else
#define LANES 1
#endif
#endif
#if LANES > 1 && !defined(__SSE2__) && !defined(__wasm_simd128__) && \
    !(defined(__aarch64__) && defined(__ARM_NEON))
#undef LANES
#define LANES 1 /* no vectors are written out for this processor */
#endif
#ifndef REGISTERS
#if defined(__AVX512F__) || defined(__aarch64__)
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#endif

/*@ alignment.h @*/
/*@ order.h @*/

#if defined(__GNUC__)
#define HELPER static inline __attribute__((unused, always_inline))
#define CALLED static __attribute__((unused, noinline)) /* a helper of many instructions */
#if !defined(__clang__) && __GNUC__ >= 8
#define LAYER static __attribute__((noipa)) void /* gcc 12 -O2 may drop a call otherwise, and keeps clones */
#else
#define LAYER static __attribute__((noinline)) void
#endif
#else
#define HELPER static inline
#define CALLED static
#define LAYER static void
#endif

/* rint(float32(sum) * m), half to even, each of the three roundings as IEEE 754 has it; in integers
   where there is no floating-point unit, or with -DINTEGERS. */
#if defined(INTEGERS) || defined(__SOFTFP__) || (defined(__riscv) && !defined(__riscv_flen)) || \
    (defined(__ARM_ARCH_PROFILE) && !defined(__ARM_FP))
HELPER int bits_of(uint32_t x)
{
#if defined(__GNUC__)
    return x ? 32 - __builtin_clz(x) : 0;
#else
    int n = 0;
    for (; x; x >>= 1) n++;
    return n;
#endif
}
HELPER uint32_t half_even(uint32_t x, int shift) /* of at most 2^31, and of 2^24 where shift is above 8 */
{
    if (shift > 25) return 0;
    if (shift <= 0) return shift < -7 || x >> (31 + shift) ? 0x7FFFFFFF : x << -shift;
    return (x + (((uint32_t)1 << (shift - 1)) - 1) + (x >> shift & 1)) >> shift;
}
CALLED int32_t requantize(int32_t sum, float m)
{
    uint32_t word;
    memcpy(&word, &m, sizeof word);
    const int exponent = (int)(word >> 23 & 255);
    uint32_t x = sum < 0 ? 0 - (uint32_t)sum : (uint32_t)sum;
    if (!x || !exponent) return 0; /* a multiplier below 2^-126 gives 0 */
    const int digits = bits_of(x), first = digits > 24 ? digits - 24 : 0;
    x = half_even(x, first); /* may be 2^24 now */
    const int up = 32 - bits_of(x);
    /* Both with their first digit in bit 31: the product's is in bit 63 or 62. */
    const uint64_t product = (uint64_t)(x << up) * (word << 8 | 0x80000000u);
    uint32_t high = (uint32_t)(product >> 32), low = (uint32_t)product;
    const int once = !(high >> 31);
    if (once) high = high << 1 | low >> 31, low <<= 1;
    const uint32_t rest = high << 24 | (low != 0); /* behind 24 digits; bit 31 is a half of the last */
    x = high >> 8;
    x += rest > 0x80000000u || (rest == 0x80000000u && x & 1);
    x = half_even(x, 118 + up + once - first - exponent); /* the value is x * 2^-shift */
    return sum < 0 ? -(int32_t)x : (int32_t)x;
}
#elif defined(__SSE2__)
HELPER int32_t requantize(int32_t sum, float m)
{
    return _mm_cvtss_si32(_mm_mul_ss(_mm_cvtsi32_ss(_mm_setzero_ps(), sum), _mm_set_ss(m)));
}
#elif defined(__GNUC__) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
HELPER int32_t requantize(int32_t sum, float m) /* vcvtr rounds as the unit is set: half to even */
{
    float x = (float)sum * m;
    int32_t rounded;
    __asm__("vcvtr.s32.f32 %0, %0" : "+t"(x));
    memcpy(&rounded, &x, sizeof rounded);
    return rounded;
}
#else
/* The product's bits are looked at, so that no compiler may keep more of them than a float has. */
HELPER int32_t requantize(int32_t sum, float m)
{
    const float product = (float)sum * m;
    uint32_t word;
    memcpy(&word, &product, sizeof word);
    const int exponent = (int)(word >> 23 & 255);
    const uint32_t digits = (word & 0x7FFFFF) | 0x800000;
    uint32_t x;
    if (exponent < 126) return 0; /* below a half */
    if (exponent >= 150) {
        x = exponent > 157 ? 0x7FFFFFFF : digits << (exponent - 150);
    } else {
        const int shift = 150 - exponent;
        x = (digits + (((uint32_t)1 << (shift - 1)) - 1) + (digits >> shift & 1)) >> shift;
    }
    return word >> 31 ? -(int32_t)x : (int32_t)x;
}
#endif

HELPER int32_t lane(uint32_t quad, int i) { return (int32_t)(quad >> 8 * i & 255); }
HELPER int32_t between(int32_t x, int32_t low, int32_t high) { return x < low ? low : x > high ? high : x; }
HELPER uint32_t byte_of(int32_t x, int32_t zero) { return (uint32_t)between(x + zero, 0, 255); }

/* WORDS of weights for a quad: four bytes, or two pairs of 16 bits. */
#define BYTE(x) ((uint32_t)(uint8_t)(x))
#define PAIR(a, b) ((int32_t)((uint32_t)(uint16_t)(a) | (uint32_t)(uint16_t)(b) << 16))
#if LANES == 1 || defined(__ARM_FEATURE_DOTPROD) || (LANES == 16 && defined(__AVX512VNNI__)) || \
    (LANES < 16 && LANES > 1 && defined(__AVX512VNNI__) && defined(__AVX512VL__) && !defined(PAIRS)) || \
    (LANES == 8 && defined(__AVXVNNI__) && !defined(PAIRS))
#define WORDS 1
#define QUAD(a, b, c, d) (int32_t)(BYTE(a) | BYTE(b) << 8 | BYTE(c) << 16 | BYTE(d) << 24)
#else
#define WORDS 2
#define QUAD(a, b, c, d) PAIR(a, c), PAIR(b, d)
#endif

#if LANES == 4 && defined(__aarch64__) && WORDS == 1
#define BIAS(bias, lost) ((bias) + (lost)) /* see dot */
#else
#define BIAS(bias, lost) (bias)
#endif

#if LANES == 1
typedef int32_t vi;
typedef uint32_t vq;
HELPER vi splat(int32_t x) { return x; }
#if defined(__ARM_FEATURE_SIMD32) && defined(__GNUC__) /* two products of 16 bits and their sum at once */
typedef struct { uint32_t even, odd; } vx;
typedef vx vw;
HELPER vx operand(uint32_t x)
{
    vx y;
    __asm__("uxtb16 %0, %1" : "=r"(y.even) : "r"(x));
    __asm__("uxtb16 %0, %1, ror #8" : "=r"(y.odd) : "r"(x));
    return y;
}
HELPER vw weights(const int32_t *p)
{
    vw y;
    __asm__("sxtb16 %0, %1" : "=r"(y.even) : "r"(*p));
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(y.odd) : "r"(*p));
    return y;
}
HELPER vi dot(vi a, vx x, vw w)
{
    __asm__("smlad %0, %1, %2, %0" : "+r"(a) : "r"(x.even), "r"(w.even));
    __asm__("smlad %0, %1, %2, %0" : "+r"(a) : "r"(x.odd), "r"(w.odd));
    return a;
}
#else
typedef uint32_t vx;
typedef int32_t vw;
HELPER vx operand(uint32_t x) { return x; }
HELPER vw weights(const int32_t *p) { return *p; }
HELPER int32_t product(uint32_t x, uint32_t w, int i) { return lane(x, i) * (int8_t)lane(w, i); }
HELPER vi dot(vi a, vx x, vw w) /* no loop: gcc -O2 would leave it one */
{
    const uint32_t u = (uint32_t)w;
    return a + product(x, u, 0) + product(x, u, 1) + product(x, u, 2) + product(x, u, 3);
}
#endif
HELPER vi larger(vi x, vi y) { return x > y ? x : y; }
HELPER vi smaller(vi x, vi y) { return x < y ? x : y; }
HELPER vi plus(vi x, vi y) { return x + y; }
HELPER vi scaled(vi x, float m) { return requantize(x, m); }
HELPER uint32_t quads(vi a, vi b, vi c, vi d, int32_t zero)
{
    return byte_of(a, zero) | byte_of(b, zero) << 8 | byte_of(c, zero) << 16 | byte_of(d, zero) << 24;
}
HELPER void put(uint32_t *p, uint32_t x) { *p = x; }
HELPER uint32_t words(const uint32_t *p) { return *p; }
HELPER vi times_words(vi a, uint32_t x, int i, int32_t f) { return a + lane(x, i) * f; }
#elif LANES == 16
typedef __m512i vi;
typedef __m512i vq;
#define OF(name) _mm512_##name
#define SI(name) _mm512_##name##_si512
#elif LANES == 8
typedef __m256i vi;
typedef __m256i vq;
#define OF(name) _mm256_##name
#define SI(name) _mm256_##name##_si256
#elif defined(__SSE2__)
typedef __m128i vi;
typedef __m128i vq;
#define OF(name) _mm_##name
#define SI(name) _mm_##name##_si128
#endif

#if LANES > 1 && defined(__SSE2__)
HELPER vi splat(int32_t x) { return OF(set1_epi32)(x); }
HELPER vq words(const uint32_t *p) { return SI(loadu)((const vq *)(const void *)p); }
HELPER void put(uint32_t *p, vq x) { SI(storeu)((vq *)(void *)p, x); }
#if WORDS == 1
typedef vq vx;
typedef vi vw;
HELPER vx operand(vq x) { return x; }
HELPER vw weights(const int32_t *p) { return splat(*p); }
#if defined(__AVX512VNNI__) && defined(__GNUC__)
HELPER vi dot(vi a, vx x, vw w) /* of the intrinsic gcc makes copies, and spills what does not fit */
{
    __asm__("vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+v"(a) : "v"(x), "v"(w));
    return a;
}
#elif defined(__AVX512VNNI__)
HELPER vi dot(vi a, vx x, vw w) { return OF(dpbusd_epi32)(a, x, w); }
#else
HELPER vi dot(vi a, vx x, vw w) { return _mm256_dpbusd_avx_epi32(a, x, w); }
#endif
#else
typedef struct { vq even, odd; } vx;
typedef struct { vi even, odd; } vw;
HELPER vx operand(vq x)
{
    const vx y = {SI(and)(x, splat(0x00FF00FF)), OF(srli_epi16)(x, 8)};
    return y;
}
HELPER vw weights(const int32_t *p)
{
    const vw y = {splat(p[0]), splat(p[1])};
    return y;
}
#if defined(__AVX2__) && defined(__GNUC__) && !defined(__clang__)
HELPER vi dot(vi a, vx x, vw w) /* gcc would add up the products first, and spill the sums of a tile */
{
    __asm__("vpaddd {%1, %0, %0|%0, %0, %1}" : "+v"(a) : "v"(OF(madd_epi16)(x.even, w.even)));
    __asm__("vpaddd {%1, %0, %0|%0, %0, %1}" : "+v"(a) : "v"(OF(madd_epi16)(x.odd, w.odd)));
    return a;
}
#else
HELPER vi dot(vi a, vx x, vw w)
{
    a = OF(add_epi32)(a, OF(madd_epi16)(x.even, w.even));
    return OF(add_epi32)(a, OF(madd_epi16)(x.odd, w.odd));
}
#endif
#endif
#if defined(__SSE4_1__)
HELPER vi larger(vi x, vi y) { return OF(max_epi32)(x, y); }
HELPER vi smaller(vi x, vi y) { return OF(min_epi32)(x, y); }
#else
HELPER vi larger(vi x, vi y)
{
    const vi more = _mm_cmpgt_epi32(x, y);
    return _mm_or_si128(_mm_and_si128(more, x), _mm_andnot_si128(more, y));
}
HELPER vi smaller(vi x, vi y)
{
    const vi more = _mm_cmpgt_epi32(x, y);
    return _mm_or_si128(_mm_and_si128(more, y), _mm_andnot_si128(more, x));
}
#endif
HELPER vi plus(vi x, vi y) { return OF(add_epi32)(x, y); }
HELPER vi times_words(vi a, vq x, int i, int32_t f) /* a lane's byte has no bits above it: its pair is 0 */
{
    const vq byte = i == 3 ? OF(srli_epi32)(x, 24) : SI(and)(OF(srli_epi32)(x, 8 * i), splat(255));
    return OF(add_epi32)(a, OF(madd_epi16)(byte, splat(f)));
}
HELPER vi scaled(vi x, float m) { return OF(cvtps_epi32)(OF(mul_ps)(OF(cvtepi32_ps)(x), OF(set1_ps)(m))); }
/* Four vectors of sums to one of quads: within 128 bits packing leaves four words of four bytes. */
HELPER vq quads(vi a, vi b, vi c, vi d, int32_t zero)
{
    vq ab = OF(packs_epi32)(a, b), cd = OF(packs_epi32)(c, d);
    if (zero) {
        const vq z = OF(set1_epi16)((short)zero);
        ab = OF(adds_epi16)(ab, z), cd = OF(adds_epi16)(cd, z);
    }
    vq x = OF(packus_epi16)(ab, cd);
#if LANES == 4
#if defined(__SSSE3__)
    return _mm_shuffle_epi8(x, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
#else
    const vq half = _mm_unpacklo_epi8(x, _mm_srli_si128(x, 8)); /* a0 c0 a1 c1 .. b0 d0 .. */
    return _mm_unpacklo_epi8(half, _mm_srli_si128(half, 8));
#endif
#else
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
#if LANES == 8
    return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(order));
#else
    return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(order));
#endif
#endif
}
#endif

#if LANES == 4 && defined(__aarch64__)
#include <arm_neon.h>
typedef int32x4_t vi;
typedef uint32x4_t vq;
HELPER vi splat(int32_t x) { return vdupq_n_s32(x); }
HELPER vq words(const uint32_t *p) { return vld1q_u32(p); }
HELPER void put(uint32_t *p, vq x) { vst1q_u32(p, x); }
#if WORDS == 1
/* The dot product is of signed bytes: 128 is taken from each, and 128 times the weights added. */
typedef int8x16_t vx;
typedef int8x16_t vw;
HELPER vx operand(vq x)
{
    return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u32(x), vdupq_n_u8(128)));
}
HELPER vw weights(const int32_t *p) { return vreinterpretq_s8_s32(vld1q_dup_s32(p)); }
HELPER vi dot(vi a, vx x, vw w) { return vdotq_s32(a, x, w); }
#else
typedef struct { int16x8_t even, odd; } vx;
typedef struct { int16x4_t even, odd; } vw;
HELPER vx operand(vq quads)
{
    const uint16x8_t x = vreinterpretq_u16_u32(quads);
    const vx y = {vreinterpretq_s16_u16(vandq_u16(x, vdupq_n_u16(255))),
                  vreinterpretq_s16_u16(vshrq_n_u16(x, 8))};
    return y;
}
HELPER vw weights(const int32_t *p)
{
    const vw y = {vreinterpret_s16_s32(vdup_n_s32(p[0])), vreinterpret_s16_s32(vdup_n_s32(p[1]))};
    return y;
}
HELPER vi dot(vi a, vx x, vw w)
{
    int32x4_t low = vmull_s16(vget_low_s16(x.even), w.even);
    int32x4_t high = vmull_s16(vget_high_s16(x.even), w.even);
    low = vmlal_s16(low, vget_low_s16(x.odd), w.odd);
    high = vmlal_s16(high, vget_high_s16(x.odd), w.odd);
    return vaddq_s32(a, vpaddq_s32(low, high));
}
#endif
HELPER vi larger(vi x, vi y) { return vmaxq_s32(x, y); }
HELPER vi smaller(vi x, vi y) { return vminq_s32(x, y); }
HELPER vi plus(vi x, vi y) { return vaddq_s32(x, y); }
HELPER vi times_words(vi a, vq x, int i, int32_t f)
{
    const vq byte = vandq_u32(vshlq_u32(x, vdupq_n_s32(-8 * i)), vdupq_n_u32(255));
    return vmlaq_n_s32(a, vreinterpretq_s32_u32(byte), f);
}
HELPER vi scaled(vi x, float m) { return vcvtnq_s32_f32(vmulq_n_f32(vcvtq_f32_s32(x), m)); }
HELPER vq quads(vi a, vi b, vi c, vi d, int32_t zero)
{
    const int16x8_t z = vdupq_n_s16((int16_t)zero);
    const int16x8_t ab = vqaddq_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)), z);
    const int16x8_t cd = vqaddq_s16(vcombine_s16(vqmovn_s32(c), vqmovn_s32(d)), z);
    const uint8x16_t x = vcombine_u8(vqmovun_s16(ab), vqmovun_s16(cd));
    const uint8x16_t order = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    return vreinterpretq_u32_u8(vqtbl1q_u8(x, order));
}
#endif

#if LANES == 4 && defined(__wasm_simd128__)
#include <wasm_simd128.h>
typedef v128_t vi;
typedef v128_t vq;
typedef struct { v128_t even, odd; } vx;
typedef struct { v128_t even, odd; } vw;
HELPER vi splat(int32_t x) { return wasm_i32x4_splat(x); }
HELPER vq words(const uint32_t *p) { return wasm_v128_load(p); }
HELPER void put(uint32_t *p, vq x) { wasm_v128_store(p, x); }
HELPER vx operand(vq x)
{
    const vx y = {wasm_v128_and(x, wasm_i16x8_splat(255)), wasm_u16x8_shr(x, 8)};
    return y;
}
HELPER vw weights(const int32_t *p)
{
    const vw y = {wasm_v128_load32_splat(p), wasm_v128_load32_splat(p + 1)};
    return y;
}
HELPER vi dot(vi a, vx x, vw w)
{
    const v128_t sum = wasm_i32x4_add(wasm_i32x4_dot_i16x8(x.even, w.even), wasm_i32x4_dot_i16x8(x.odd, w.odd));
    vi y = wasm_i32x4_add(a, sum);
    ordered(y);
    return y;
}
HELPER vi larger(vi x, vi y) { return wasm_i32x4_max(x, y); }
HELPER vi smaller(vi x, vi y) { return wasm_i32x4_min(x, y); }
HELPER vi plus(vi x, vi y) { return wasm_i32x4_add(x, y); }
HELPER vi times_words(vi a, vq x, int i, int32_t f)
{
    const vq byte = wasm_v128_and(wasm_u32x4_shr(x, 8 * (uint32_t)i), wasm_i32x4_splat(255));
    return wasm_i32x4_add(a, wasm_i32x4_dot_i16x8(byte, wasm_i32x4_splat(f & 0xFFFF)));
}
HELPER vi scaled(vi x, float m)
{
    return wasm_i32x4_trunc_sat_f32x4(
        wasm_f32x4_nearest(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(x), wasm_f32x4_splat(m))));
}
HELPER vq quads(vi a, vi b, vi c, vi d, int32_t zero)
{
    const vq z = wasm_i16x8_splat((int16_t)zero);
    const vq ab = wasm_i16x8_add_sat(wasm_i16x8_narrow_i32x4(a, b), z);
    const vq cd = wasm_i16x8_add_sat(wasm_i16x8_narrow_i32x4(c, d), z);
    const vq x = wasm_u8x16_narrow_i16x8(ab, cd);
    return wasm_i8x16_shuffle(x, x, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}
#endif

/* Weights of which no two neighbours can add up to more than 16 bits hold (see pairs_fit): where bytes are
   multiplied in pairs, half of the words and three instructions for four do. Elsewhere as all weights. */
#if WORDS == 2 && defined(__SSSE3__)
#define BYTES_WORDS 1
#define BYTES_QUAD(a, b, c, d) (int32_t)(BYTE(a) | BYTE(b) << 8 | BYTE(c) << 16 | BYTE(d) << 24)
typedef vq bytes_vx;
typedef vi bytes_vw;
HELPER bytes_vx bytes_operand(vq x) { return x; }
HELPER bytes_vw bytes_weights(const int32_t *p) { return splat(*p); }
HELPER vi bytes_dot(vi a, bytes_vx x, bytes_vw w)
{
    const vi sums = OF(madd_epi16)(OF(maddubs_epi16)(x, w), OF(set1_epi16)(1));
#if defined(__AVX2__) && defined(__GNUC__) && !defined(__clang__)
    __asm__("vpaddd {%1, %0, %0|%0, %0, %1}" : "+v"(a) : "v"(sums));
    return a;
#else
    return OF(add_epi32)(a, sums);
#endif
}
#else
#define BYTES_WORDS WORDS
#define BYTES_QUAD QUAD
typedef vx bytes_vx;
typedef vw bytes_vw;
#define bytes_operand operand
#define bytes_weights weights
#define bytes_dot dot
#endif
