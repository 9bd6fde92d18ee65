/* EEG to a decision, in one file without dependencies: causal sub-bands, canonical correlations of the last
   window with sines at the candidates and beside them, a logistic regression over the candidates.
   Written by leancnn @VERSION@; do not edit. Nothing is allocated; `struct eeg` is all the state there is. */
#include <math.h>
#include <string.h>

enum { CHANNELS = @CHANNELS@, BANDS = @BANDS@, SECTIONS = @SECTIONS@, SAMPLES = @SAMPLES@, CANDIDATES = @CANDIDATES@ };
enum { OFFSETS = 9, HARMONICS = 2, LINES = CANDIDATES * OFFSETS, ROWS = BANDS * CHANNELS };
enum { LANES = @LANES@, TILE = 8, BLOCK = 32, TURNS = 10 };
enum { WIDE = (LINES + LANES - 1) / LANES * LANES, TALL = (ROWS + TILE - 1) / TILE * TILE };

struct eeg {
    double state[BANDS][SECTIONS][2][CHANNELS];
    float ring[SAMPLES][ROWS]; /* filtered, the oldest at `next` */
    int next, held, begun;
};

static const double sos[BANDS][SECTIONS][5] = {@SOS@};
static const double rest[BANDS][SECTIONS][2] = {@REST@}; /* states for a constant 1 */
/* By line, a candidate or a frequency beside it: cosine and sine of the angle of a sample, and of the sample
   behind the middle of the window. What follows a line's end is a line of 0 Hz, and is not read. */
static const double step[2][WIDE] = {@STEP@}, first[2][WIDE] = {@FIRST@};
/* What makes s1, c1, s2, c2 orthonormal: s1, c1, then s2 of s1 and s2, c2 of c1 and c2. Round the middle of the
   window sines are odd and cosines even, so the two kinds have nothing to do with each other. */
static const double unmix[6][WIDE] = {@UNMIX@};
static const double mean[4 * BANDS] = {@MEAN@}, scale[4 * BANDS] = {@SCALE@};
static const double weight[4 * BANDS] = {@WEIGHT@}, bias[CANDIDATES] = {@BIAS@};

void @NAME@_reset(struct eeg *e) { memset(e, 0, sizeof *e); }

/* One sample of every channel, in any unit. */
void @NAME@_push(struct eeg *e, const float *sample)
{
    for (int b = 0; b < BANDS; b++) {
        double x[CHANNELS];
        for (int c = 0; c < CHANNELS; c++) x[c] = (double)sample[c];
        for (int s = 0; s < SECTIONS; s++) {
            double(*z)[CHANNELS] = e->state[b][s];
            const double *k = sos[b][s];
            if (!e->begun)
                for (int c = 0; c < CHANNELS; c++)
                    z[0][c] = rest[b][s][0] * (double)sample[c], z[1][c] = rest[b][s][1] * (double)sample[c];
            for (int c = 0; c < CHANNELS; c++) {
                const double y = k[0] * x[c] + z[0][c];
                z[0][c] = k[1] * x[c] - k[3] * y + z[1][c];
                z[1][c] = k[2] * x[c] - k[4] * y;
                x[c] = y;
            }
        }
        for (int c = 0; c < CHANNELS; c++) e->ring[e->next][b * CHANNELS + c] = (float)x[c];
    }
    e->begun = 1;
    e->next = (e->next + 1) % SAMPLES;
    if (e->held < SAMPLES) e->held++;
}

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* Rows of a tile times waves, summed over a block. */
static void gather(float out[][WIDE], const float wave[BLOCK][WIDE], const float x[BLOCK][TALL], int from, int lane)
{
    lanes sum[TILE];
    for (int r = 0; r < TILE; r++) sum[r] = *(const lanes *)(out[from + r] + lane);
    for (int t = 0; t < BLOCK; t++) {
        const lanes w = *(const lanes *)(wave[t] + lane);
        for (int r = 0; r < TILE; r++) sum[r] += w * x[t][from + r];
    }
    for (int r = 0; r < TILE; r++) *(lanes *)(out[from + r] + lane) = sum[r];
}

/* Sums of the window times s1, c1, s2, c2 of every line: (4, rows, lines). Samples at equal distances from the
   middle share a sine and, but for a sign, a cosine: their difference and sum are taken first. */
static void correlate(const struct eeg *e, float cross[4][TALL][WIDE], double even[2][WIDE])
{
    static float wave[4][BLOCK][WIDE], odd_part[BLOCK][TALL], even_part[BLOCK][TALL];
    double c[WIDE], s[WIDE];
    memset(cross, 0, 4 * sizeof *cross), memset(even, 0, 2 * sizeof *even);
    memcpy(c, first[0], sizeof c), memcpy(s, first[1], sizeof s);
    for (int from = 0; from < SAMPLES / 2; from += BLOCK) {
        for (int t = 0; t < BLOCK; t++) {
            const int here = from + t < SAMPLES / 2;
            const int high = (e->next + (SAMPLES + 1) / 2 + from + t) % SAMPLES;
            const int low = (e->next + SAMPLES / 2 - 1 - from - t + SAMPLES) % SAMPLES;
            for (int r = 0; r < ROWS; r++) {
                odd_part[t][r] = here ? e->ring[high][r] - e->ring[low][r] : 0;
                even_part[t][r] = here ? e->ring[high][r] + e->ring[low][r] : 0;
            }
            for (int f = 0; f < WIDE; f++) {
                const double twice = c[f] * c[f] - s[f] * s[f];
                wave[0][t][f] = (float)s[f], wave[1][t][f] = (float)c[f];
                wave[2][t][f] = (float)(2 * s[f] * c[f]), wave[3][t][f] = (float)twice;
                even[0][f] += here ? 2 * c[f] : 0, even[1][f] += here ? 2 * twice : 0;
                const double turned = c[f] * step[0][f] - s[f] * step[1][f];
                s[f] = s[f] * step[0][f] + c[f] * step[1][f], c[f] = turned;
            }
        }
        for (int kind = 0; kind < 4; kind++)
            for (int row = 0; row < TALL; row += TILE)
                for (int lane = 0; lane < WIDE; lane += LANES)
                    gather(cross[kind], wave[kind], kind % 2 ? even_part : odd_part, row, lane);
    }
    if (SAMPLES % 2) /* the sample in the middle: sine 0, cosine 1 */
        for (int r = 0; r < ROWS; r++)
            for (int f = 0; f < WIDE; f++) {
                const float x = e->ring[(e->next + SAMPLES / 2) % SAMPLES][r];
                cross[1][r][f] += x, cross[3][r][f] += x, even[0][f] += r ? 0 : 1, even[1][f] += r ? 0 : 1;
            }
}

/* A band's means, the inverses of its channels' sizes, and the Cholesky factor of their correlations: below the
   diagonal, on which the inverses stand. */
static void factor(const struct eeg *e, int band, double level[CHANNELS], double size[CHANNELS], double g[CHANNELS][CHANNELS])
{
    memset(g, 0, CHANNELS * sizeof *g), memset(level, 0, CHANNELS * sizeof *level);
    for (int from = 0; from < SAMPLES; from += BLOCK) {
        double x[BLOCK][CHANNELS];
        for (int t = 0; t < BLOCK; t++)
            for (int i = 0; i < CHANNELS; i++) {
                x[t][i] = from + t < SAMPLES ? (double)e->ring[from + t][band * CHANNELS + i] : 0;
                level[i] += x[t][i];
            }
        for (int i = 0; i < CHANNELS; i++) {
            double sum[CHANNELS] = {0};
            for (int t = 0; t < BLOCK; t++)
                for (int j = 0; j < CHANNELS; j++) sum[j] += x[t][i] * x[t][j];
            for (int j = 0; j < CHANNELS; j++) g[i][j] += sum[j];
        }
    }
    for (int i = 0; i < CHANNELS; i++) level[i] /= SAMPLES;
    for (int i = 0; i < CHANNELS; i++)
        for (int j = 0; j < CHANNELS; j++) g[i][j] -= SAMPLES * level[i] * level[j];
    for (int i = 0; i < CHANNELS; i++) size[i] = g[i][i] > 0 ? 1 / sqrt(g[i][i]) : 1;
    for (int i = 0; i < CHANNELS; i++)
        for (int j = 0; j < CHANNELS; j++) g[i][j] *= size[i] * size[j];
    for (int i = 0; i < CHANNELS; i++) g[i][i] = g[i][i] > 0 ? g[i][i] + 1e-12 : 1;
    for (int i = 0; i < CHANNELS; i++)
        for (int j = 0; j <= i; j++) {
            double sum = g[i][j];
            for (int k = 0; k < j; k++) sum -= g[i][k] * g[j][k];
            g[i][j] = i == j ? 1 / sqrt(sum > 1e-13 ? sum : 1e-13) : sum * g[j][j];
        }
}

/* The largest eigenvalue of each line's symmetric 4 x 4 matrix, its lower triangle given by rows: Laguerre's method
   on the characteristic polynomial, from a bound above it (Wolkowicz and Styan 1980). All roots are real, so that
   it falls to the largest and no further. */
static void largest(double m[10][WIDE], double found[WIDE])
{
    static double p1[WIDE], p2[WIDE], p3[WIDE], p4[WIDE];
    for (int f = 0; f < WIDE; f++) {
        const double a = m[0][f], b = m[1][f], c = m[2][f], d = m[3][f], g = m[4][f];
        const double h = m[5][f], i = m[6][f], j = m[7][f], k = m[8][f], l = m[9][f];
        const double ac = a * c - b * b, ag = a * g - b * d, aj = a * j - b * i, bg = b * g - c * d;
        const double bj = b * j - c * i, dj = d * j - g * i, hl = h * l - k * k, gl = g * l - j * k;
        const double gk = g * k - j * h, dl = d * l - i * k, dk = d * k - i * h; /* minors of two rows */
        p1[f] = a + c + h + l;
        p2[f] = ac + hl + (a + c) * (h + l) - d * d - g * g - i * i - j * j;
        p3[f] = h * ac - g * ag + d * bg + l * ac - j * aj + i * bj + (a + c) * hl - d * dl + i * dk - g * gl + j * gk;
        p4[f] = ac * hl - ag * gl + aj * gk + bg * dl - bj * dk + dj * dj;
        const double middle = p1[f] / 4, spread = (p1[f] * p1[f] - 2 * p2[f]) / 4 - middle * middle;
        found[f] = middle + sqrt(3 * (spread > 0 ? spread : 0));
    }
    for (int turn = 0; turn < TURNS; turn++)
        for (int f = 0; f < WIDE; f++) {
            const double x = found[f];
            const double p = (((x - p1[f]) * x + p2[f]) * x - p3[f]) * x + p4[f];
            const double d = ((4 * x - 3 * p1[f]) * x + 2 * p2[f]) * x - p3[f];
            const double root = 9 * d * d - 24 * p * ((6 * x - 3 * p1[f]) * x + p2[f]);
            const double fall = 4 * p / (d + sqrt(root > 0 ? root : 0) + 1e-300);
            found[f] = x - (fall > 0 ? fall : 0);
        }
}

/* Squared correlations of a band's channels with every line: of one harmonic, and of two. */
static void square(const struct eeg *e, int band, float cross[4][TALL][WIDE], double even[2][WIDE], double found[HARMONICS][WIDE])
{
    static double a[CHANNELS][4][WIDE], inner[10][WIDE];
    double level[CHANNELS], size[CHANNELS], g[CHANNELS][CHANNELS];
    factor(e, band, level, size, g);
    for (int i = 0; i < CHANNELS; i++) {
        const int row = band * CHANNELS + i;
        for (int f = 0; f < WIDE; f++) {
            const double s1 = (double)cross[0][row][f] * size[i], s2 = (double)cross[2][row][f] * size[i];
            const double c1 = ((double)cross[1][row][f] - level[i] * even[0][f]) * size[i];
            const double c2 = ((double)cross[3][row][f] - level[i] * even[1][f]) * size[i];
            a[i][0][f] = s1 * unmix[0][f], a[i][1][f] = c1 * unmix[1][f];
            a[i][2][f] = s1 * unmix[2][f] + s2 * unmix[3][f], a[i][3][f] = c1 * unmix[4][f] + c2 * unmix[5][f];
        }
        for (int h = 0; h < 4; h++) {
            for (int k = 0; k < i; k++)
                for (int f = 0; f < WIDE; f++) a[i][h][f] -= g[i][k] * a[k][h][f];
            for (int f = 0; f < WIDE; f++) a[i][h][f] *= g[i][i];
        }
    }
    for (int h = 0, place = 0; h < 4; h++)
        for (int k = 0; k <= h; k++, place++)
            for (int f = 0; f < WIDE; f++) {
                double sum = 0;
                for (int i = 0; i < CHANNELS; i++) sum += a[i][h][f] * a[i][k][f];
                inner[place][f] = sum;
            }
    for (int f = 0; f < WIDE; f++) {
        const double half = (inner[0][f] - inner[2][f]) / 2;
        found[0][f] = (inner[0][f] + inner[2][f]) / 2 + sqrt(half * half + inner[1][f] * inner[1][f]);
    }
    largest(inner, found[1]);
}

/* Scores of the candidates for the last window; 0 while it is not full. One call at a time: what it works in is
   shared by all states. */
int @NAME@_scores(const struct eeg *e, float *scores)
{
    static float cross[4][TALL][WIDE];
    static double even[2][WIDE], found[BANDS][HARMONICS][WIDE];
    if (e->held < SAMPLES) return 0;
    correlate(e, cross, even);
    for (int b = 0; b < BANDS; b++) square(e, b, cross, even, found[b]);
    for (int k = 0; k < CANDIDATES; k++) {
        double sum = bias[k];
        for (int p = 0; p < BANDS * HARMONICS; p++) {
            const double *r = found[p / HARMONICS][p % HARMONICS] + k * OFFSETS;
            const double around = (r[0] + r[1] + r[7] + r[8]) / 4;
            sum += weight[p] * (log(r[4] + 0.02) - mean[p]) * scale[p];
            sum += weight[p + 2 * BANDS] * (log(around + 0.02) - mean[p + 2 * BANDS]) * scale[p + 2 * BANDS];
        }
        scores[k] = (float)sum;
    }
    return 1;
}
