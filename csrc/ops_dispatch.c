/* Which float ops go with which kernel table. */
#include <string.h>
#include "ops.h"

extern const sw_ops sw_ops_scalar, sw_ops_avx2, sw_ops_avx512, sw_ops_neon;

const sw_ops *sw_ops_for(const char *name) {
#if defined(__x86_64__)
  if (!strcmp(name, "avx512vnni")) return &sw_ops_avx512;
  if (!strcmp(name, "avx2") || !strcmp(name, "avxvnni")) return &sw_ops_avx2;
#elif defined(__aarch64__)
  if (!strcmp(name, "neon") || !strcmp(name, "dotprod") || !strcmp(name, "i8mm")) return &sw_ops_neon;
#endif
  return &sw_ops_scalar;
}
