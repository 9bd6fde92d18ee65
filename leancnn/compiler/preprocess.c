
#ifndef LEANCNN_NO_PREPROCESS
/* From a picture to the network's pixels, bit for bit as training saw them: Pillow's antialiased
   triangle filter in its integer arithmetic, along rows first, rounded to 8 bits, then down columns.
   Products that a compiler might fuse with a sum pass through `apart`, for Pillow's are rounded. */
enum { TALL = @HIGH@, WIDE = @WIDE@, TOP = @TOP@, LEFT = @LEFT@ }; /* the whole image, the network's window in it */
enum { COVER, CONTAIN, STRETCH, FIT = @FIT@ };
enum { COLUMNS = 32, ROWS = 8, TAPS = 4096, BITS = 22 };

typedef struct {
    const uint8_t *pixels;
    ptrdiff_t stride; /* bytes from row to row */
    int width, height, red, green, blue, alpha, step; /* bytes of a pixel; alpha below 0: opaque */
} Picture;

typedef struct {
    double centre, sharp, sum;
    int first, end;
} Window;

static const uint8_t background[3] = {@BACKGROUND@};

HELPER double apart(double x)
{
    volatile double product = x;
    return product;
}
HELPER double triangle(const Window *w, int i)
{
    double x = apart((i - w->centre + 0.5) * w->sharp);
    x = x < 0 ? -x : x;
    return x < 1.0 ? 1.0 - x : 0.0;
}
/* Which of `size` pixels output i of `count` is made of; they are those from `from` to `to`. */
static Window window(int i, int count, float from, float to, int size)
{
    const float span = to - from;
    const double scale = (double)span / count, support = scale < 1.0 ? 1.0 : scale;
    Window w = {from + apart((i + 0.5) * scale), 1.0 / support, 0.0, 0, 0};
    const int first = (int)(w.centre - support + 0.5), end = (int)(w.centre + support + 0.5);
    w.first = first < 0 ? 0 : first;
    w.end = end > size ? size : end;
    for (int j = w.first; j < w.end; j++) w.sum += triangle(&w, j);
    return w;
}
HELPER int32_t weight(const Window *w, int i)
{
    return (int32_t)(0.5 + triangle(w, i) / w->sum * (1 << BITS));
}
HELPER uint8_t rounded(int32_t sum)
{
    return (uint8_t)(sum >> BITS > 255 ? 255 : sum >> BITS);
}
HELPER int over(int above, int below, int alpha)
{
    const int sum = (above * alpha + below * (255 - alpha) + 128) * 128;
    return ((sum >> 8) + sum) >> 8 >> 7;
}
/* One pixel, opaque, in the network's channels. */
HELPER void opaque(const Picture *picture, const uint8_t *pixel, int32_t *to)
{
    int r = pixel[picture->red], g = pixel[picture->green], b = pixel[picture->blue];
    if (picture->alpha >= 0 && pixel[picture->alpha] != 255) {
        r = over(r, background[0], pixel[picture->alpha]);
        g = over(g, background[1], pixel[picture->alpha]);
        b = over(b, background[2], pixel[picture->alpha]);
    }
    if (CHANNELS == 1) {
        to[0] = (r * 19595 + g * 38470 + b * 7471 + 32768) >> 16;
    } else {
        to[0] = r;
        to[CHANNELS / 3] = g;
        to[CHANNELS / 3 * 2] = b;
    }
}
/* Some columns of one row of the picture, filtered along the row. */
static void across(const Picture *picture, int y, int columns, const Window *w, const int32_t *k, uint8_t *to)
{
    const uint8_t *row = picture->pixels + y * picture->stride;
    for (int i = 0; i < columns; i++) {
        int32_t sums[CHANNELS], values[CHANNELS];
        for (int c = 0; c < CHANNELS; c++) sums[c] = 1 << (BITS - 1);
        for (int x = w[i].first; x < w[i].end; x++, k++) {
            opaque(picture, row + (ptrdiff_t)x * picture->step, values);
            for (int c = 0; c < CHANNELS; c++) sums[c] += values[c] * *k;
        }
        for (int c = 0; c < CHANNELS; c++) *to++ = rounded(sums[c]);
    }
}
/* Scale the box of a picture to `wide` x `high`, of which the network sees the part that lies at
   (left, top) in its image. 0 when a pixel would be made of more than TAPS others. */
static int resample(const Picture *picture, const float box[4], int wide, int high, int left, int top, uint8_t *image)
{
    int32_t k[TAPS], sums[ROWS][COLUMNS * CHANNELS];
    uint8_t row[COLUMNS * CHANNELS];
    Window w[COLUMNS], v[ROWS];
    const int right = wide + left < WIDTH ? wide : WIDTH - left, below = high + top < HEIGHT ? high : HEIGHT - top;
    for (int x0 = left < 0 ? -left : 0, columns; x0 < right; x0 += columns) {
        int used = 0;
        for (columns = 0; columns < COLUMNS && x0 + columns < right; columns++) {
            Window *const next = &w[columns];
            *next = window(x0 + columns, wide, box[0], box[2], picture->width);
            if (used + next->end - next->first > TAPS) break;
            for (int x = next->first; x < next->end; x++) k[used++] = weight(next, x);
        }
        if (!columns) return 0;
        for (int y0 = top < 0 ? -top : 0; y0 < below; y0 += ROWS) {
            const int rows = below - y0 < ROWS ? below - y0 : ROWS;
            for (int j = 0; j < rows; j++) {
                v[j] = window(y0 + j, high, box[1], box[3], picture->height);
                for (int i = 0; i < columns * CHANNELS; i++) sums[j][i] = 1 << (BITS - 1);
            }
            for (int y = v[0].first; y < v[rows - 1].end; y++) {
                across(picture, y, columns, w, k, row);
                for (int j = 0; j < rows; j++) {
                    if (y < v[j].first || y >= v[j].end) continue;
                    const int32_t share = weight(&v[j], y);
                    for (int i = 0; i < columns * CHANNELS; i++) sums[j][i] += row[i] * share;
                }
            }
            for (int j = 0; j < rows; j++)
                for (int i = 0; i < columns * CHANNELS; i++)
                    image[((y0 + j + top) * WIDTH + x0 + left) * CHANNELS + i] = rounded(sums[j][i]);
        }
    }
    return 1;
}
/* The side of a contained picture: to the nearest, halves to the even, from 1 to `full`. */
HELPER int contained(int side, double zoom, int full)
{
    const double wanted = apart(side * zoom);
    int whole = (int)wanted;
    whole += wanted - whole > 0.5 || (wanted - whole == 0.5 && whole % 2);
    return whole < 1 ? 1 : whole < full ? whole : full;
}
static int fitted(const Picture *picture, uint8_t *image)
{
    const int width = picture->width, height = picture->height;
    const double along = (double)WIDE / width, down = (double)TALL / height;
    float box[4] = {0, 0, (float)width, (float)height};
    if (FIT == CONTAIN) {
        const Picture page = {background, 0, 1, 1, 0, 1, 2, -1, 3};
        const double zoom = along < down ? along : down;
        const int w = contained(width, zoom, WIDE), h = contained(height, zoom, TALL);
        int32_t values[CHANNELS];
        opaque(&page, background, values);
        for (int i = 0; i < HEIGHT * WIDTH * CHANNELS; i++) image[i] = (uint8_t)values[i % CHANNELS];
        return resample(picture, box, w, h, (WIDE - w) / 2 - LEFT, (TALL - h) / 2 - TOP, image);
    }
    if (FIT == COVER) {
        const double zoom = along > down ? along : down;
        double w = WIDE / zoom, h = TALL / zoom;
        w = w < width ? w : width;
        h = h < height ? h : height;
        box[0] = (float)((width - w) / 2), box[1] = (float)((height - h) / 2);
        box[2] = (float)((width - w) / 2 + w), box[3] = (float)((height - h) / 2 + h);
    }
    return resample(picture, box, WIDE, TALL, -LEFT, -TOP, image);
}

int @NAME@_preprocess_from(int layout, const uint8_t *pixels, int width, int height, ptrdiff_t stride, uint8_t *image_hwc)
{
    const int step = layout < 0 ? -layout : layout, grey = step == 1, flip = layout < 0;
    const Picture picture = {pixels, stride ? stride : (ptrdiff_t)width * step, width, height,
                             flip ? 2 : 0, grey ? 0 : 1, grey || flip ? 0 : 2, step == 4 ? 3 : -1, step};
    if (!pixels || width < 1 || height < 1 || (!grey && step != 3 && step != 4)) return 0;
    return fitted(&picture, image_hwc);
}

int @NAME@_preprocess(const uint8_t *rgb, int width, int height, ptrdiff_t stride, uint8_t *image_hwc)
{
    return @NAME@_preprocess_from(3, rgb, width, height, stride, image_hwc);
}
#endif
