
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
