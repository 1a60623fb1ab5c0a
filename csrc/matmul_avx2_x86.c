/* AVX2, FMA, F16C: vpmaddubsw with as many 16-bit additions as cannot overflow before one vpmaddwd. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>
#include "isa.h"
#include "layout.h"

#define TOKENS 4
#define W8_BIAS 0
#include "x86_256.inc"

/* bits: a sum of 2 products fits 16 bits with the factor 8 (4 bits), 4 (5 bits), 2 (6 bits), 1 (8 bits) to spare. */
typedef struct {
  vi acc16, acc32;
} dot;

/* A sum that the compiler must not regroup: GCC turns chains of integer additions into trees, which do not fit the
 * registers of a batch (Zen 3, Q4_0, 64 tokens: 129 GOP/s with trees). */
OP vi keep(vi v) {
  __asm__("" : "+x"(v));
  return v;
}

/* Nibbles without overflow even from the start: their offset goes into the 16-bit lanes, two of which make a row. */
OP int dot_start(int bits, int start) { return bits == 4 ? (start / 2 & 0xffff) * 0x10001 : start; }

OP dot dot_begin(int bits, int offset, const int32_t *start) {
  return (dot){bits == 4 && offset ? vi_set32(*start) : vi_zero(), vi_zero()};
}

OP void dot_flush(dot *d) {
  d->acc32 = keep(_mm256_add_epi32(d->acc32, _mm256_madd_epi16(d->acc16, _mm256_set1_epi16(1))));
  d->acc16 = vi_zero();
}

OP void dot_add(dot *d, int bits, vi w, const act *a, int g) {
  const vi b = act_group(a, g);
  if (bits == 8) {
    d->acc16 = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(b, w));   /* |-128| is 128 as unsigned */
    dot_flush(d);
    return;
  }
  d->acc16 = keep(_mm256_add_epi16(d->acc16, _mm256_maddubs_epi16(w, b)));
  if ((bits == 6 && g % 2 == 1) || (bits == 5 && g == 3)) dot_flush(d);
}

OP vi dot_end(dot *d, int bits, int offset, const int32_t *start) {
  if (bits < 6) dot_flush(d);
  return offset && bits != 4 ? _mm256_add_epi32(d->acc32, vi_set32(*start)) : d->acc32;
}

#include "kernel.inc"

const sw_kernels sw_kernels_avx2 = {.name = "avx2", .matmul = MATMULS, .quantize = quantize};
#if defined(__clang__)
#pragma clang attribute pop
#endif
