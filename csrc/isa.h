/* What the files of the instruction sets share. */
#ifndef SW_ISA_H
#define SW_ISA_H
#include "sw.h"

extern const sw_kernels sw_kernels_scalar;
/* The exact sums of one panel for one token over blocks [b0, b1) of the type, where a group begins: for the others to
 * fall back on when integers do not fit what is fast. */
void sw_sum_panel(const sw_mat *w, const sw_act *x, int t, int panel, int b0, int b1, const sw_sums *to);
#ifdef __x86_64__
extern const sw_kernels sw_kernels_avx2;
extern const sw_kernels sw_kernels_avxvnni;
extern const sw_kernels sw_kernels_avx512vnni;
#elif defined(__aarch64__)
extern const sw_kernels sw_kernels_neon;
extern const sw_kernels sw_kernels_dotprod;
extern const sw_kernels sw_kernels_i8mm;
#endif

/* The instruction set of all functions from here to SW_TARGET_END, before the header of its intrinsics is included.
 * SW_EMULATED: the tests compile the same source over emulated intrinsics. */
#define SW_PRAGMA(x) _Pragma(#x)
#if defined(SW_EMULATED)
#define SW_TARGET(set)
#define SW_TARGET_END
#elif defined(__clang__)
#define SW_TARGET(set) SW_PRAGMA(clang attribute push(__attribute__((target(set))), apply_to = function))
#define SW_TARGET_END SW_PRAGMA(clang attribute pop)
#else
#define SW_TARGET(set) SW_PRAGMA(GCC target(set))
#define SW_TARGET_END
#endif

/* What a type asks of a dot. All are constants once inlined. */
typedef struct {
  int bits;   /* unsigned quants below 2^bits; 8: all of int8, plus W8_BIAS */
  int offset; /* to subtract from the quants, folded in through the sums of the activations */
  int scaled; /* integer scales: one, or with `halves` one for each half of 16 columns */
  int halves;
} dot_format;

/* Below this a block's largest activation counts as 0: 127 / amax must stay finite and scales must stay normal. */
#define SW_ACT_TINY 0x0d800000u /* 2^-100 */
#define SW_ACT_INF 0x7f800000u

/* The scale of a block whose largest magnitude is `amax` (bits `top`), and the factor that turns floats into quants; 0
 * when all quants are 0. A NaN or infinity goes into the scale, so that it shows in the result. */
static inline float sw_act_scale(uint32_t top, float amax, float *factor) {
  *factor = top >= SW_ACT_TINY && top < SW_ACT_INF ? 127.0f / amax : 0;
  return top >= SW_ACT_TINY ? amax / 127.0f : 0;
}

#endif
