/* IEEE half <-> float in integer arithmetic, for CPUs without instructions for it. Exact; rounds half to even. */
#ifndef SW_HALF_H
#define SW_HALF_H
#include <stdint.h>
#include <string.h>

static inline float sw_half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 0x3ff, bits;
  if (e == 31) {
    bits = sign | 0x7f800000u | m << 13 | (m ? 0x400000u : 0);
  } else if (e) {
    bits = sign | (e + 112) << 23 | m << 13;
  } else {
    float f = (float)m * 5.9604644775390625e-8f; /* 2^-24, exact */
    memcpy(&bits, &f, 4);
    bits |= sign;
  }
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static inline uint16_t sw_float_to_half(float f) {
  uint32_t x;
  memcpy(&x, &f, 4);
  const uint32_t sign = x >> 16 & 0x8000, a = x & 0x7fffffff;
  if (a >= 0x7f800000u) return (uint16_t)(sign | 0x7c00 | (a > 0x7f800000u ? 0x200 | (a >> 13 & 0x3ff) : 0));
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);
  if (a < 0x38800000u) { /* subnormal half: add 0.5 so that the low bits round */
    float t;
    uint32_t half_bits, magic = 0x3f000000u;
    memcpy(&t, &a, 4);
    float m;
    memcpy(&m, &magic, 4);
    t += m;
    memcpy(&half_bits, &t, 4);
    return (uint16_t)(sign | (half_bits - magic));
  }
  const uint32_t r = a + 0xfffu + (a >> 13 & 1);
  return (uint16_t)(sign | (r - 0x38000000u) >> 13);
}
#endif
