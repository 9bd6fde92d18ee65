/* Depthwise: words of four taps of one channel. Four rows of pixels, turned byte by byte, give vectors
   whose words are channels: in the one numbered j, block l of four words holds the window's column at
   pixel 4 l + j. A column to the right is the next vector. */
#if LANES > 1 && defined(__SSE2__)
typedef vw vw4;
HELPER vq no_quads(void) { return splat(0); }
HELPER vq low8(vq x, vq y) { return OF(unpacklo_epi8)(x, y); }
HELPER vq high8(vq x, vq y) { return OF(unpackhi_epi8)(x, y); }
HELPER vq low16(vq x, vq y) { return OF(unpacklo_epi16)(x, y); }
HELPER vq high16(vq x, vq y) { return OF(unpackhi_epi16)(x, y); }
HELPER vi four(const int32_t *p)
{
    const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
#if LANES == 16
    return _mm512_broadcast_i32x4(x);
#elif LANES == 8
    return _mm256_broadcastsi128_si256(x);
#else
    return x;
#endif
}
HELPER vq next_block(vq x, vq y) /* blocks 1 to the last of x, then the first of y */
{
#if LANES == 16
    return _mm512_alignr_epi32(y, x, 4);
#elif LANES == 8
    return _mm256_permute2x128_si256(x, y, 0x21);
#else
    return (void)x, y;
#endif
}
HELPER vw4 four_weights(const int32_t *p)
{
#if WORDS == 1
    return four(p);
#else
    const vw4 y = {four(p), four(p + 4)};
    return y;
#endif
}
HELPER vi dot4(vi a, vx x, vw4 w) { return dot(a, x, w); }
#if LANES == 16
typedef __m512 vm4;
HELPER vm4 four_scales(const float *p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
#elif LANES == 8
typedef __m256 vm4;
HELPER vm4 four_scales(const float *p) { return _mm256_broadcast_ps((const __m128 *)(const void *)p); }
#else
typedef __m128 vm4;
HELPER vm4 four_scales(const float *p) { return _mm_loadu_ps(p); }
#endif
HELPER vi scaled4(vi x, vm4 m) { return OF(cvtps_epi32)(OF(mul_ps)(OF(cvtepi32_ps)(x), m)); }
HELPER vq packed4(vi a, vi b, vi c, vi d, int32_t zero)
{
    vq ab = OF(packs_epi32)(a, b), cd = OF(packs_epi32)(c, d);
    if (zero) {
        const vq z = OF(set1_epi16)((short)zero);
        ab = OF(adds_epi16)(ab, z), cd = OF(adds_epi16)(cd, z);
    }
    return OF(packus_epi16)(ab, cd);
}
#elif LANES == 4 && defined(__aarch64__)
#define ZIP(name, kind) vreinterpretq_u32_##kind(name##_##kind(vreinterpretq_##kind##_u32(x), vreinterpretq_##kind##_u32(y)))
HELPER vq no_quads(void) { return vdupq_n_u32(0); }
HELPER vq low8(vq x, vq y) { return ZIP(vzip1q, u8); }
HELPER vq high8(vq x, vq y) { return ZIP(vzip2q, u8); }
HELPER vq low16(vq x, vq y) { return ZIP(vzip1q, u16); }
HELPER vq high16(vq x, vq y) { return ZIP(vzip2q, u16); }
HELPER vi four(const int32_t *p) { return vld1q_s32(p); }
HELPER vq next_block(vq x, vq y) { return (void)x, y; }
#if WORDS == 1
typedef vw vw4;
HELPER vw4 four_weights(const int32_t *p) { return vreinterpretq_s8_s32(vld1q_s32(p)); }
HELPER vi dot4(vi a, vx x, vw4 w) { return vdotq_s32(a, x, w); }
#else
typedef struct { int16x8_t even, odd; } vw4;
HELPER vw4 four_weights(const int32_t *p)
{
    const vw4 y = {vreinterpretq_s16_s32(vld1q_s32(p)), vreinterpretq_s16_s32(vld1q_s32(p + 4))};
    return y;
}
HELPER vi dot4(vi a, vx x, vw4 w)
{
    int32x4_t low = vmull_s16(vget_low_s16(x.even), vget_low_s16(w.even));
    int32x4_t high = vmull_s16(vget_high_s16(x.even), vget_high_s16(w.even));
    low = vmlal_s16(low, vget_low_s16(x.odd), vget_low_s16(w.odd));
    high = vmlal_s16(high, vget_high_s16(x.odd), vget_high_s16(w.odd));
    return vaddq_s32(a, vpaddq_s32(low, high));
}
#endif
typedef float32x4_t vm4;
HELPER vm4 four_scales(const float *p) { return vld1q_f32(p); }
HELPER vi scaled4(vi x, vm4 m) { return vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(x), m)); }
HELPER vq packed4(vi a, vi b, vi c, vi d, int32_t zero)
{
    const int16x8_t z = vdupq_n_s16((int16_t)zero);
    const int16x8_t ab = vqaddq_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)), z);
    const int16x8_t cd = vqaddq_s16(vcombine_s16(vqmovn_s32(c), vqmovn_s32(d)), z);
    return vreinterpretq_u32_u8(vcombine_u8(vqmovun_s16(ab), vqmovun_s16(cd)));
}
#elif LANES == 4 && defined(__wasm_simd128__)
typedef vw vw4;
HELPER vq no_quads(void) { return splat(0); }
HELPER vq low8(vq x, vq y)
{
    return wasm_i8x16_shuffle(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
HELPER vq high8(vq x, vq y)
{
    return wasm_i8x16_shuffle(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
HELPER vq low16(vq x, vq y) { return wasm_i16x8_shuffle(x, y, 0, 8, 1, 9, 2, 10, 3, 11); }
HELPER vq high16(vq x, vq y) { return wasm_i16x8_shuffle(x, y, 4, 12, 5, 13, 6, 14, 7, 15); }
HELPER vi four(const int32_t *p) { return wasm_v128_load(p); }
HELPER vq next_block(vq x, vq y) { return (void)x, y; }
HELPER vw4 four_weights(const int32_t *p)
{
    const vw4 y = {wasm_v128_load(p), wasm_v128_load(p + 4)};
    return y;
}
HELPER vi dot4(vi a, vx x, vw4 w) { return dot(a, x, w); }
typedef v128_t vm4;
HELPER vm4 four_scales(const float *p) { return wasm_v128_load(p); }
HELPER vi scaled4(vi x, vm4 m)
{
    return wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(x), m)));
}
HELPER vq packed4(vi a, vi b, vi c, vi d, int32_t zero)
{
    const vq z = wasm_i16x8_splat((int16_t)zero);
    const vq ab = wasm_i16x8_add_sat(wasm_i16x8_narrow_i32x4(a, b), z);
    const vq cd = wasm_i16x8_add_sat(wasm_i16x8_narrow_i32x4(c, d), z);
    return wasm_u8x16_narrow_i16x8(ab, cd);
}
#endif

/* Four channels' words of four taps, and those of 16-bit pairs. */
#if WORDS == 1
#define TAPS(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) \
    QUAD(a, b, c, d), QUAD(e, f, g, h), QUAD(i, j, k, l), QUAD(m, n, o, p)
#else
#define TAPS(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)     \
    PAIR(a, c), PAIR(e, g), PAIR(i, k), PAIR(m, o), PAIR(b, d), \
        PAIR(f, h), PAIR(j, l), PAIR(n, p)
#endif

/* The same for weights that may be multiplied in pairs of bytes. */
#if WORDS == 2 && defined(__SSSE3__)
#define BYTES_TAPS(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) \
    BYTES_QUAD(a, b, c, d), BYTES_QUAD(e, f, g, h), BYTES_QUAD(i, j, k, l), BYTES_QUAD(m, n, o, p)
typedef bytes_vw bytes_vw4;
HELPER bytes_vw4 bytes_four_weights(const int32_t *p) { return four(p); }
HELPER vi bytes_dot4(vi a, bytes_vx x, bytes_vw4 w) { return bytes_dot(a, x, w); }
#else
#define BYTES_TAPS TAPS
#define bytes_vw4 vw4
#define bytes_four_weights four_weights
#define bytes_dot4 dot4
#endif

/* Every `step`-th of some words. */
HELPER void split(uint32_t *to, const uint32_t *from, int count, int step)
{
    for (int i = 0; i < count; i++) to[i] = from[i * step];
}
