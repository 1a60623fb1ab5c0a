/* Stands in for the compiler's header: the intrinsics over SIMDe, so that kernels for newer CPUs run here. What this
 * SIMDe lacks, and the multiply-adds that it does not fuse, are built from halves that AVX2 has. */
#ifndef EMULATED_IMMINTRIN_H
#define EMULATED_IMMINTRIN_H
#include_next <immintrin.h>
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#define EMULATED static inline __attribute__((unused))

EMULATED simde__m512 two_ps(__m256 low, __m256 high) {
  simde__m512_private r;
  r.m256[0] = low;
  r.m256[1] = high;
  return simde__m512_from_private(r);
}

EMULATED simde__m512i two_si(__m256i low, __m256i high) {
  simde__m512i_private r;
  r.m256i[0] = low;
  r.m256i[1] = high;
  return simde__m512i_from_private(r);
}

#define HALF_PS(v, i) (simde__m512_to_private(v).m256[i])
#define HALF_SI(v, i) (simde__m512i_to_private(v).m256i[i])

EMULATED simde__m512 fused(simde__m512 a, simde__m512 b, simde__m512 c) {
  return two_ps(_mm256_fmadd_ps(HALF_PS(a, 0), HALF_PS(b, 0), HALF_PS(c, 0)),
                _mm256_fmadd_ps(HALF_PS(a, 1), HALF_PS(b, 1), HALF_PS(c, 1)));
}
EMULATED simde__m512 fused_negated(simde__m512 a, simde__m512 b, simde__m512 c) {
  return two_ps(_mm256_fnmadd_ps(HALF_PS(a, 0), HALF_PS(b, 0), HALF_PS(c, 0)),
                _mm256_fnmadd_ps(HALF_PS(a, 1), HALF_PS(b, 1), HALF_PS(c, 1)));
}
EMULATED simde__m512 from_int(simde__m512i v) {
  return two_ps(_mm256_cvtepi32_ps(HALF_SI(v, 0)), _mm256_cvtepi32_ps(HALF_SI(v, 1)));
}
EMULATED simde__m512i to_int(simde__m512 v) {
  return two_si(_mm256_cvtps_epi32(HALF_PS(v, 0)), _mm256_cvtps_epi32(HALF_PS(v, 1)));
}
EMULATED simde__m512 from_half(__m256i v) {
  return two_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(v)), _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)));
}
EMULATED simde__m512i widen_u16(__m256i v) {
  return two_si(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(v)),
                _mm256_cvtepu16_epi32(_mm256_extracti128_si256(v, 1)));
}
EMULATED simde__m512i widen_u8(__m128i v) {
  return two_si(_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)));
}
EMULATED simde__m512i widen_s8(__m128i v) {
  return two_si(_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)));
}
EMULATED __m128i narrow_s32(simde__m512i v) {
  simde__m512i_private p = simde__m512i_to_private(v);
  int8_t out[16];
  for (int i = 0; i < 16; i++) out[i] = (int8_t)p.i32[i];
  return _mm_loadu_si128((const __m128i *)out);
}
EMULATED int reduce(simde__m512i v, int add) {
  simde__m512i_private p = simde__m512i_to_private(v);
  int r = p.i32[0];
  for (int i = 1; i < 16; i++) r = add ? r + p.i32[i] : p.i32[i] > r ? p.i32[i] : r;
  return r;
}
/* AVX-VNNI is the 256-bit instruction of AVX-512 VNNI in another coat. */
EMULATED __m256i dot_256(__m256i acc, __m256i w, __m256i a) {
  simde__m512i r = simde_mm512_dpbusd_epi32(two_si(acc, acc), two_si(w, w), two_si(a, a));
  return HALF_SI(r, 0);
}

#undef _mm512_fmadd_ps
#undef _mm512_fnmadd_ps
#define _mm512_fmadd_ps(a, b, c) fused(a, b, c)
#define _mm512_fnmadd_ps(a, b, c) fused_negated(a, b, c)
#define _mm512_cvtepi32_ps(v) from_int(v)
#define _mm512_cvtps_epi32(v) to_int(v)
#define _mm512_cvtph_ps(v) from_half(v)
#define _mm512_cvtepu16_epi32(v) widen_u16(v)
#define _mm512_cvtepu8_epi32(v) widen_u8(v)
#define _mm512_cvtepi8_epi32(v) widen_s8(v)
#define _mm512_cvtepi32_epi8(v) narrow_s32(v)
#define _mm512_reduce_max_epi32(v) reduce(v, 0)
#define _mm512_reduce_add_epi32(v) reduce(v, 1)
#define _mm256_dpbusd_avx_epi32(acc, w, a) dot_256(acc, w, a)
#endif
