/* Push the stored samples, decide; print the bits of the scores, then instructions of a decision and of a sample:
   under QEMU's -icount shift=0 one takes a nanosecond, and SysTick counts 25 MHz. */
#include <stdint.h>
#include <stdio.h>
#include "decoder.c"
#include "samples.h"

static struct eeg state;

int main(void)
{
    volatile uint32_t *const control = (uint32_t *)0xE000E010, *const reload = (uint32_t *)0xE000E014,
                      *const ticks = (uint32_t *)0xE000E018;
    float scores[CANDIDATES];
    const int count = (int)(sizeof samples / sizeof *samples);
    eeg_reset(&state);
    for (int t = 0; t + 1 < count; t++) eeg_push(&state, samples[t]);
    *reload = 0xFFFFFF, *ticks = 0, *control = 5;
    uint32_t before = *ticks;
    eeg_push(&state, samples[count - 1]);
    const uint32_t push = (before - *ticks) & 0xFFFFFF;
    *ticks = 0, before = *ticks;
    if (eeg_scores(&state, scores) != 1) return 1;
    const uint32_t decision = (before - *ticks) & 0xFFFFFF;
    for (int k = 0; k < CANDIDATES; k++) {
        unsigned bits;
        memcpy(&bits, &scores[k], 4);
        printf("%08x ", bits);
    }
    printf("\n%lu %lu\n", (unsigned long)decision * 40, (unsigned long)push * 40);
    return 0;
}
