/* A vector of quads as rows of `side` pixels, `pitch` words apart, where rows are shorter than it. */
#if LANES == 16
#define HALF(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define FOURTH(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
HELPER vq line(const uint32_t *p, int side, int pitch)
{
    if (side == 8) return _mm512_inserti64x4(_mm512_castsi256_si512(HALF(p)), HALF(p + pitch), 1);
    if (side == 4) {
        vq x = _mm512_inserti32x4(_mm512_castsi128_si512(FOURTH(p)), FOURTH(p + pitch), 1);
        x = _mm512_inserti32x4(x, FOURTH(p + 2 * pitch), 2);
        return _mm512_inserti32x4(x, FOURTH(p + 3 * pitch), 3);
    }
    return words(p);
}
HELPER void put_line(uint32_t *p, vq x, int side, int pitch)
{
    if (side == 8) {
        _mm256_storeu_si256((__m256i *)(void *)p, _mm512_castsi512_si256(x));
        _mm256_storeu_si256((__m256i *)(void *)(p + pitch), _mm512_extracti64x4_epi64(x, 1));
    } else if (side == 4) {
        _mm_storeu_si128((__m128i *)(void *)p, _mm512_castsi512_si128(x));
        _mm_storeu_si128((__m128i *)(void *)(p + pitch), _mm512_extracti32x4_epi32(x, 1));
        _mm_storeu_si128((__m128i *)(void *)(p + 2 * pitch), _mm512_extracti32x4_epi32(x, 2));
        _mm_storeu_si128((__m128i *)(void *)(p + 3 * pitch), _mm512_extracti32x4_epi32(x, 3));
    } else {
        put(p, x);
    }
}
#elif LANES == 8
#define HALF(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
HELPER vq line(const uint32_t *p, int side, int pitch)
{
    return side == 4 ? _mm256_inserti128_si256(_mm256_castsi128_si256(HALF(p)), HALF(p + pitch), 1) : words(p);
}
HELPER void put_line(uint32_t *p, vq x, int side, int pitch)
{
    if (side == 4) {
        _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(x));
        _mm_storeu_si128((__m128i *)(void *)(p + pitch), _mm256_extracti128_si256(x, 1));
    } else {
        put(p, x);
    }
}
#else
#define line(p, side, pitch) words(p)
#define put_line(p, x, side, pitch) put(p, x)
#endif

/* Vectors of a kernel: along one line, gaps between rows included, or (where rows fill vectors) row by
   row. Vector v begins at AT(v); a vector holds rows of SIDE pixels. */
#define BY_ROWS(high, wide, many)                               \
    ((wide) % LANES == 0 ? (many) % IN_ROW(wide) == 0           \
                         : (wide) >= 4 && LANES % (wide) == 0 && (high) % ROWS_IN(wide) == 0)
#define IN_ROW(wide) ((wide) < LANES ? 1 : (wide) / LANES)
#define ROWS_IN(wide) ((wide) < LANES ? LANES / (wide) : 1)
#define AT(v) \
    (by_rows ? (v) / IN_ROW(wide) * ROWS_IN(wide) * pitch + (v) % IN_ROW(wide) * LANES : (v) * LANES)
#define SIDE (by_rows && (int)wide < LANES && (int)wide != (int)pitch ? (int)wide : LANES)

/* What stands between rows and after the last one: bytes that mean zero. */
HELPER void gaps(uint32_t *plane, int height, int width, int pitch, int end, uint32_t fill)
{
    for (int y = 0; y < height; y++)
        for (int x = width; x < pitch; x++) plane[y * pitch + x] = fill;
    for (int i = height * pitch; i < end; i++) plane[i] = fill;
}
