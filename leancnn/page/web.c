
/* What the page calls. */
#define EXPORT(name) __attribute__((export_name(name)))

EXPORT("describe") const char *web_describe(void);
EXPORT("describe") const char *web_describe(void)
{
    return "@DESCRIPTION@";
}
EXPORT("preprocess") int web_preprocess(int layout, const uint8_t *pixels, int width, int height, uint8_t *image_hwc);
EXPORT("preprocess") int web_preprocess(int layout, const uint8_t *pixels, int width, int height, uint8_t *image_hwc)
{
    return @NAME@_preprocess_from(layout, pixels, width, height, 0, image_hwc);
}
EXPORT("run") void web_run(const uint8_t *image_hwc, float *probabilities);
EXPORT("run") void web_run(const uint8_t *image_hwc, float *probabilities)
{
    @NAME@_run(image_hwc, probabilities, NULL);
}
EXPORT("run_float") void web_run_float(const float *image_chw, float *logits);
EXPORT("run_float") void web_run_float(const float *image_chw, float *logits)
{
    @NAME@_run_float(image_chw, logits, NULL);
}
