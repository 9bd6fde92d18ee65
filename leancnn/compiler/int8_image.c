/* What surrounds the image's pixels: bytes that mean zero, which for each quad may be others. */
static void surround_image(uint32_t *s)
{
    static const uint32_t fill[@QUADS@] = {@FILL@};
    for (int q = 0; q < @QUADS@; q++)
        gaps(s + @ORIGIN@ + q * @STRIDE@, HEIGHT, WIDTH, @PITCH@, @STRIDE@, fill[q]);
    for (int q = 0; q < @QUADS@; q++)
        for (int i = 1; i <= @BELOW@; i++) s[@ORIGIN@ + q * @STRIDE@ - i] = fill[q];
}

/* Floats to bytes, four channels of each pixel side by side: `pixel` apart are two pixels of a row,
   `channel` two channels. */
static void load_floats(uint32_t *s, const float *image, int pixel, int channel)
{
@NORMAL@    for (int q = 0; q < @QUADS@; q++) {
        uint32_t *plane = s + @ORIGIN@ + q * @STRIDE@;
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++) {
                uint32_t quad = 0;
                for (int c = 4 * q; c < 4 * q + 4 && c < CHANNELS; c++) {
                    const float number = image[(y * WIDTH + x) * pixel + c * channel];
                    @BYTE@
                    const double clipped = byte > @HIGH@ ? @HIGH@ : byte > 0 ? byte : 0;
                    quad |= (uint32_t)rint(clipped) << 8 * (c - 4 * q);
                }
                plane[y * @PITCH@ + x] = quad;
            }
    }
    surround_image(s);
}

/* Planes of normalised floats go back to the bytes they came from; signals are not normalised. */
static void load_planes(uint32_t *s, const float *image_chw)
{
    load_floats(s, image_chw, 1, HEIGHT * WIDTH);
}
