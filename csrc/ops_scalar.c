/* Float operations in plain C: any CPU. */
#include "half.h"
#define W 4
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
static inline vf vfma(vf a, vf b, vf c) {
  vf r;
  for (int i = 0; i < W; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
}
static inline vf vset(float x) { return (vf){x, x, x, x}; }
static inline vf vbytes(const int8_t *p) { return (vf){p[0], p[1], p[2], p[3]}; }
static inline vf vhalf(const uint16_t *p) {
  vf r;
  for (int i = 0; i < W; i++) r[i] = sw_half_to_float(p[i]);
  return r;
}
static inline void vtohalf(uint16_t *p, vf v) {
  for (int i = 0; i < W; i++) p[i] = sw_float_to_half(v[i]);
}
#define SW_OPS_NAME "scalar"
#define SW_OPS_SYMBOL sw_ops_scalar
#include "ops.inc"
