/* Winograd's F(2x2, 3x3) in integers: tiles of 2x2 outputs by 16 products of 16 bits for 36 of bytes, where
   these are multiplied in pairs at best. Points are sums of bytes, weights four times what they are at the
   points, and the sums four times the window's, all modulo 2^32: the shift by 2 leaves the same sums.
   A vector holds LANES tiles, of pixels that lie in two vectors, `half` words apart.
   Choose without it by -DNO_WINOGRAD. */
#if WORDS == 2 && LANES <= 8 && defined(__SSE2__) && !defined(NO_WINOGRAD)
#define WINOGRAD 1
#define MANY 2 /* vectors of tiles at a time */
#if LANES == 8
#define PICK(x, y, which) \
    _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(x), _mm256_castsi256_ps(y), which))
#else
#define PICK(x, y, which) _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(x), _mm_castsi128_ps(y), which))
#endif
HELPER vi load(const int32_t *p) { return words((const uint32_t *)p); }
HELPER void store(int32_t *p, vi x) { put((uint32_t *)p, x); }
HELPER vi minus(vi x, vi y) { return OF(sub_epi32)(x, y); }
HELPER vx pair(const int32_t *p)
{
    vx x = {load(p), load(p + LANES)};
#if defined(__GNUC__) && !defined(__clang__) /* gcc would load both again for each product */
    __asm__("" : "+x"(x.even), "+x"(x.odd));
#endif
    return x;
}
HELPER void put_some(uint32_t *p, vq x, int some)
{
    uint32_t all[LANES];
    if (some >= LANES) {
        put(p, x);
        return;
    }
    put(all, x);
    for (int i = 0; i < some; i++) p[i] = all[i];
}

/* Four pixels of a row or column, two of each tile its own, to four points, `step` words apart. */
HELPER void four_points(vi x0, vi x1, vi x2, vi x3, int32_t *y, int step)
{
    store(y, OF(sub_epi16)(x0, x2));
    store(y + step, OF(add_epi16)(x1, x2));
    store(y + 2 * step, OF(sub_epi16)(x2, x1));
    store(y + 3 * step, OF(sub_epi16)(x1, x3));
}

/* A quad of a vector of tiles, whose windows begin at x, to 16 points of its even and odd channels. */
LAYER into_points(const uint32_t *x, int pitch, int half, int32_t *y, int step)
{
    ALIGNED(64) int32_t rows[4 * 8 * LANES];
    for (int j = 0; j < 4; j++, x += pitch) {
        const vq a = words(x), b = words(x + half), c = words(x + 2), d = words(x + 2 + half);
        const vx x0 = operand(PICK(a, b, 0x88)), x1 = operand(PICK(a, b, 0xDD));
        const vx x2 = operand(PICK(c, d, 0x88)), x3 = operand(PICK(c, d, 0xDD));
        four_points(x0.even, x1.even, x2.even, x3.even, rows + 8 * j * LANES, 2 * LANES);
        four_points(x0.odd, x1.odd, x2.odd, x3.odd, rows + (8 * j + 1) * LANES, 2 * LANES);
    }
    for (int i = 0; i < 8; i++) {
        const int32_t *r = rows + i * LANES;
        int32_t *to = y + i / 2 * step + i % 2 * LANES;
        four_points(load(r), load(r + 8 * LANES), load(r + 16 * LANES), load(r + 24 * LANES), to, 4 * step);
    }
}

/* At each of 16 points the products of so many quads by four outputs, for one vector of tiles or MANY. */
LAYER products_of_one(const int32_t *x, int quads, const int32_t *w, int32_t *y)
{
    for (int i = 0; i < 16; i++, y += 4 * LANES) {
        vi a0 = splat(0), a1 = a0, a2 = a0, a3 = a0;
        for (int k = 0; k < quads; k++, x += 2 * LANES, w += 8) {
            const vx x0 = pair(x);
            a0 = dot(a0, x0, weights(w)), a1 = dot(a1, x0, weights(w + 2));
            a2 = dot(a2, x0, weights(w + 4)), a3 = dot(a3, x0, weights(w + 6));
        }
        store(y, a0), store(y + LANES, a1), store(y + 2 * LANES, a2), store(y + 3 * LANES, a3);
    }
}
LAYER products_of_many(const int32_t *x, int quads, const int32_t *w, int32_t *y)
{
    for (int i = 0; i < 16; i++, y += 4 * MANY * LANES) {
        vi a0_0 = splat(0), a1_0 = a0_0, a2_0 = a0_0, a3_0 = a0_0;
        vi a0_1 = a0_0, a1_1 = a0_0, a2_1 = a0_0, a3_1 = a0_0;
        for (int k = 0; k < quads; k++, x += 2 * MANY * LANES, w += 8) {
            const vx x0 = pair(x), x1 = pair(x + 2 * LANES);
            { const vw g = weights(w); a0_0 = dot(a0_0, x0, g); a0_1 = dot(a0_1, x1, g); }
            { const vw g = weights(w + 2); a1_0 = dot(a1_0, x0, g); a1_1 = dot(a1_1, x1, g); }
            { const vw g = weights(w + 4); a2_0 = dot(a2_0, x0, g); a2_1 = dot(a2_1, x1, g); }
            { const vw g = weights(w + 6); a3_0 = dot(a3_0, x0, g); a3_1 = dot(a3_1, x1, g); }
        }
        store(y, a0_0), store(y + LANES, a1_0), store(y + 2 * LANES, a2_0), store(y + 3 * LANES, a3_0);
        int32_t *z = y + 4 * LANES;
        store(z, a0_1), store(z + LANES, a1_1), store(z + 2 * LANES, a2_1), store(z + 3 * LANES, a3_1);
    }
}

/* Four sums at 16 points, `step` words apart, to those of four vectors of pixels: the two of the upper row,
   and those of the lower. */
LAYER from_points(const int32_t *x, int step, const int32_t *bias, int32_t *y)
{
    for (int o = 0; o < 4; o++, x += LANES, y += LANES) {
        vi upper[4], lower[4];
        for (int i = 0; i < 4; i++) {
            const int32_t *p = x + i * step;
            const vi x0 = load(p), x1 = load(p + 4 * step), x2 = load(p + 8 * step), x3 = load(p + 12 * step);
            upper[i] = plus(plus(x0, x1), x2);
            lower[i] = minus(minus(x1, x2), x3);
        }
        const vi b = splat(bias[o]);
#define ROW(r, to)                                                                               \
    {                                                                                            \
        const vi left = plus(OF(srai_epi32)(plus(plus(r[0], r[1]), r[2]), 2), b);                \
        const vi right = plus(OF(srai_epi32)(minus(minus(r[1], r[2]), r[3]), 2), b);             \
        store(to, OF(unpacklo_epi32)(left, right));                                              \
        store((to) + 4 * LANES, OF(unpackhi_epi32)(left, right));                                \
    }
        ROW(upper, y)
        ROW(lower, y + 8 * LANES)
#undef ROW
    }
}
#else
#define WINOGRAD 0
#endif
