/* Plain NEON (Cortex-A72 of the Pi 4): smlal in 16 bits for as long as nothing can overflow. */
#include "isa.h"
#include "layout.h"
#include <arm_neon.h>

#define TOKENS 2
#include "neon.inc"

typedef vf vs; /* integer scales as floats: their products with dots are exact (csrc/README.md, "Ranges") */

INLINE vs vs_one(void) { return vf_set(1); }
INLINE vs vs_load(const void *p) { return vf_load((const float *)p); }
INLINE void vs_store(void *p, vs v) { vf_store((float *)p, v); }
INLINE vs vs_s8(const uint8_t *p) { return vf_s8(p); }
INLINE vs vs_u8(const uint8_t *p) { return vf_u8(p); }

/* A lane of low and high gets one product a group: quants of 5 bits leave room for 8 groups (31 * 127 * 8 < 2^15), of
 * 6 bits (with signs, too: up to 62) for 4, of 8 bits for 2. low: rows 0 and 1; high: rows 2 and 3. */
typedef struct {
  int16x8_t low, high;
  int32x4_t acc;
  vf first; /* with `halves`: the first one, scaled */
} dot;

INLINE int starts_by_half(dot_format fmt) { return fmt.halves; }
INLINE int32_t dot_start(dot_format fmt, int sum) { return -fmt.offset * sum; }
INLINE dot dot_begin(dot_format fmt, const int32_t *start) {
  return (dot){vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s32(fmt.offset ? start[0] : 0), vf_set(0)};
}

INLINE void dot_flush(dot *d) {
  d->acc = vaddq_s32(d->acc, vpaddq_s32(vpaddlq_s16(d->low), vpaddlq_s16(d->high)));
  d->low = d->high = vdupq_n_s16(0);
}

INLINE int8x8_t act_group(const act *a, int g) {
  const int32x4_t v = vreinterpretq_s32_s8(a->half[g / 4]);
  switch (g % 4) {
    case 0: return vreinterpret_s8_s32(vdup_laneq_s32(v, 0));
    case 1: return vreinterpret_s8_s32(vdup_laneq_s32(v, 1));
    case 2: return vreinterpret_s8_s32(vdup_laneq_s32(v, 2));
    default: return vreinterpret_s8_s32(vdup_laneq_s32(v, 3));
  }
}

INLINE void dot_add(dot *d, dot_format fmt, vi w, const act *a, int g, vs s, const int32_t *start) {
  const int8x16_t v = vreinterpretq_s8_u8(w);
  const int8x8_t b = act_group(a, g);
  d->low = vmlal_s8(d->low, vget_low_s8(v), b);
  d->high = vmlal_s8(d->high, vget_high_s8(v), b);
  if ((fmt.bits == 8 && g % 2) || ((fmt.bits == 6 || fmt.bits == 7) && g % 4 == 3) || (fmt.halves && g == 3) || g == 7)
    dot_flush(d);
  if (fmt.halves && g == 3) {
    d->first = vf_mul(s, vf_int(d->acc));
    d->acc = vdupq_n_s32(fmt.offset ? start[1] : 0);
  }
}

INLINE vf dot_end(const dot *d, dot_format fmt, vs s) {
  const vf total = vf_int(d->acc);
  if (fmt.halves) return vf_fma(s, total, d->first);
  return fmt.scaled ? vf_mul(s, total) : total;
}

#include "kernel.inc"

const sw_kernels sw_kernels_neon = {
  .name = "neon", .streams = PANEL_STREAMS, .matmul = MATMULS, .sums = SUMS, .quantize = quantize};
