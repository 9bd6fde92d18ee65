/* Classify the stored picture; print the class, the bits of the probabilities, and instructions: under QEMU's
   -icount shift=0 one takes a nanosecond, and SysTick counts 25 MHz. */
#include <stdio.h>
#include <string.h>
#include NETWORK
#include "picture.h"

static unsigned char scratch[SCRATCH];
static float probabilities[1024];

int main(void)
{
    volatile uint32_t *const control = (uint32_t *)0xE000E010, *const reload = (uint32_t *)0xE000E014,
                      *const ticks = (uint32_t *)0xE000E018;
    *reload = 0xFFFFFF;
    *ticks = 0;
    *control = 5;
    const uint32_t before = *ticks;
    NAME(run)(picture, probabilities, scratch);
    const uint32_t took = (before - *ticks) & 0xFFFFFF;
    int best = 0;
    for (int i = 1; i < NAME(classes); i++)
        if (probabilities[i] > probabilities[best]) best = i;
    printf("%d %s\n", best, NAME(class_names)[best]);
    for (int i = 0; i < NAME(classes); i++) {
        unsigned bits;
        memcpy(&bits, &probabilities[i], 4);
        printf("%08x ", bits);
    }
    printf("\n%lu\n", (unsigned long)took * 40);
    return 0;
}
