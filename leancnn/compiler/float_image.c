/* Pixels and planes as floats, which no byte holds. */
static float *image_planes(uint32_t *s)
{
    float *to = floats(s);
@CLEAR@    return to;
}

static void load_image(uint32_t *s, const uint8_t *image_hwc)
{
    static const float scale[CHANNELS] = {@SCALE@}, shift[CHANNELS] = {@SHIFT@};
    float *first = image_planes(s);
    for (int y = 0; y < HEIGHT; y++) {
        const uint8_t *row = image_hwc + y * WIDTH * CHANNELS;
        float *to = first + @ORIGIN@ + y * @PITCH@;
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < CHANNELS; c++)
                to[c * @STRIDE@ + x] = (float)row[x * CHANNELS + c] * scale[c] + shift[c];
    }
}

static void load_planes(uint32_t *s, const float *image_chw)
{
    float *to = image_planes(s);
    for (int c = 0; c < CHANNELS; c++)
        for (int y = 0; y < HEIGHT; y++)
            memcpy(to + @ORIGIN@ + c * @STRIDE@ + y * @PITCH@,
                   image_chw + (c * HEIGHT + y) * WIDTH, WIDTH * sizeof *to);
}
