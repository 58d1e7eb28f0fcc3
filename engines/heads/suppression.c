/* Greedy suppression of boxes by their intersection over union, as `engines.heads.suppression` does it in NumPy: the same
   float32 operations, whose results are compared in the same way. A box with a side that is no number has an area that
   is none, so it overlaps with no other. */

#include <float.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "this machine computes with more digits than float32 has"
#endif

/* `boxes`: x1, y1, x2, y2 of each; `groups` ascend, and the better boxes come first in each. `scratch` has room for five
   floats a box. Writes to `dropped` which are dropped: at most `most` of a group are not. */
void suppress(const float *boxes, const int64_t *groups, int64_t count, float threshold, int64_t most, float *scratch,
              uint8_t *dropped)
{
    float *left = scratch, *top = left + count, *right = top + count, *bottom = right + count, *areas = bottom + count;
    for (int64_t n = 0; n < count; n++) {
        left[n] = boxes[4 * n], top[n] = boxes[4 * n + 1], right[n] = boxes[4 * n + 2], bottom[n] = boxes[4 * n + 3];
        areas[n] = (right[n] - left[n]) * (bottom[n] - top[n]);
    }
    memset(dropped, 0, count);
    for (int64_t first = 0, end; first < count; first = end) {
        for (end = first + 1; end < count && groups[end] == groups[first]; end++)
            ;
        for (int64_t best = first, kept = 0; best < end; best++) {
            if (dropped[best])
                continue;
            if (kept++ == most) {
                memset(dropped + best, 1, end - best);
                break;
            }
            const float l = left[best], t = top[best], r = right[best], b = bottom[best], area = areas[best];
            for (int64_t n = best + 1; n < end; n++) { /* without a branch: the compiler makes vectors of it */
                float width = (r < right[n] ? r : right[n]) - (l > left[n] ? l : left[n]);
                float height = (b < bottom[n] ? b : bottom[n]) - (t > top[n] ? t : top[n]);
                width = width > 0 ? width : 0;
                height = height > 0 ? height : 0;
                const float shared = width * height;
                dropped[n] |= shared / (area + areas[n] - shared) > threshold;
            }
        }
    }
}
