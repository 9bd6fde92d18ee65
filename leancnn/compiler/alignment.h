#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Woverlength-strings" /* weights as strings of their bytes */
#define ALIGNED(n) __attribute__((aligned(n)))
#elif defined(_MSC_VER)
#define ALIGNED(n) __declspec(align(n))
#elif defined(__cplusplus)
#define ALIGNED(n) alignas(n)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define ALIGNED(n) _Alignas(n)
#else
#define ALIGNED(n)
#endif
