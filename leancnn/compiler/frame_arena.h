/* The network: reads the image in the arena and leaves the answer there. */
static void layers(@WORD@ *s)
{
@CALLS@
}

/* The arena inside the caller's scratch, aligned to a cache line; what surrounds the image's pixels is
   cleared where something reads it. */
static @WORD@ *arena(void *scratch)
{
#ifdef LEANCNN_NO_ARENA /* the caller always gives one */
    char *from = (char *)scratch;
#else
    static @WORD@ own[@ARENA@ + 16];
    char *from = scratch ? (char *)scratch : (char *)own;
#endif
    @WORD@ *s = (@WORD@ *)(void *)(from + (64 - (uintptr_t)from % 64) % 64);
@CLEAR@    return s;
}

