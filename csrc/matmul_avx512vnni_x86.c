/* AVX-512 VNNI: one vector is a whole panel of 16 rows. */
#include "isa.h"
#include "layout.h"
SW_TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#include <immintrin.h>

#define TOKENS 8
#define PASS_PANELS 2
#define W8_BIAS 128
#define UNSIGNED_TABLES 0
#define LANES 16
#define INTERLEAVE 1
#define PANEL_VECTORS 1
#define PANEL_STREAMS 1
#define AHEAD 0
#define MAKES_FACTS 0

typedef __m512i vi;
typedef __m512 vf;

INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE vi vi_keep(vi v) {
#ifndef SW_EMULATED
  __asm__("" : "+v"(v));
#endif
  return v;
}
INLINE void vi_store(void *p, vi v) { _mm512_storeu_si512(p, v); }
INLINE vi vi_zero(void) { return _mm512_setzero_si512(); }
INLINE vi vi_set32(int x) { return _mm512_set1_epi32(x); }
INLINE int vi_any(vi v) { return _mm512_test_epi32_mask(v, v) != 0; }
INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
INLINE vi vi_low4(vi v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
INLINE vi vi_high4(vi v) { return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15)); }
INLINE vi vi_bits(vi v, int from, int to, int mask) {
  v = from > to ? _mm512_srli_epi16(v, (unsigned)(from - to)) : _mm512_slli_epi16(v, (unsigned)(to - from));
  return _mm512_and_si512(v, _mm512_set1_epi8((char)(mask << to)));
}
INLINE vi vi_byte(vi v) { return _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80)); }
INLINE vi vi_lookup(const int8_t *table, int offset, vi v) {
  const vi values = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
  return _mm512_shuffle_epi8(_mm512_add_epi8(values, _mm512_set1_epi8((char)offset)), v);
}

INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE vf vf_int(vi v) { return _mm512_cvtepi32_ps(v); }
INLINE vf vf_half(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vf vf_bf16(const uint8_t *p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE vf vf_u8(const uint8_t *p) { return vf_int(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INLINE vf vf_s8(const uint8_t *p) { return vf_int(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INLINE vf vf_e8m0(const uint8_t *p) { /* e < 2: 2^21 << e, else (e - 1) << 23 */
  const vi e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)), one = vi_set32(1 << 21);
  const vi subnormal = _mm512_add_epi32(_mm512_min_epi32(_mm512_slli_epi32(e, 21), one), one);
  const vi normal = _mm512_sub_epi32(_mm512_slli_epi32(e, 23), vi_set32(1 << 23));
  return _mm512_castsi512_ps(_mm512_max_epi32(normal, subnormal));
}

typedef struct {
  const int8_t *q;
} act;

/* Hidden, so that the compiler does not load all groups ahead of a loop over panels: they would take the registers. */
INLINE act act_load(const int8_t *q) {
  __asm__ volatile("" : "+r"(q));
  return (act){q};
}
INLINE vi act_group(const act *a, int g) {
  int32_t four;
  memcpy(&four, a->q + 4 * g, 4);
  return _mm512_set1_epi32(four);
}

INLINE uint32_t top_magnitude(const vf *v, int n) {
  const vi mask = _mm512_set1_epi32(0x7fffffff);
  vi top = _mm512_and_si512(_mm512_castps_si512(v[0]), mask);
  for (int i = 1; i < n; i++) top = _mm512_max_epi32(top, _mm512_and_si512(_mm512_castps_si512(v[i]), mask));
  return (uint32_t)_mm512_reduce_max_epi32(top);
}

#ifdef SW_EMULATED
INLINE void add_doubles(double *to, vf v) {
  float f[LANES];
  vf_store(f, v);
  for (int i = 0; i < LANES; i++) to[i] += f[i];
}

INLINE int place_of_top(int n, int i) { return (void)n, i; }
INLINE void top_magnitudes(int n, vf (*v)[1], uint32_t *top) {
  for (int i = 0; i < n; i++) top[i] = top_magnitude(v[i], 1);
}
#else
INLINE void add_doubles(double *to, vf v) {
  const __m256 low = _mm512_castps512_ps256(v), high = _mm512_extractf32x8_ps(v, 1);
  _mm512_storeu_pd(to, _mm512_add_pd(_mm512_loadu_pd(to), _mm512_cvtps_pd(low)));
  _mm512_storeu_pd(to + 8, _mm512_add_pd(_mm512_loadu_pd(to + 8), _mm512_cvtps_pd(high)));
}

/* The largest of each of 16 vectors, in the order of place_of_top: halves of two vectors are
 * put side by side, and the larger taken of each half and the other, until 16 vectors are one. */
INLINE vi tops_of_16(vi *v) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++)
    v[i] = _mm512_max_epi32(_mm512_shuffle_i64x2(v[i], v[i + 8], 0x44), _mm512_shuffle_i64x2(v[i], v[i + 8], 0xee));
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    v[i] = _mm512_max_epi32(_mm512_shuffle_i64x2(v[i], v[i + 4], 0x88), _mm512_shuffle_i64x2(v[i], v[i + 4], 0xdd));
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++)
    v[i] = _mm512_max_epi32(_mm512_unpacklo_epi64(v[i], v[i + 2]), _mm512_unpackhi_epi64(v[i], v[i + 2]));
  const vf a = _mm512_castsi512_ps(v[0]), b = _mm512_castsi512_ps(v[1]);
  return _mm512_max_epi32(_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
                          _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd)));
}

/* top_magnitude of n panels; place_of_top: where panel i's is. */
INLINE int place_of_top(int n, int i) { return n < 16 ? i : (i & 4) << 1 | (i & 8) >> 1 | (i & 1) << 1 | (i & 2) >> 1; }
INLINE void top_magnitudes(int n, vf (*v)[1], uint32_t *top) {
  if (n < 16) {
    for (int i = 0; i < n; i++) top[i] = top_magnitude(v[i], 1);
    return;
  }
  vi bits[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) bits[i] = _mm512_and_si512(_mm512_castps_si512(v[i][0]), _mm512_set1_epi32(0x7fffffff));
  vi_store(top, tops_of_16(bits));
}
#endif

/* 32 floats to int8, ties to even, and the sums of both halves. */
INLINE void store_rounded(int8_t *q, int16_t *sum, const vf *v) {
  for (int h = 0; h < 2; h++) {
    const vi x = _mm512_cvtps_epi32(v[h]);
    _mm_storeu_si128((__m128i *)(q + 16 * h), _mm512_cvtepi32_epi8(x));
    sum[h] = (int16_t)_mm512_reduce_add_epi32(x);
  }
}

typedef vi vd;
INLINE vd vd_set(int x) { return vi_set32(x); }
INLINE vd vd_dot(vd acc, vi w, const act *a, int g) { return _mm512_dpbusd_epi32(acc, w, act_group(a, g)); }

#include "dot32.inc"
#include "kernel.inc"

const sw_kernels sw_kernels_avx512vnni = {
  .name = "avx512vnni", .streams = PANEL_STREAMS, .matmul = MATMULS, .sums = SUMS, .quantize = quantize};
SW_TARGET_END
