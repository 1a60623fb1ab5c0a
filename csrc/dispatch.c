/* Which kernels this CPU *and* this operating system can run. */
#include <string.h>
#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>

typedef struct {
  unsigned b7, c7, a71, c1, xcr0;
} features;

static features detect(void) {
  features f = {0};
  unsigned a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &f.c1, &d)) return f;
  if (f.c1 & bit_OSXSAVE) {
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    f.xcr0 = low;
  }
  if (__get_cpuid_count(7, 0, &a, &f.b7, &f.c7, &d)) {
    if (a >= 1) __get_cpuid_count(7, 1, &f.a71, &b, &c, &d);
  }
  return f;
}

#define HAS(word, bits) ((f.word & (bits)) == (bits))
#define XCR0_YMM 0x06u /* the OS saves xmm and ymm */
#define XCR0_ZMM 0xe6u /* and zmm and masks */
#define C1_NEEDED (bit_FMA | bit_F16C | bit_AVX | bit_SSSE3)
#define B7_AVX512 (bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ)
#define C7_VNNI (1u << 11)
#define A71_AVXVNNI (1u << 4)

static int avx2(features f) { return HAS(xcr0, XCR0_YMM) && HAS(c1, C1_NEEDED) && HAS(b7, bit_AVX2); }

static int has_avx2(void) { return avx2(detect()); }

static int has_avxvnni(void) {
  const features f = detect();
  return avx2(f) && HAS(a71, A71_AVXVNNI);
}

static int has_avx512vnni(void) {
  const features f = detect();
  return avx2(f) && HAS(xcr0, XCR0_ZMM) && HAS(b7, B7_AVX512) && HAS(c7, C7_VNNI);
}

/* Zen 5 follows an even stride alone, and loses it at the header of every super-block: one stream of Q4_K came to
 * 14 GB/s there and, fetched 8 KB ahead, to 36. Zen 4 does better without (tools/bench/LOG.md). */
int sw_likes_ahead(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(0, &a, &b, &c, &d) || b != signature_AMD_ebx || !__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const unsigned family = (a >> 8 & 15) + (a >> 20 & 255);
  return family >= 0x1a ? 8192 : 0;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

int sw_likes_ahead(void) { return 0; }

#define HWCAP_DOTPROD (1ul << 20)
#define HWCAP2_I8 (1ul << 13)

static int has_dotprod(void) { return (getauxval(AT_HWCAP) & HWCAP_DOTPROD) != 0; }
static int has_i8mm(void) { return has_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8); }
#endif

static int has_always(void) { return 1; }

/* Slowest first. */
static const struct {
  const sw_kernels *kernels;
  int (*usable)(void);
} sets[] = {
  {&sw_kernels_scalar, has_always},
#if defined(__x86_64__)
  {&sw_kernels_avx2, has_avx2},
  {&sw_kernels_avxvnni, has_avxvnni},
  {&sw_kernels_avx512vnni, has_avx512vnni},
#elif defined(__aarch64__)
  {&sw_kernels_neon, has_always},
  {&sw_kernels_dotprod, has_dotprod},
  {&sw_kernels_i8mm, has_i8mm},
#endif
};
#define N_SETS ((int)(sizeof sets / sizeof *sets))

const sw_kernels *sw_kernels_by_name(const char *name) {
  for (int i = 0; i < N_SETS; i++) {
    if (!strcmp(sets[i].kernels->name, name)) return sets[i].usable() ? sets[i].kernels : NULL;
  }
  return NULL;
}

const sw_kernels *sw_kernels_best(void) {
  int i = N_SETS - 1;
  while (!sets[i].usable()) i--;
  return sets[i].kernels;
}

int sw_kernels_list(const char **names, int max) {
  int n = 0;
  for (int i = 0; i < N_SETS && n < max; i++) {
    if (sets[i].usable()) names[n++] = sets[i].kernels->name;
  }
  return n;
}
