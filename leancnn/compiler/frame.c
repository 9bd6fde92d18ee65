enum { CHANNELS = @CHANNELS@, HEIGHT = @HEIGHT@, WIDTH = @WIDTH@, CLASSES = @CLASSES@ };

#ifdef __cplusplus
extern "C" {
#endif
enum { @NAME@_scratch_bytes = @SCRATCH@ };
extern const char *const @NAME@_class_names[CLASSES];
void @NAME@_run(const @PIXEL@ *image_hwc, float *probabilities, void *scratch);
void @NAME@_run_float(const float *image_chw, float *logits, void *scratch);
@DECLARED@/* Weak, where that can be said: a program may hold several networks. */
#if defined __GNUC__ && !defined _WIN32
__attribute__((weak))
#endif
const char *leancnn_about(void);
#ifdef __cplusplus
}
#endif

const char *const @NAME@_class_names[CLASSES] = {
@NAMES@
};
const char *leancnn_about(void)
{
    return "@ABOUT@";
}

/*@ layers @*/
/*@ frame_arena.h @*/
static void answer(const float *s, float *logits)
{
    for (int i = 0; i < CLASSES; i++) logits[i] = s[@LOGITS@[i]];
}

void @NAME@_run(const @PIXEL@ *image_hwc, float *probabilities, void *scratch)
{
    static const float scale[CHANNELS] = {@SCALE@}, shift[CHANNELS] = {@SHIFT@};
    float *s = arena(scratch);
    for (int y = 0; y < HEIGHT; y++) {
        const @PIXEL@ *row = image_hwc + y * WIDTH * CHANNELS;
        float *to = s + @ORIGIN@ + y * @PITCH@;
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < CHANNELS; c++)
                to[c * @STRIDE@ + x] = (float)row[x * CHANNELS + c] * scale[c] + shift[c];
    }
    layers(s);
    answer(s, probabilities);@SOFTMAX@
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

@PREPROCESS@
#ifdef LEANCNN_MAIN
/* Classify a PPM, PGM or raw file of exactly the network's size, and time it. */
#include <stdio.h>
#include <time.h>

static int number(FILE *file)
{
    int c = fgetc(file), n = 0;
    while (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '#') {
        if (c == '#')
            while (c != '\n' && c != EOF) c = fgetc(file);
        c = fgetc(file);
    }
    while (c >= '0' && c <= '9' && n < 100000) n = 10 * n + c - '0', c = fgetc(file);
    if (c == '#')
        while (c != '\n' && c != EOF) c = fgetc(file);
    return n;
}

int main(int count, char **words)
{
    static @PIXEL@ image[HEIGHT * WIDTH * CHANNELS];
    uint8_t *bytes = (uint8_t *)(void *)image;
    static float probabilities[CLASSES], scratch[@SCRATCH@ / sizeof(float) + 1];
    FILE *file = count > 1 ? fopen(words[1], "rb") : NULL;
    int repeats = 1, best = 0;
    if (!file) {
        if (count > 1) fprintf(stderr, "%s: cannot be opened\n", words[1]);
        fprintf(stderr, "usage: %s image.ppm [repeats]; the image is %dx%d\n", words[0], WIDTH, HEIGHT);
        return 2;
    }
    for (const char *p = count > 2 ? words[2] : ""; *p >= '0' && *p <= '9' && repeats < 1000000; p++)
        repeats = (p == words[2] ? 0 : 10 * repeats) + *p - '0';
    if (repeats < 1) repeats = 1;
    fseek(file, 0, SEEK_END);
    const long size = ftell(file); /* below 0 of a pipe */
    size_t have = 0;
    rewind(file);
    const int first = size == (long)sizeof image ? EOF : fgetc(file);
    if (first == 'P' && sizeof *image == 1) {
        const int kind = fgetc(file), width = number(file), height = number(file), most = number(file);
        if (kind != (CHANNELS == 3 ? '6' : '5') || width != WIDTH || height != HEIGHT || most != 255) {
            fprintf(stderr, "%s: not a binary P%c of %dx%d with 8 bits\n", words[1],
                    CHANNELS == 3 ? '6' : '5', WIDTH, HEIGHT);
            return 1;
        }
    } else if (size < 0 && first != EOF) {
        bytes[have++] = (uint8_t)first;
    } else if (size != (long)sizeof image) {
        fprintf(stderr, "%s: neither a binary P%c of %dx%d nor a raw file of %d bytes\n", words[1],
                CHANNELS == 3 ? '6' : '5', WIDTH, HEIGHT, (int)sizeof image);
        return 1;
    }
    if (fread(bytes + have, 1, sizeof image - have, file) != sizeof image - have) {
        fprintf(stderr, "%s: shorter than %d bytes of pixels\n", words[1], (int)sizeof image);
        return 1;
    }
    fclose(file);
    const clock_t start = clock();
    for (int i = 0; i < repeats; i++) @NAME@_run(image, probabilities, scratch);
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC / repeats;
    for (int i = 1; i < CLASSES; i++)
        if (probabilities[i] > probabilities[best]) best = i;
    printf("%s %.4f\n", @NAME@_class_names[best], (double)probabilities[best]);
    fprintf(stderr, "%.1f us an image, mean of %d\n", 1e6 * seconds, repeats);
    return 0;
}
#endif
