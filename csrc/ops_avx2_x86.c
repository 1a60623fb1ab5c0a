/* Float operations for AVX2 + FMA + F16C. */
#include "isa.h"
SW_TARGET("avx2,fma,f16c")
#include <immintrin.h>
#define W 8
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
static inline vf vfma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline vf vset(float x) { return (vf)_mm256_set1_ps(x); }
static inline vf vbytes(const int8_t *p) {
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline vf vhalf(const uint16_t *p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
static inline void vtohalf(uint16_t *p, vf v) { _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, 0)); }
#define SW_OPS_NAME "avx2"
#define SW_OPS_SYMBOL sw_ops_avx2
#include "ops.inc"
SW_TARGET_END
