
/* Signals come as they are, candidates and offsets of interleaved planes. */
static void load_image(uint32_t *s, const float *image_hwc)
{
    load_floats(s, image_hwc, CHANNELS, 1);
}
