/* EEG to a decision, in one file without dependencies: causal sub-bands, canonical correlations of the last
   window with sines at the candidates and beside them, a logistic regression over the candidates.
   Written by leancnn @VERSION@; do not edit. Nothing is allocated; `struct eeg` is all the state there is. */
#include <math.h>
#include <string.h>

enum { CHANNELS = @CHANNELS@, BANDS = @BANDS@, SECTIONS = @SECTIONS@, SAMPLES = @SAMPLES@, CANDIDATES = @CANDIDATES@ };
enum { OFFSETS = 9, HARMONICS = 2, LINES = CANDIDATES * OFFSETS, ROWS = BANDS * CHANNELS };

struct eeg {
    double state[BANDS][SECTIONS][2][CHANNELS];
    float ring[SAMPLES][ROWS]; /* filtered, the oldest at `next` */
    int next, held, begun;
};

static const double sos[BANDS][SECTIONS][5] = {@SOS@};
static const double rest[BANDS][SECTIONS][2] = {@REST@}; /* states for a constant 1 */
static const double step[LINES][2] = {@STEP@};           /* cosine and sine of a sample's angle */
static const double unmix[LINES][4][4] = {@UNMIX@};      /* the sines' own correlations, undone */
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

/* The largest eigenvalue of a symmetric matrix of n rows, by Jacobi's rotations. */
static double largest(double a[4][4], int n)
{
    for (int sweep = 0; sweep < 12; sweep++) {
        double off = 0, all = 0;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) all += a[i][j] * a[i][j], off += i == j ? 0 : a[i][j] * a[i][j];
        if (off <= 1e-12 * all) break; /* what is left shows in the square */
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++) {
                if (fabs(a[p][q]) < 1e-30) continue;
                const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
                const double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
                const double c = 1 / sqrt(t * t + 1), s = t * c;
                for (int i = 0; i < n; i++) {
                    const double u = a[i][p], v = a[i][q];
                    a[i][p] = c * u - s * v, a[i][q] = s * u + c * v;
                }
                for (int i = 0; i < n; i++) {
                    const double u = a[p][i], v = a[q][i];
                    a[p][i] = c * u - s * v, a[q][i] = s * u + c * v;
                }
            }
    }
    double most = a[0][0];
    for (int i = 1; i < n; i++) most = a[i][i] > most ? a[i][i] : most;
    return most;
}

/* Scores of the candidates for the last window; 0 while it is not full. */
int @NAME@_scores(const struct eeg *e, float *scores)
{
    static float x[SAMPLES][ROWS], cross[LINES][2 * HARMONICS][ROWS], wave[SAMPLES][4];
    static double found[BANDS][HARMONICS][LINES];
    if (e->held < SAMPLES) return 0;
    float level[ROWS] = {0};
    for (int t = 0; t < SAMPLES; t++)
        for (int r = 0; r < ROWS; r++) level[r] += e->ring[t][r];
    for (int t = 0; t < SAMPLES; t++)
        for (int r = 0; r < ROWS; r++) x[t][r] = e->ring[(e->next + t) % SAMPLES][r] - level[r] / SAMPLES;
    for (int f = 0; f < LINES; f++) {
        double c = 1, s = 0;
        for (int t = 0; t < SAMPLES; t++) {
            wave[t][0] = (float)s, wave[t][1] = (float)c;
            wave[t][2] = (float)(2 * s * c), wave[t][3] = (float)(c * c - s * s);
            const double turned = c * step[f][0] - s * step[f][1];
            s = s * step[f][0] + c * step[f][1], c = turned;
        }
        for (int from = 0; from < ROWS; from += CHANNELS) { /* one band: its sums stay in registers */
            float sum0[CHANNELS] = {0}, sum1[CHANNELS] = {0}, sum2[CHANNELS] = {0}, sum3[CHANNELS] = {0};
            for (int t = 0; t < SAMPLES; t++)
                for (int r = 0; r < CHANNELS; r++) {
                    const float v = x[t][from + r];
                    sum0[r] += wave[t][0] * v, sum1[r] += wave[t][1] * v;
                    sum2[r] += wave[t][2] * v, sum3[r] += wave[t][3] * v;
                }
            memcpy(cross[f][0] + from, sum0, sizeof sum0), memcpy(cross[f][1] + from, sum1, sizeof sum1);
            memcpy(cross[f][2] + from, sum2, sizeof sum2), memcpy(cross[f][3] + from, sum3, sizeof sum3);
        }
    }
    for (int b = 0; b < BANDS; b++) {
        double g[CHANNELS][CHANNELS] = {{0}}, size[CHANNELS];
        for (int t = 0; t < SAMPLES; t++)
            for (int i = 0; i < CHANNELS; i++)
                for (int j = 0; j < CHANNELS; j++)
                    g[i][j] += (double)x[t][b * CHANNELS + i] * (double)x[t][b * CHANNELS + j];
        for (int i = 0; i < CHANNELS; i++) size[i] = g[i][i] > 0 ? sqrt(g[i][i]) : 1;
        for (int i = 0; i < CHANNELS; i++)
            for (int j = 0; j < CHANNELS; j++) g[i][j] /= size[i] * size[j];
        for (int i = 0; i < CHANNELS; i++) g[i][i] = g[i][i] > 0 ? g[i][i] + 1e-12 : 1;
        for (int i = 0; i < CHANNELS; i++) /* Cholesky, in place below the diagonal */
            for (int j = 0; j <= i; j++) {
                double sum = g[i][j];
                for (int k = 0; k < j; k++) sum -= g[i][k] * g[j][k];
                g[i][j] = i == j ? sqrt(sum > 1e-13 ? sum : 1e-13) : sum / g[j][j];
            }
        for (int f = 0; f < LINES; f++) {
            double a[CHANNELS][4], inner[4][4] = {{0}};
            for (int i = 0; i < CHANNELS; i++)
                for (int h = 0; h < 4; h++) {
                    double sum = 0;
                    for (int k = 0; k <= h; k++)
                        sum += (double)cross[f][k][b * CHANNELS + i] / size[i] * unmix[f][k][h];
                    for (int k = 0; k < i; k++) sum -= g[i][k] * a[k][h];
                    a[i][h] = sum / g[i][i];
                }
            for (int h = 0; h < 4; h++)
                for (int k = 0; k < 4; k++)
                    for (int i = 0; i < CHANNELS; i++) inner[h][k] += a[i][h] * a[i][k];
            const double half = (inner[0][0] - inner[1][1]) / 2;
            found[b][0][f] = (inner[0][0] + inner[1][1]) / 2 + sqrt(half * half + inner[0][1] * inner[0][1]);
            found[b][1][f] = largest(inner, 4);
        }
    }
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
