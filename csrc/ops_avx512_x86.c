/* Float operations for AVX-512. */
#include "isa.h"
#ifdef __clang__ /* it knows no such preference, and would take none of the list */
SW_TARGET("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")
#else
SW_TARGET("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c,prefer-vector-width=512")
#endif
#include <immintrin.h>
#include <string.h>
#define W 16
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
/* Copies, not casts: where the tests emulate these types, they are unions. */
static inline __m512 to_m512(vf v) {
  __m512 r;
  memcpy(&r, &v, sizeof r);
  return r;
}
static inline vf from_m512(__m512 v) {
  vf r;
  memcpy(&r, &v, sizeof r);
  return r;
}
static inline vf vfma(vf a, vf b, vf c) { return from_m512(_mm512_fmadd_ps(to_m512(a), to_m512(b), to_m512(c))); }
static inline vf vset(float x) { return from_m512(_mm512_set1_ps(x)); }
static inline vf vbytes(const int8_t *p) {
  return from_m512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))));
}
static inline vf vhalf(const uint16_t *p) {
  __m256 h[2];
  for (int i = 0; i < 2; i++) h[i] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8 * i)));
  vf r;
  memcpy(&r, h, sizeof r);
  return r;
}
static inline void vtohalf(uint16_t *p, vf v) {
  __m256 h[2];
  memcpy(h, &v, sizeof h);
  for (int i = 0; i < 2; i++) _mm_storeu_si128((__m128i *)(p + 8 * i), _mm256_cvtps_ph(h[i], 0));
}
#define SW_OPS_NAME "avx512"
#define SW_OPS_SYMBOL sw_ops_avx512
#include "ops.inc"
SW_TARGET_END
