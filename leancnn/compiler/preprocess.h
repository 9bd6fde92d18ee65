
/* A picture of any size, upright, to the pixels that `@NAME@_run` takes, bit for bit as in training and
   in `leancnn predict`: @FITS@. `stride`: bytes from row to row, 0 for rows without gaps. 1 when
   done, 0 for a picture without pixels or one more than 2,000 times as large. About 25 kB of stack.
   Compile with -DLEANCNN_NO_PREPROCESS to leave it out. */
int @NAME@_preprocess(const uint8_t *rgb, int width, int height, ptrdiff_t stride, uint8_t *image_hwc);

/* The same for other pixels. `layout`: 1 grey, 3 RGB, 4 RGBA, -3 BGR, -4 BGRA; transparent pixels get
   the background that the network was trained with. */
int @NAME@_preprocess_from(int layout, const uint8_t *pixels, int width, int height, ptrdiff_t stride, uint8_t *image_hwc);
