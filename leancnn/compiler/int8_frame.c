/*@ frame_arena.h @*/
@IMAGE@
static void answer(@CONST@uint32_t *s, float *logits)
{
    static const float scale[CLASSES] = {@ANSWERSCALE@};
    for (int i = 0; i < CLASSES; i++) logits[i] = (float)@NUMBER@ * scale[i];
}

void @NAME@_run(const @PIXEL@ *image_hwc, float *probabilities, void *scratch)
{
    uint32_t *s = arena(scratch);
    load_image(s, image_hwc);
    layers(s);
    answer(s, probabilities);@SOFTMAX@
}

void @NAME@_run_float(const float *image_chw, float *logits, void *scratch)
{
    uint32_t *s = arena(scratch);
    load_planes(s, image_chw);
    layers(s);
    answer(s, logits);
}

@PREPROCESS@
