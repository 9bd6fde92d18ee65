#ifndef @NAME@_H
#define @NAME@_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

enum {
    @NAME@_channels = @CHANNELS@,
    @NAME@_height = @HEIGHT@,
    @NAME@_width = @WIDTH@,
    @NAME@_classes = @CLASSES@,
    @NAME@_scratch_bytes = @SCRATCH@
};
extern const char *const @NAME@_class_names[@CLASSES@];

/* One image, rows of pixels of interleaved channels, to the probability of each class. `scratch` is
   @NAME@_scratch_bytes bytes, of any alignment, that nobody else uses meanwhile:
       static unsigned char scratch[@NAME@_scratch_bytes];
   @NULL@ Nothing is allocated and no other state is kept. */
void @NAME@_run(const @PIXEL@ *image_hwc, float *probabilities, void *scratch);

/* The same for an image that is normalised already, as planes, one for each channel, to the
   logits: (value / 255 - mean) / std of each channel, where value is 0 to 255,
   mean {@MEAN@}, std {@STD@}. */
void @NAME@_run_float(const float *image_chw, float *logits, void *scratch);
@DECLARED@
/* The network's name, sizes and preprocessing as JSON, under the same name in every library. */
const char *leancnn_about(void);

#ifdef __cplusplus
}
#endif
#endif
