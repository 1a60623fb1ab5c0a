/* Float operations for NEON (every 64-bit Arm). */
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>
#define W 4
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
static inline vf vfma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline vf vset(float x) { return (vf)vdupq_n_f32(x); }
static inline vf vbytes(const int8_t *p) {
  int32_t four;
  memcpy(&four, p, sizeof four);
  return (vf)vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}
static inline vf vhalf(const uint16_t *p) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline void vtohalf(uint16_t *p, vf v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v))); }
#define SW_OPS_NAME "neon"
#define SW_OPS_SYMBOL sw_ops_neon
#include "ops.inc"
