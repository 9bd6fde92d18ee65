/* What surrounds the image's pixels: bytes that mean zero, which for each quad may be others. */
static void surround_image(uint32_t *s)
{
    static const uint32_t fill[@QUADS@] = {@FILL@};
    for (int q = 0; q < @QUADS@; q++)
        gaps(s + @ORIGIN@ + q * @STRIDE@, HEIGHT, WIDTH, @PITCH@, @STRIDE@, fill[q]);
    for (int q = 0; q < @QUADS@; q++)
        for (int i = 1; i <= @BELOW@; i++) s[@ORIGIN@ + q * @STRIDE@ - i] = fill[q];
}

@PIXELS@/* Bytes of four channels of each pixel side by side. */
static void load_image(uint32_t *s, const uint8_t *image_hwc)
{
    for (int q = 0; q < @QUADS@; q++) {
        uint32_t *plane = s + @ORIGIN@ + q * @STRIDE@;
        const int count = CHANNELS - 4 * q < 4 ? CHANNELS - 4 * q : 4;
        for (int y = 0; y < HEIGHT; y++) {
            const uint8_t *from = image_hwc + y * WIDTH * CHANNELS + 4 * q;
            for (int x = 0; x < WIDTH; x++, from += CHANNELS) {
                uint32_t quad = @OPEN@from[0]@CLOSE@;
                if (count > 1) quad |= (uint32_t)@OPEN@from[1]@CLOSE@ << 8;
                if (count > 2) quad |= (uint32_t)@OPEN@from[2]@CLOSE@ << 16;
                if (count > 3) quad |= (uint32_t)@OPEN@from[3]@CLOSE@ << 24;
                plane[y * @PITCH@ + x] = quad;
            }
        }
    }
    surround_image(s);
}

/* Planes of normalised floats go back to the bytes they came from. */
static void load_planes(uint32_t *s, const float *image_chw)
{
@NORMAL@    for (int q = 0; q < @QUADS@; q++) {
        uint32_t *plane = s + @ORIGIN@ + q * @STRIDE@;
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++) {
                uint32_t quad = 0;
                for (int c = 4 * q; c < 4 * q + 4 && c < CHANNELS; c++) {
                    const int at = (c * HEIGHT + y) * WIDTH + x;
                    @BYTE@
                    const double clipped = byte > @HIGH@ ? @HIGH@ : byte > 0 ? byte : 0;
                    quad |= (uint32_t)rint(clipped) << 8 * (c - 4 * q);
                }
                plane[y * @PITCH@ + x] = quad;
            }
    }
    surround_image(s);
}
