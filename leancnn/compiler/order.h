#if defined(__wasm_simd128__) && defined(__clang__) && LANES == 4
/* Clang writes the multiply-adds of a block for WebAssembly sum by sum, behind all loads: each waits
   for the one before it, and what was loaded goes through the stack. This keeps them as they stand. */
#define ordered(x) __asm__ volatile("" : "+r"(x) : : "memory")
#else
#define ordered(x) ((void)0)
#endif
