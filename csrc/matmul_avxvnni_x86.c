/* AVX-VNNI, 256 bits: vpdpbusd on the same vectors as AVX2. */
#include "isa.h"
#include "layout.h"
SW_TARGET("avx2,fma,f16c,avxvnni")
#include <immintrin.h>

#define TOKENS 4
#define W8_BIAS 128
#define UNSIGNED_TABLES 0
#include "x86_256.inc"

typedef vi vd;
INLINE vd vd_set(int x) { return vi_set32(x); }
INLINE vd vd_dot(vd acc, vi w, const act *a, int g) { return _mm256_dpbusd_avx_epi32(acc, w, act_group(a, g)); }

#include "dot32.inc"
#include "kernel.inc"

const sw_kernels sw_kernels_avxvnni = {
  .name = "avxvnni", .streams = PANEL_STREAMS, .matmul = MATMULS, .sums = SUMS, .quantize = quantize};
SW_TARGET_END
