#ifndef @UPPER@_H
#define @UPPER@_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

enum {
    @NAME@_channels = @CHANNELS@,
    @NAME@_height = @HEIGHT@,
    @NAME@_width = @WIDTH@,
    @NAME@_classes = @CLASSES@
};
extern const size_t @NAME@_scratch_bytes;
extern const char *const @NAME@_class_names[@CLASSES@];

/* One image, rows of pixels of interleaved channels, to the probability of each class. `scratch` is
   @NAME@_scratch_bytes bytes that nobody else uses meanwhile; NULL takes a static one, and then only
   one thread may run. Nothing is allocated and no other state is kept. */
void @NAME@_run(const uint8_t *image_hwc, float *probabilities, void *scratch);

/* The same for an image that is normalised already, as planes, to the logits. */
void @NAME@_run_float(const float *image_chw, float *logits, void *scratch);
@DECLARED@
/* The network's name, sizes and preprocessing as JSON, under the same name in every library. */
const char *leancnn_about(void);

#ifdef __cplusplus
}
#endif
#endif
