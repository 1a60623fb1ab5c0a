/* NEON with smmla: a batch multiplies 2 rows by 2 tokens over 8 columns at once. One token goes as with dotprod. */
#include "isa.h"
#include "layout.h"
SW_TARGET("arch=armv8.2-a+dotprod+i8mm")
#include <arm_neon.h>

#define TOKENS 4
#define UNIT 2
#include "neon.inc"
#include "neon_dot.inc"
#include "dot32.inc"

/* Two tokens: 8 columns of one, then of the other. */
typedef struct {
  int8x16_t columns[4];
} unit_act;

/* rows[0]: rows 0 and 1 times both tokens, row by row; rows[1]: rows 2 and 3. */
typedef struct {
  int32x4_t rows[2];
  vf first[2];   /* with `halves`: the first ones of both tokens, scaled */
} unit;

/* Two groups of 4 rows x 4 columns become 2 rows x 8 columns, twice. */
INLINE void unit_weights(vi *even, vi *odd) {
  const uint32x4_t a = vreinterpretq_u32_u8(*even), b = vreinterpretq_u32_u8(*odd);
  *even = vreinterpretq_u8_u32(vzip1q_u32(a, b));
  *odd = vreinterpretq_u8_u32(vzip2q_u32(a, b));
}

INLINE unit_act unit_load(const int8_t *q, const int8_t *twin) {
  unit_act a;
  for (int i = 0; i < 4; i++) a.columns[i] = vcombine_s8(vld1_s8(q + 8 * i), vld1_s8(twin + 8 * i));
  return a;
}

INLINE int32x4_t pair(form k, int32_t start, int32_t twin) {
  return k.offset ? (int32x4_t){start, twin, start, twin} : vdupq_n_s32(0);
}

INLINE unit unit_begin(form k, const int32_t *start, const int32_t *twin) {
  const int32x4_t both = pair(k, start[0], twin[0]);
  return (unit){{both, both}, {vf_set(0), vf_set(0)}};
}

/* The dots of the 4 rows with one of the two tokens. */
INLINE vf unit_rows(const unit *d, int which) {
  return vf_int(which ? vuzp2q_s32(d->rows[0], d->rows[1]) : vuzp1q_s32(d->rows[0], d->rows[1]));
}

INLINE void unit_add(unit *d, form k, vi w, const unit_act *a, int g, vs s, const int32_t *start,
                     const int32_t *twin) {
  d->rows[g % 2] = vmmlaq_s32(d->rows[g % 2], vreinterpretq_s8_u8(w), a->columns[g / 2]);
  if (k.halves && g == 3) {
    for (int i = 0; i < 2; i++) d->first[i] = vf_mul(s, unit_rows(d, i));
    d->rows[0] = d->rows[1] = pair(k, start[1], twin[1]);
  }
}

INLINE vf unit_end(const unit *d, form k, vs s, int which) {
  const vf total = unit_rows(d, which);
  if (k.halves) return vf_fma(s, total, d->first[which]);
  return k.scaled ? vf_mul(s, total) : total;
}

#include "kernel.inc"

const sw_kernels sw_kernels_i8mm = {.name = "i8mm", .matmul = MATMULS, .quantize = quantize};
SW_TARGET_END
