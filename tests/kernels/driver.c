/* Runs every type of every kernel set that is usable here (or of the set ONLY alone) over odd sizes and prints
 * "set type case hash": equal hashes mean equal bits. Compiled for another processor family and run under emulation, it
 * says whether that family agrees. Exits with 1 when a kernel wrote outside its buffers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "layout.h"

#define GUARD 64
#define FILL 0xa5

typedef struct {
  int rows, blocks, tile_blocks, tokens; /* blocks of the type, at least 32 columns each; tile_blocks 0: one tile */
} shape;

static const shape shapes[] = {
  {1, 1, 0, 1},  {16, 1, 0, 2}, {15, 2, 0, 3}, {33, 3, 0, 4}, {64, 2, 0, 5},  {70, 5, 0, 1},  {130, 3, 0, 9},
  {50, 5, 1, 1}, {80, 9, 1, 6}, {41, 5, 2, 7}, {97, 9, 4, 8}, {20, 17, 0, 3}, {150, 2, 1, 1},
};
static uint64_t state;

static uint32_t next(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33);
}

static uint8_t *guarded(size_t n) {
  uint8_t *p = aligned_alloc(64, (n + 2 * GUARD + 63) / 64 * 64);
  if (!p) exit(2);
  memset(p, FILL, (n + 2 * GUARD + 63) / 64 * 64);
  return p + GUARD;
}

static void check(uint8_t *p, size_t n, const char *what) {
  for (int i = 1; i <= GUARD; i++) {
    if (p[-i] != FILL || p[n + i - 1] != FILL) {
      printf("wrote outside %s\n", what);
      exit(1);
    }
  }
  free(p - GUARD);
}

static uint64_t hash(uint64_t h, const void *data, size_t n) {
  const uint8_t *p = data;
  for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 1099511628211u;
  return h;
}

/* Instead of the real grids, which are not here: any codes that mean something. */
static const uint8_t *some_grid(void) {
  static uint8_t grid[2048 * 8];
  for (int i = 0; i < (int)sizeof grid; i++) grid[i] = (uint8_t)(i * 2654435761u >> 8) % 3;
  return grid;
}

/* The high byte of each f16 of a block in a file: keep the bits of `mask`, set others. */
static void set_top(int type, uint8_t *p, int mask, int bits) {
  const sw_quant *quant = &sw_quants[type];
  if (type == SW_IQ1_M) { /* in nibbles, here and there */
    p[55] = (uint8_t)((p[55] & (mask | 15)) | (bits & 0xf0)),
    p[53] = (uint8_t)((p[53] & (mask << 4 | 15)) | (bits & 15) << 4);
    return;
  }
  for (int i = 0; i < quant->n_half; i++) {
    uint8_t *top = p + (type == SW_TQ1_0 ? 52 : quant->half[i]) + 1;
    *top = (uint8_t)((*top & mask) | bits);
  }
}

/* Random blocks whose floats are below 2, so that no sum becomes infinite or NaN. */
static void fill_blocks(int type, uint8_t *p, size_t n_blocks) {
  const sw_quant *quant = &sw_quants[type];
  for (size_t b = 0; b < n_blocks; b++, p += quant->file_bytes) {
    for (int i = 0; i < quant->file_bytes; i++) p[i] = (uint8_t)next();
    if (quant->formula == SW_FORMULA_FLOAT) p[quant->bytes - 1] &= 0xbf;
    set_top(type, p, 0xbf, 0);
    if (quant->scales == SW_SCALES_E8M0) p[quant->scale_at] &= 0x7f;
  }
}

static void fill_floats(float *f, size_t n, int extreme) {
  for (size_t i = 0; i < n; i++) {
    f[i] = (float)((int)(next() % 20001) - 10000) / (float)(1 + next() % 3000);
    if (extreme) f[i] = next() % 64 ? 1.0f : -1.0f;
  }
}

/* Exact sums: with both grids, of groups of one block and of several, small enough for what is fast and too large. */
static uint64_t hash_sums(uint64_t h, const sw_kernels *k, const sw_mat *m, const sw_act *x) {
  static const float factors[] = {64, 0.7f, 3e5f, 1 / 4096.0f};
  const int n = x->n_tokens, panels = (m->rows + 15) / 16;
  const size_t bytes = (size_t)n * m->rows * 8;
  uint8_t *y = guarded(bytes), *far = guarded(bytes);
  float factor[16];
  for (int i = 0; i < 4; i++) {
    int32_t broken = 0, wide = 0;
    int64_t *sums = (int64_t *)far;
    const sw_sums to = {i / 2,  sw_group_cols(m->type, i % 2 ? 128 : 64), factor, NULL, y, sums, m->rows, &wide,
                        &broken};
    for (int t = 0; t < n; t++) factor[t] = factors[(i + t) % 4];
    memset(y, 0, bytes), memset(far, 0, bytes);
    k->sums[m->type](m, x, 0, n, 0, panels, &to);
    for (int j = 0; j < n * m->rows && !broken; j++)
      sums[j] += to.grid == SW_GRID_X ? ((int32_t *)y)[j] : (int64_t)(((double *)y)[j] * (1 << SW_OWN_UNIT));
    if (!broken) h = hash(h, far, bytes);
    h = hash(h, &broken, sizeof broken);
  }
  check(y, bytes, "near sums"), check(far, bytes, "far sums");
  return h;
}

static void run(const sw_kernels *k, int type, const shape *s, int number) {
  const sw_quant *quant = &sw_quants[type];
  const int block = quant->cols < 32 ? 32 : quant->cols, cols = s->blocks * block, n = s->tokens;
  const int tile = s->tile_blocks ? s->tile_blocks * block : cols, q_stride = (cols + 63) / 64 * 64;
  const size_t n_blocks = (size_t)s->rows * (cols / quant->cols), packed = sw_packed_bytes(type, s->rows, cols, tile);
  const size_t y_bytes = (size_t)n * s->rows * 4;
  uint64_t h = 14695981039346656037u;
  for (int extreme = 0; extreme < 2; extreme++) {
    uint8_t *src = guarded(n_blocks * quant->file_bytes), *w = guarded(packed), *f = guarded((size_t)n * cols * 4);
    uint8_t *q = guarded((size_t)n * q_stride), *scale = guarded((size_t)n * q_stride / 8);
    uint8_t *sum = guarded((size_t)n * q_stride / 8), *y = guarded(y_bytes);
    const sw_mat m = {w, type, s->rows, cols, tile, 0, 0};
    const sw_act x = {(float *)f, (int8_t *)q, (float *)scale, (int16_t *)sum, cols, q_stride, q_stride / 32, n, cols};
    state = (uint64_t)(1000 * type + number);
    if (extreme) memset(src, next() % 2 ? 0xff : 0x80, n_blocks * quant->file_bytes);
    if (!extreme || quant->formula == SW_FORMULA_FLOAT) fill_blocks(type, src, n_blocks);
    for (size_t b = 0; extreme && b < n_blocks; b++) {
      set_top(type, src + b * quant->file_bytes, 0, 0x3c);
      if (quant->scales == SW_SCALES_E8M0) src[b * quant->file_bytes + quant->scale_at] = 0x7f;
    }
    sw_pack(&m, w, src, 0, s->rows, some_grid());
    fill_floats((float *)f, (size_t)n * cols, extreme);
    for (int t = 0; t < n; t++) {
      k->quantize(x.f + t * cols, cols, x.q + t * q_stride, x.scale + t * x.s_stride, x.sum + 2 * t * x.s_stride);
      h = hash(h, x.q + t * q_stride, cols);
      h = hash(h, x.scale + t * x.s_stride, cols / 8);
      h = hash(h, x.sum + 2 * t * x.s_stride, cols / 8);
    }
    k->matmul[type](&m, &x, 0, n, 0, (s->rows + 15) / 16, (float *)y, s->rows);
    h = hash(h, y, y_bytes);
    h = hash_sums(h, k, &m, &x);
    check(src, n_blocks * quant->file_bytes, "blocks"), check(w, packed, "weights"),
        check(f, (size_t)n * cols * 4, "floats");
    check(q, (size_t)n * q_stride, "quants"), check(scale, (size_t)n * q_stride / 8, "scales");
    check(sum, (size_t)n * q_stride / 8, "sums"), check(y, y_bytes, "y");
  }
  printf("%s %d %d %016llx\n", k->name, type, number, (unsigned long long)h);
}

static void run_all(const sw_kernels *k) {
  for (int type = 0; type < SW_N_TYPES; type++) {
    if (!sw_type_block(type)) continue;
    for (int s = 0; s < (int)(sizeof shapes / sizeof *shapes); s++) run(k, type, &shapes[s], s);
  }
}

int main(void) {
#ifdef ONLY
  extern const sw_kernels ONLY;
  run_all(&ONLY);
#else
  const char *names[16];
  const int n = sw_kernels_list(names, 16);
  for (int i = 0; i < n; i++) run_all(sw_kernels_by_name(names[i]));
#endif
  return 0;
}
