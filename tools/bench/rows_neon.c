/* What a straightforward implementation does: one row at a time over GGUF blocks as they lie in the file. Only for the
 * comparison in tools/bench/mca.py. */
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

typedef struct {
  uint16_t d;
  uint8_t q[16];
} q4_0;
typedef struct {
  uint16_t d;
  int8_t q[32];
} q8_0;

static inline float half(uint16_t h) {
  __fp16 f;
  memcpy(&f, &h, 2);
  return f;
}

static inline int32x4_t dot32(int8x16_t w0, int8x16_t w1, int8x16_t a0, int8x16_t a1) {
#ifdef __ARM_FEATURE_DOTPROD
  return vdotq_s32(vdotq_s32(vdupq_n_s32(0), w0, a0), w1, a1);
#else
  int16x8_t p0 = vmull_s8(vget_low_s8(w0), vget_low_s8(a0)), p1 = vmull_high_s8(w0, a0);
  int16x8_t p2 = vmull_s8(vget_low_s8(w1), vget_low_s8(a1)), p3 = vmull_high_s8(w1, a1);
  return vaddq_s32(vaddq_s32(vpaddlq_s16(p0), vpaddlq_s16(p1)), vaddq_s32(vpaddlq_s16(p2), vpaddlq_s16(p3)));
#endif
}

float row_q4_0(int n, const q4_0 *w, const q8_0 *a) {
  float32x4_t sum = vdupq_n_f32(0);
  for (int i = 0; i < n; i++) {
    __builtin_prefetch((const char *)&w[i] + 1024);
    const uint8x16_t v = vld1q_u8(w[i].q);
    const int8x16_t low = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15))), vdupq_n_s8(8));
    const int8x16_t high = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(v, 4)), vdupq_n_s8(8));
    const int32x4_t dot = dot32(low, high, vld1q_s8(a[i].q), vld1q_s8(a[i].q + 16));
    sum = vmlaq_n_f32(sum, vcvtq_f32_s32(dot), half(w[i].d) * half(a[i].d));
  }
  return vaddvq_f32(sum);
}

float row_q8_0(int n, const q8_0 *w, const q8_0 *a) {
  float32x4_t sum = vdupq_n_f32(0);
  for (int i = 0; i < n; i++) {
    __builtin_prefetch((const char *)&w[i] + 1024);
    const int32x4_t dot = dot32(vld1q_s8(w[i].q), vld1q_s8(w[i].q + 16), vld1q_s8(a[i].q), vld1q_s8(a[i].q + 16));
    sum = vmlaq_n_f32(sum, vcvtq_f32_s32(dot), half(w[i].d) * half(a[i].d));
  }
  return vaddvq_f32(sum);
}
