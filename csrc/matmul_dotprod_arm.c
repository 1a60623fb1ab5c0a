/* NEON with sdot (Cortex-A76 of the Pi 5): one activation lane against 4 rows x 4 columns. */
#include "isa.h"
#include "layout.h"
SW_TARGET("arch=armv8.2-a+dotprod")
#include <arm_neon.h>

#define TOKENS 4
#include "neon.inc"

#include "neon_dot.inc"
#include "dot32.inc"
#include "kernel.inc"

const sw_kernels sw_kernels_dotprod = {
  .name = "dotprod", .streams = PANEL_STREAMS, .matmul = MATMULS, .sums = SUMS, .quantize = quantize};
SW_TARGET_END
