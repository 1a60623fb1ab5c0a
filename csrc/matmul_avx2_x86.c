/* AVX2, FMA, F16C: vpmaddubsw with as many 16-bit additions as cannot overflow before one vpmaddwd. */
#include "isa.h"
#include "layout.h"
SW_TARGET("avx2,fma,f16c")
#include <immintrin.h>

#define TOKENS 4
#define W8_BIAS 0
#define UNSIGNED_TABLES 1
#define MAGNITUDES
#define RAISED_DOTS
#include "x86_256.inc"

/* |q| of n blocks. */
INLINE void magnitudes(const int8_t *q, int n, int8_t *out) {
  for (int i = 0; i < n; i++) vi_store(out + i * SW_BLOCK, _mm256_abs_epi8(vi_load(q + i * SW_BLOCK)));
}

typedef vi vs; /* each row's scale twice, as int16 */

INLINE vs vs_one(void) { return _mm256_set1_epi16(1); }
INLINE vs vs_load(const void *p) { return vi_load(p); }
INLINE void vs_store(void *p, vs v) { vi_store(p, v); }
INLINE vs vs_u8(const uint8_t *p) { return widen16(eight_bytes(p), 0, 0); }
INLINE vs vs_s8(const uint8_t *p) { return _mm256_srai_epi16(widen16(eight_bytes(p), 1, 0), 8); }

/* The words of kernel_raised.inc. */
INLINE vi raised_add(vi acc16, vi w, vi b) { return vi_keep(_mm256_add_epi16(acc16, _mm256_maddubs_epi16(w, b))); }
INLINE vf raised_sum(vi first, vi second, int bits) {
  const vi sum = _mm256_add_epi16(_mm256_slli_epi16(first, bits), second);
  return vf_int(_mm256_madd_epi16(sum, vs_one()));
}
INLINE vf raised_scaled(vi first, vi second, int bits, vs s0, vs s1) {
  return vf_int(_mm256_add_epi32(_mm256_madd_epi16(_mm256_slli_epi16(first, bits), s0), _mm256_madd_epi16(second, s1)));
}
INLINE vs vs_raised_s8(const uint8_t *p) { return widen16(eight_bytes(p), 1, 0); }
INLINE vi sixteen_rows(const uint8_t *p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p)); }
INLINE vs vs_low4(const uint8_t *p, int vec) { return widen16(vi_low4(sixteen_rows(p)), 0, vec); }
INLINE vf vf_high4(const uint8_t *p, int vec) { return vf_int(widen32(vi_high4(sixteen_rows(p)), 0, vec)); }

/* Each 16-bit lane subtracts what the offset is worth in its own columns. */
INLINE void raised_starts(const int8_t *q, int offset, int bits, int32_t *start) {
  vi s = _mm256_maddubs_epi16(_mm256_set1_epi8(1), vi_load(q)); /* sums of two columns, of a half in 128 bits */
  s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, 0x4e));
  s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, 0xb1));
  s = _mm256_mullo_epi16(s, _mm256_set1_epi16((int16_t)-offset));
  start[0] = _mm256_extract_epi32(s, 0);
  start[1] = _mm256_extract_epi32(_mm256_slli_epi16(s, bits), 4);
}

/* Sums of 16 bits are added up for as long as they cannot overflow: quants of 4 bits over the whole block, of 5 bits
 * and fewer over half of it, of 6 bits (also with a sign: 7) over two groups. (127 * 2 times 15 * 8, 31 * 4, 63 * 2 is
 * below 2^15.)
 * vi_keep: GCC turns chains of integer additions into trees, which do not fit the registers of a batch (Zen 3, Q4_0, 64
 * tokens: 129 GOP/s with trees, 183 without). */
typedef struct {
  vi acc16, acc32;
} dot;

INLINE int starts_by_half(dot_format fmt) { return fmt.bits != 4 && fmt.bits != 8; }

/* Two 16-bit lanes make a row, so each takes half of the offset. */
INLINE int32_t dot_start(dot_format fmt, int sum) {
  const int half = fmt.offset / 2;
  return (int32_t)((uint32_t)(-half * sum & 0xffff) | (uint32_t)(-(fmt.offset - half) * sum) << 16);
}

INLINE dot dot_begin(dot_format fmt, const int32_t *start) {
  return (dot){fmt.offset && fmt.bits != 6 ? vi_set32(start[0]) : vi_zero(), vi_zero()};
}

INLINE void dot_flush(dot *d, vs s) { d->acc32 = vi_keep(_mm256_add_epi32(d->acc32, _mm256_madd_epi16(d->acc16, s))); }

INLINE void dot_add(dot *d, dot_format fmt, vi w, const act *a, int g, vs s, const int32_t *start) {
  const vi b = act_group(a, g);
  if (fmt.bits >= 7) { /* signed; |-128| is 128 as unsigned */
    const vi products = a->has_magnitudes
                            ? _mm256_maddubs_epi16(four_everywhere(a->magnitudes + 4 * g), _mm256_sign_epi8(w, b))
                            : _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(b, w));
    d->acc16 = fmt.bits == 7 && g % 2 ? vi_keep(_mm256_add_epi16(d->acc16, products)) : products;
    if (fmt.bits == 8 || g % 2) dot_flush(d, s);
    return;
  }
  d->acc16 = vi_keep(_mm256_add_epi16(d->acc16, _mm256_maddubs_epi16(w, b)));
  if ((fmt.bits == 6 && g % 2) || ((fmt.bits < 4 || fmt.bits == 5) && g % 4 == 3)) {
    dot_flush(d, s);
    d->acc16 = fmt.offset && fmt.bits != 6 && g == 3 ? vi_set32(start[1]) : vi_zero();
  }
  if (fmt.bits == 6 && g % 4 == 3) { /* 63 * 127 * 4 leaves no room for the start in 16 bits */
    d->acc16 = vi_set32(start[g / 4]);
    dot_flush(d, s);
    d->acc16 = vi_zero();
  }
}

INLINE vf dot_end(dot *d, dot_format fmt, vs s) {
  if (fmt.bits == 4) dot_flush(d, s);
  return vf_int(d->acc32);
}

#include "kernel.inc"

const sw_kernels sw_kernels_avx2 = {
  .name = "avx2", .streams = PANEL_STREAMS, .matmul = MATMULS, .sums = SUMS, .quantize = quantize};
SW_TARGET_END
