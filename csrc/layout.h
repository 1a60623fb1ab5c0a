/* Where blocks lie in a packed matrix, for pack.c and the kernels. Described in csrc/README.md. */
#ifndef SW_LAYOUT_H
#define SW_LAYOUT_H
#include <string.h>
#include "half.h"
#include "sw.h"

/* The tile that holds a block, and where its panels start. */
typedef struct {
  const uint8_t *data;  /* panel 0 of the tile */
  size_t panel_bytes;   /* from panel to panel */
  int block0, n_blocks; /* GGUF blocks of the row that the tile covers */
} sw_tile;

static inline int sw_n_panels(const sw_mat *m) { return (m->rows + SW_PANEL - 1) / SW_PANEL; }

static inline int sw_tile_blocks(const sw_mat *m, const sw_quant *quant) {
  int n = m->tile_cols / quant->cols, all = m->cols / quant->cols;
  return n <= 0 || n > all ? all : n;
}

static inline int sw_n_tiles(const sw_mat *m, const sw_quant *quant) {
  int n = sw_tile_blocks(m, quant), all = m->cols / quant->cols;
  return n ? (all + n - 1) / n : 0;
}

static inline sw_tile sw_tile_at(const sw_mat *m, const sw_quant *quant, int tile) {
  const int n = sw_tile_blocks(m, quant), all = m->cols / quant->cols, b0 = tile * n;
  const size_t pb = (size_t)SW_PANEL * quant->bytes;
  sw_tile t = {m->data + (size_t)b0 * pb * sw_n_panels(m), 0, b0, all - b0 < n ? all - b0 : n};
  t.panel_bytes = (size_t)t.n_blocks * pb;
  return t;
}

static inline float sw_bf16_to_f32(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

/* 2^(e - 128), also where that is subnormal: half the scale of MXFP4, whose values are therefore doubled. */
static inline float sw_e8m0_to_float(uint8_t e) {
  uint32_t u = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

extern const int8_t sw_iq4_values[16], sw_fp4_values[16];
extern const int8_t sw_iq1_values[16], sw_iq2_values[16], sw_iq3_values[16], sw_odd_values[16];

/* One 32-column block of a panel in the clear: the quants less their offset, d and m (or dmin), and in super-blocks the
 * integer scales and mins of both halves. */
typedef struct {
  int16_t q[SW_PANEL][SW_BLOCK];
  float d[SW_PANEL], m[SW_PANEL];
  int16_t scale[2][SW_PANEL], min[2][SW_PANEL];
} sw_clear;

/* `block` points at a packed block of GGUF type `type`; j counts its sub-blocks. */
void sw_clear_block(int type, const uint8_t *block, int j, sw_clear *out);

#define SW_MAX_CODED (2 + 8 + 256)
/* pack_grids.c: the block that quants.h describes (d, scale bytes, a code for each of 256 quants) from one of a file.
 * `grid` as for sw_pack. */
void sw_read_codes(int type, const uint8_t *grid, const uint8_t *block, uint8_t *coded);

#endif
