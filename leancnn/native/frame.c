enum { CHANNELS = @CHANNELS@, HEIGHT = @HEIGHT@, WIDTH = @WIDTH@, CLASSES = @CLASSES@ };

const char *const @NAME@_class_names[CLASSES] = {
@NAMES@
};
extern const size_t @NAME@_scratch_bytes;
const size_t @NAME@_scratch_bytes = @SCRATCH@;
void @NAME@_run(const uint8_t *image_hwc, float *probabilities, void *scratch);
void @NAME@_run_float(const float *image_chw, float *logits, void *scratch);

/*@ layers @*/
/* The network: reads the image's planes in the arena and leaves the logits there. */
static void layers(float *s)
{
@CALLS@
}

/* The arena inside the caller's scratch, aligned to a cache line, with its image planes cleared. */
static float *arena(void *scratch)
{
    static float own[@ARENA@ + 16];
    float *s = scratch ? (float *)scratch : own;
    s += (64 - (uintptr_t)s % 64) % 64 / sizeof *s;
@CLEAR@    return s;
}

static void answer(const float *s, float *logits)
{
    for (int i = 0; i < CLASSES; i++) logits[i] = s[@LOGITS@[i]];
}

void @NAME@_run(const uint8_t *image_hwc, float *probabilities, void *scratch)
{
    static const float scale[CHANNELS] = {@SCALE@}, shift[CHANNELS] = {@SHIFT@};
    float *s = arena(scratch), most, sum = 0.0f;
    for (int c = 0; c < CHANNELS; c++)
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++)
                s[@ORIGIN@ + c * @STRIDE@ + y * @PITCH@ + x] =
                    (float)image_hwc[(y * WIDTH + x) * CHANNELS + c] * scale[c] + shift[c];
    layers(s);
    answer(s, probabilities);
    most = probabilities[0];
    for (int i = 1; i < CLASSES; i++)
        if (probabilities[i] > most) most = probabilities[i];
    for (int i = 0; i < CLASSES; i++) sum += probabilities[i] = expf(probabilities[i] - most);
    for (int i = 0; i < CLASSES; i++) probabilities[i] /= sum;
}

void @NAME@_run_float(const float *image_chw, float *logits, void *scratch)
{
    float *s = arena(scratch);
    for (int c = 0; c < CHANNELS; c++)
        for (int y = 0; y < HEIGHT; y++)
            memcpy(s + @ORIGIN@ + c * @STRIDE@ + y * @PITCH@,
                   image_chw + (c * HEIGHT + y) * WIDTH, WIDTH * sizeof *s);
    layers(s);
    answer(s, logits);
}
