/* NEON with sdot (Cortex-A76 of the Pi 5): one activation lane against 4 rows x 4 columns. */
#include "isa.h"
#include "layout.h"
SW_TARGET("arch=armv8.2-a+dotprod")
#include <arm_neon.h>

#define TOKENS 4
#include "neon.inc"

typedef int32x4_t vd;

INLINE vd vd_set(int x) { return vdupq_n_s32(x); }
INLINE vd vd_dot(vd acc, vi w, const act *a, int g) {
  const int8x16_t v = vreinterpretq_s8_u8(w), b = a->half[g / 4];
  switch (g % 4) {
    case 0: return vdotq_laneq_s32(acc, v, b, 0);
    case 1: return vdotq_laneq_s32(acc, v, b, 1);
    case 2: return vdotq_laneq_s32(acc, v, b, 2);
    default: return vdotq_laneq_s32(acc, v, b, 3);
  }
}

#include "dot32.inc"
#include "kernel.inc"

const sw_kernels sw_kernels_dotprod = {.name = "dotprod", .matmul = MATMULS, .quantize = quantize};
SW_TARGET_END
