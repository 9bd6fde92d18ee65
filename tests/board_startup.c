/* The least that a Cortex-M needs to start, for QEMU's mps2-an386 and an500, with newlib's semihosting. */
#include <stdint.h>
extern uint32_t __StackTop, __bss_start__, __bss_end__;
extern int main(void);
extern void initialise_monitor_handles(void);
void _exit(int);
void reset(void);
void fault(void) { _exit(99); }
__attribute__((section(".vectors"), used)) void *const vectors[16] = {
    &__StackTop, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xF << 20; /* the floating-point unit */
    __asm__ volatile("dsb\nisb");
    for (uint32_t *p = &__bss_start__; p < &__bss_end__; p++) *p = 0;
    initialise_monitor_handles();
    _exit(main());
}
void _init(void) {}
void _fini(void) {}
