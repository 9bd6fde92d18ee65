
/* ---- 1×1 convolutions of many channels, as matrix products whose columns are images ---- */

/* A product's sums, pixels and one weight fill the registers: 32 of them with 16 lanes, else 16. */
#define TALL (LANES >= 16 ? 8 : 4)
#define WIDE 3
#define RUN (WIDE * LANES)                           /* columns of a tile */
#define PANEL_BYTES (LANES >= 16 ? 1 << 19 : 1 << 18) /* of what is read and made at a time: about half a second cache */
#define MOST_TILES 16

/* Pixels are counted through all blocks: position = block * pixels + pixel. Tiles of WIDE are taken at a time. */
INLINE int64_t tiles_at_once(int64_t inputs, int64_t outputs) {
    const int64_t most = PANEL_BYTES / (int64_t)((inputs + outputs) * WIDE * sizeof(vec));
    return most < 4 ? 4 : most > MOST_TILES ? MOST_TILES : most;
}
INLINE int64_t up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

typedef struct { int64_t inputs, outputs, tiles, positions, chunks; } Product;

INLINE Product product_of(const Node *n) {
    Product p = {.inputs = n->c_in / n->groups, .outputs = n->c_out / n->groups};
    p.tiles = tiles_at_once(p.inputs, p.outputs);
    p.positions = n->blocks * n->out_height * n->out_width;
    p.chunks = (p.positions + p.tiles * WIDE - 1) / (p.tiles * WIDE);
    return p;
}

/* Vectors of scratch memory: a line, both panels, the turned one, packed weights, moments. */
int64_t products_scratch(const Node *n) {
    const Product p = product_of(n);
    const int64_t fewer = least(p.inputs, p.outputs), packed = (p.inputs + TALL) * (p.outputs + TALL);
    return p.tiles * WIDE * (1 + p.inputs + p.outputs + up(fewer, LANES)) + up(packed, LANES) / LANES + 2 * p.outputs;
}

/* The gradient of weights lies as (groups, more, fewer): of inputs and outputs the many, and the few in full vectors. */
int64_t products_partial(const Node *n) {
    const Product p = product_of(n);
    return n->groups * (p.inputs > p.outputs ? p.inputs * up(p.outputs, LANES) : p.outputs * up(p.inputs, LANES));
}

/* `channels` planes from `first` on, at `count` positions from `at`, as (tiles, channels, WIDE); zeros behind the last. */
INLINE void gather(const int gradient, const Node *n, int64_t first, int64_t channels, int64_t at, int64_t count,
                   vec *line, vec *to) {
    const int64_t pixels = n->tensors[n->out].pixels, block = at / pixels, pixel = at % pixels;
    const int64_t tiles = (count + WIDE - 1) / WIDE;
    for (int64_t p = count; p < tiles * WIDE; p++) line[p] = (vec){0};
    for (int64_t c = 0; c < channels; c++) {
        int64_t b = block, from = pixel;
        for (int64_t done = 0; done < count; b++, from = 0) {
            const int64_t run = least(count - done, pixels - from);
            if (gradient) see_gradient(n, b, first + c, from, run, line + done);
            else see(n, b, first + c, from, run, line + done);
            done += run;
        }
        for (int64_t t = 0; t < tiles; t++)
            UNROLL for (int j = 0; j < WIDE; j++) to[(t * channels + c) * WIDE + j] = line[t * WIDE + j];
    }
}

/* Weights (outputs, inputs) of a group in rows of TALL: (rows / TALL, depth, TALL), the last filled up with zeros. */
static void pack(const float *weight, int64_t inputs, int64_t outputs, int turned, float *to) {
    const int64_t rows = turned ? inputs : outputs, depth = turned ? outputs : inputs;
    for (int64_t r = 0; r < rows; r += TALL)
        for (int64_t d = 0; d < depth; d++)
            for (int64_t k = r; k < r + TALL; k++)
                *to++ = k >= rows ? 0 : turned ? weight[d * inputs + k] : weight[k * inputs + d];
}

/* Rows of packed weights times a panel, stored at `channel` and after it; moments (or null) gather statistics. */
ALONE void multiply(const Node *n, const Tensor *out, int64_t channel, int64_t rows, int64_t depth, const float *packed,
                    const vec *panel, int64_t at, int64_t count, const float *pivot, Moments *moments) {
    const int64_t pixels = out->pixels;
    int64_t block = at / pixels, pixel = at % pixels;
    for (int64_t t = 0; t * WIDE < count; t++) {
        stored *to[WIDE];
        ivec there[WIDE];
        int whole = 1;
        for (int j = 0; j < WIDE; j++) {
            const int inside = t * WIDE + j < count;
            to[j] = inside ? plane(out, block, channel) + pixel : 0;
            there[j] = (ivec){0} - (inside ? 1 : 0);
            if (inside && last_and_partly_empty(n, block)) there[j] = *(const ivec *)n->filled, whole = 0;
            if (!inside) whole = 0;
            if (++pixel == pixels) pixel = 0, block++;
        }
        const float *w = packed;
        for (int64_t r = 0; r < rows; r += TALL) {
            vec acc[TALL][WIDE];
            const vec *a = panel + t * depth * WIDE;
            UNROLL for (int k = 0; k < TALL; k++)
                UNROLL for (int j = 0; j < WIDE; j++) acc[k][j] = (vec){0};
            for (int64_t d = 0; d < depth; d++, w += TALL, a += WIDE)
                UNROLL for (int k = 0; k < TALL; k++)
                    UNROLL for (int j = 0; j < WIDE; j++) acc[k][j] += w[k] * a[j];
            UNROLL for (int k = 0; k < TALL; k++) {
                if (r + k >= rows) break;
                if (whole)
                    UNROLL for (int j = 0; j < WIDE; j++) store(to[j] + (r + k) * pixels, acc[k][j]);
                else
                    UNROLL for (int j = 0; j < WIDE; j++)
                        if (to[j]) store(to[j] + (r + k) * pixels, acc[k][j]);
                if (moments) {
                    vec sum = {0}, square = {0};
                    UNROLL for (int j = 0; j < WIDE; j++) {
                        vec d = acc[k][j] - pivot[r + k];
                        if (!whole) d = (vec)((ivec)d & there[j]);
                        sum += d;
                        square += d * d;
                    }
                    moments[r + k].sum += sum;
                    moments[r + k].square += square;
                }
            }
        }
    }
}

static void flush_moments(const Node *n, const Moments *moments, int64_t group, int64_t outputs, double *sums) {
    for (int64_t o = 0; o < outputs; o++) {
        sums[group * outputs + o] += (double)across(moments[o].sum);
        sums[n->c_out + group * outputs + o] += (double)across(moments[o].square);
    }
}

void products_forward(const Node *n, int thread, int threads) {
    const Product p = product_of(n);
    vec *line = n->scratch + thread * n->scratch_size, *panel = line + p.tiles * WIDE;
    Moments *moments = (Moments *)(panel + p.tiles * WIDE * p.inputs);
    float *packed = (float *)(moments + p.outputs);
    double *sums = n->sums + 2 * thread * n->c_out;
    memset(sums, 0, 2 * (size_t)n->c_out * sizeof(double));
    const int gathers = n->training && n->normed;
    int64_t packed_group = -1;
    SHARE(n->groups * p.chunks, thread, threads);
    for (int64_t unit = from_; unit < to_; unit++) {
        const int64_t group = unit / p.chunks, at = unit % p.chunks * p.tiles * WIDE;
        const int64_t count = least(p.tiles * WIDE, p.positions - at);
        if (group != packed_group) {
            if (gathers && packed_group >= 0) flush_moments(n, moments, packed_group, p.outputs, sums);
            memset(moments, 0, (size_t)p.outputs * sizeof *moments);
            pack(n->weight + group * p.outputs * p.inputs, p.inputs, p.outputs, 0, packed);
            packed_group = group;
        }
        gather(0, n, group * p.inputs, p.inputs, at, count, line, panel);
        multiply(n, &n->tensors[n->out], group * p.outputs, p.outputs, p.inputs, packed, panel, at, count,
                 n->running_mean + group * p.outputs, gathers ? moments : 0);
    }
    if (gathers && packed_group >= 0) flush_moments(n, moments, packed_group, p.outputs, sums);
}

/* LANES vectors over images to LANES vectors over channels. */
INLINE void turn(vec v[LANES]) {
#if defined __GNUC__ && !defined __clang__
    UNROLL for (int step = 1; step < LANES; step *= 2) {
        ivec low, high;
        UNROLL for (int e = 0; e < LANES; e++) {
            low[e] = e & step ? LANES + e - step : e;
            high[e] = e & step ? LANES + e : e + step;
        }
        UNROLL for (int i = 0; i < LANES; i++)
            if (!(i & step)) {
                const vec a = v[i], b = v[i + step];
                v[i] = __builtin_shuffle(a, b, low);
                v[i + step] = __builtin_shuffle(a, b, high);
            }
    }
#else
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            const float kept = v[i][j];
            v[i][j] = v[j][i];
            v[j][i] = kept;
        }
#endif
}

/* A panel (tiles, channels, WIDE) of vectors over images as (channels / LANES, columns) of vectors over channels. */
ALONE void turn_panel(const vec *panel, int64_t channels, int64_t tiles, vec *to) {
    for (int64_t c = 0; c < channels; c += LANES)
        for (int64_t p = 0; p < tiles * WIDE; p++) {
            vec v[LANES];
            const vec *from = panel + (p / WIDE * channels + c) * WIDE + p % WIDE;
            if (c + LANES <= channels)
                UNROLL for (int i = 0; i < LANES; i++) v[i] = from[i * WIDE];
            else
                UNROLL for (int i = 0; i < LANES; i++) v[i] = c + i < channels ? from[i * WIDE] : (vec){0};
            turn(v);
            UNROLL for (int i = 0; i < LANES; i++) *to++ = v[i];
        }
}

/* partial[r][s] += sum over columns of many[r] * few[s], for `tall` rows and `vectors` of the few. */
INLINE void outer(const int tall, const int vectors, const vec *many, int64_t channels, int64_t row, int64_t rows,
                  const vec *few, int64_t tiles, vec *partial, int64_t partial_row) {
    vec acc[12][3];
    UNROLL for (int k = 0; k < tall; k++)
        UNROLL for (int s = 0; s < vectors; s++) acc[k][s] = (vec){0};
    for (int64_t t = 0; t < tiles; t++) {
        const float *from[12];
        UNROLL for (int k = 0; k < tall; k++)
            from[k] = (const float *)(many + (t * channels + row + (k < rows ? k : 0)) * WIDE);
        for (int64_t e = 0; e < RUN; e++)
            UNROLL for (int k = 0; k < tall; k++)
                UNROLL for (int s = 0; s < vectors; s++)
                    acc[k][s] += from[k][e] * few[(s * tiles + t) * RUN + e];
    }
    UNROLL for (int k = 0; k < tall; k++)
        if (k < rows)
            UNROLL for (int s = 0; s < vectors; s++) partial[k * partial_row + s] += acc[k][s];
}

ALONE void outer_products(const vec *many, int64_t channels, const vec *few, int64_t vectors, int64_t tiles, vec *partial) {
    const int tall3 = TALL, tall2 = TALL + TALL / 2;
    for (int64_t s = 0; s < vectors;) {
        const int64_t left = vectors - s;
        const vec *columns = few + s * tiles * RUN;
        if (left == 3 || left > 4) {
            for (int64_t r = 0; r < channels; r += tall3)
                outer(tall3, 3, many, channels, r, channels - r, columns, tiles, partial + r * vectors + s, vectors);
            s += 3;
        } else if (left > 1) {
            for (int64_t r = 0; r < channels; r += tall2)
                outer(tall2, 2, many, channels, r, channels - r, columns, tiles, partial + r * vectors + s, vectors);
            s += 2;
        } else {
            for (int64_t r = 0; r < channels; r += tall2)
                outer(tall2, 1, many, channels, r, channels - r, columns, tiles, partial + r * vectors + s, vectors);
            s += 1;
        }
    }
}

void products_backward(const Node *n, int thread, int threads) {
    const Product p = product_of(n);
    const int64_t panel = p.tiles * WIDE, fewer = least(p.inputs, p.outputs), more = p.inputs + p.outputs - fewer;
    vec *line = n->scratch + thread * n->scratch_size, *a = line + panel, *dz = a + panel * p.inputs;
    vec *turned = dz + panel * p.outputs;
    float *packed = (float *)(turned + panel * up(fewer, LANES));
    const int64_t group_partial = more * up(fewer, LANES);
    float *partial = n->weight_partial ? n->weight_partial + thread * n->partial_size : 0;
    if (partial) memset(partial, 0, (size_t)(n->groups * group_partial) * sizeof(float));
    int64_t packed_group = -1;
    SHARE(n->groups * p.chunks, thread, threads);
    for (int64_t unit = from_; unit < to_; unit++) {
        const int64_t group = unit / p.chunks, at = unit % p.chunks * panel;
        const int64_t count = least(panel, p.positions - at), tiles = (count + WIDE - 1) / WIDE;
        gather(1, n, group * p.outputs, p.outputs, at, count, line, dz);
        if (partial) {
            gather(0, n, group * p.inputs, p.inputs, at, count, line, a);
            const int turn_a = p.inputs == fewer;
            turn_panel(turn_a ? a : dz, fewer, tiles, turned);
            outer_products(turn_a ? dz : a, more, turned, up(fewer, LANES) / LANES, tiles,
                           (vec *)(partial + group * group_partial));
        }
        if (n->grad < 0) continue;
        if (group != packed_group) pack(n->weight + group * p.outputs * p.inputs, p.inputs, p.outputs, 1, packed);
        packed_group = group;
        multiply(n, &n->tensors[n->grad], group * p.inputs, p.inputs, p.outputs, packed, dz, at, count, 0, 0);
    }
}

/* The weight gradient from its partial sums over threads. */
void products_weights(const Node *n, int thread, int threads) {
    const Product p = product_of(n);
    const int64_t fewer = least(p.inputs, p.outputs), more = p.inputs + p.outputs - fewer, row = up(fewer, LANES);
    SHARE(n->groups * p.outputs, thread, threads);
    for (int64_t o = from_; o < to_; o++)
        for (int64_t i = 0; i < p.inputs; i++) {
            const int64_t group = o / p.outputs, own = o % p.outputs;
            const int64_t place = group * more * row + (p.inputs == fewer ? own * row + i : i * row + own);
            float sum = n->weight_partial[place];
            for (int t = 1; t < threads; t++) sum += n->weight_partial[t * n->partial_size + place];
            n->weight_grad[o * p.inputs + i] = sum;
        }
}
