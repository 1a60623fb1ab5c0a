/* NEON with smmla: a batch multiplies 2 rows by 2 tokens over 8 columns at once. One token goes as with dotprod. */
#include "isa.h"
#include "layout.h"
SW_TARGET("arch=armv8.2-a+dotprod+i8mm")
#include <arm_neon.h>

#define TOKENS 4
#define MMA_TOKENS 2
#include "neon.inc"
#include "neon_dot.inc"
#include "dot32.inc"

/* Two tokens: 8 columns of one, then of the other. */
typedef struct {
  int8x16_t columns[4];
} mma_act;

/* rows[0]: rows 0 and 1 times both tokens, row by row; rows[1]: rows 2 and 3. */
typedef struct {
  int32x4_t rows[2];
  vf first[2]; /* with `halves`: the first ones of both tokens, scaled */
} mma;

/* Two groups of 4 rows x 4 columns become 2 rows x 8 columns, twice. */
INLINE void mma_weights(vi *even, vi *odd) {
  const uint32x4_t a = vreinterpretq_u32_u8(*even), b = vreinterpretq_u32_u8(*odd);
  *even = vreinterpretq_u8_u32(vzip1q_u32(a, b));
  *odd = vreinterpretq_u8_u32(vzip2q_u32(a, b));
}

INLINE mma_act mma_load(const int8_t *q, const int8_t *second) {
  mma_act a;
  for (int i = 0; i < 4; i++) a.columns[i] = vcombine_s8(vld1_s8(q + 8 * i), vld1_s8(second + 8 * i));
  return a;
}

INLINE int32x4_t pair(dot_format fmt, int32_t start, int32_t second) {
  return fmt.offset ? (int32x4_t){start, second, start, second} : vdupq_n_s32(0);
}

INLINE mma mma_begin(dot_format fmt, const int32_t *start, const int32_t *second) {
  const int32x4_t both = pair(fmt, start[0], second[0]);
  return (mma){{both, both}, {vf_set(0), vf_set(0)}};
}

/* The dots of the 4 rows with one of the two tokens. */
INLINE vf mma_rows(const mma *d, int which) {
  return vf_int(which ? vuzp2q_s32(d->rows[0], d->rows[1]) : vuzp1q_s32(d->rows[0], d->rows[1]));
}

INLINE void mma_add(mma *d, dot_format fmt, vi w, const mma_act *a, int g, vs s, const int32_t *start,
                    const int32_t *second) {
  d->rows[g % 2] = vmmlaq_s32(d->rows[g % 2], vreinterpretq_s8_u8(w), a->columns[g / 2]);
  if (fmt.halves && g == 3) {
    for (int i = 0; i < 2; i++) d->first[i] = vf_mul(s, mma_rows(d, i));
    d->rows[0] = d->rows[1] = pair(fmt, start[1], second[1]);
  }
}

INLINE vf mma_end(const mma *d, dot_format fmt, vs s, int which) {
  const vf total = mma_rows(d, which);
  if (fmt.halves) return vf_fma(s, total, d->first[which]);
  return fmt.scaled ? vf_mul(s, total) : total;
}

#include "kernel.inc"

const sw_kernels sw_kernels_i8mm = {
  .name = "i8mm", .streams = PANEL_STREAMS, .matmul = MATMULS, .sums = SUMS, .quantize = quantize};
SW_TARGET_END
