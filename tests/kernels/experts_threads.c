/* A step's threads, the readers and the thread that asks, without the engine: for sanitizers, and to see that what
 * waits is woken. Each byte of each expert is what its key says; every thread looks at it once it has waited. Steps are
 * cancelled and read errors made at random, and slots are taken away and given back between steps.
 *
 *   experts_threads FOLDER STEPS SEED */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "experts.h"

enum { LAYERS = 3, EXPERTS = 32, TOP = 4, SLOTS = 20, LEAST = 2 * TOP, TEAM = 3, PIECES = 3, PIECE = 4096 };
enum { BYTES = PIECES * PIECE - 4096 / 2 }; /* a last piece that is shorter */

static struct {
  sw_experts cache;
  sw_residents residents;
  pthread_barrier_t phase;
  int32_t active[EXPERTS];
  int n_active, n_steps, stop;
  _Atomic int cancelling;
  _Atomic long looks, wrong;
  unsigned seed;
} all;

static uint8_t byte_of(int key, int at) { return (uint8_t)(key * 31 + at / 64); }

static void *zeros(size_t n) {
  void *memory = NULL;
  if (posix_memalign(&memory, 4096, n)) abort();
  return memset(memory, 0, n);
}

static unsigned draw(unsigned n) {
  all.seed = all.seed * 1664525u + 1013904223u;
  return (all.seed >> 8) % n;
}

/* ---- what is read */

static int write_layer(const char *folder, int layer, uint32_t *sums) {
  char path[512];
  uint8_t *bytes = zeros(BYTES);
  snprintf(path, sizeof path, "%s/layer%d-%d", folder, layer, (int)getpid());
  const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  for (int e = 0; e < EXPERTS; e++) {
    for (int i = 0; i < BYTES; i++) bytes[i] = byte_of(layer * EXPERTS + e, i);
    if (fd < 0 || write(fd, bytes, BYTES) != BYTES) abort();
    for (int p = 0; p < PIECES; p++)
      sums[e * PIECES + p] = sw_crc32c(bytes + p * PIECE, p + 1 < PIECES ? PIECE : BYTES - p * PIECE);
  }
  unlink(path);
  free(bytes);
  return fd;
}

static void make(const char *folder) {
  sw_residents *r = &all.residents;
  sw_experts *c = &all.cache;
  double *fast = zeros(SW_FADES * sizeof(double)), *slow = zeros(SW_FADES * sizeof(double));
  sw_expert_file *files = zeros(LAYERS * sizeof(sw_expert_file));
  fast[0] = slow[0] = 1.0;
  for (int i = 1; i < SW_FADES; i++) fast[i] = fast[i - 1] * 0.84, slow[i] = slow[i - 1] * 0.98;
  *r = (sw_residents){.n_layers = LAYERS, .n_experts = EXPERTS, .n_slots = SLOTS, .layer = LAYERS, .visit = 2};
  r->slot_of = zeros(LAYERS * EXPERTS * sizeof(int32_t));
  r->key_of = zeros(SLOTS * sizeof(int32_t));
  memset(r->slot_of, 255, LAYERS * EXPERTS * sizeof(int32_t));
  memset(r->key_of, 255, SLOTS * sizeof(int32_t));
  r->visit_of = zeros(SLOTS * sizeof(int64_t));
  r->used_at = zeros(LAYERS * EXPERTS * sizeof(int64_t));
  r->fast = zeros(LAYERS * EXPERTS * sizeof(double));
  r->slow = zeros(LAYERS * EXPERTS * sizeof(double));
  r->ranks = zeros(EXPERTS * sizeof(double));
  r->fade_fast = fast, r->fade_slow = slow;
  for (int i = 0; i < LAYERS; i++) {
    uint32_t *sums = zeros(EXPERTS * PIECES * sizeof(uint32_t));
    files[i] = (sw_expert_file){.fd = write_layer(folder, i, sums), .cached = 1, .bytes = BYTES, .sums = sums};
  }
  c->residents = r, c->files = files;
  c->slot_bytes = BYTES, c->piece_bytes = PIECE, c->n_readers = 4, c->capacity = SLOTS * PIECES;
  c->arena = zeros(SLOTS * BYTES);
  c->pieces_left = zeros(SLOTS * sizeof(int32_t));
  for (int i = 0; i < 2; i++) c->order[i] = zeros(EXPERTS * sizeof(int32_t));
  c->queue = zeros(c->capacity * sizeof(sw_piece));
  c->readers = zeros(4 * sizeof(pthread_t));
  if (sw_experts_start(c)) abort();
}

/* ---- a step, as ffn.c makes it */

static void look(int expert) {
  const sw_experts *c = &all.cache;
  if (atomic_load(&all.cache.failed)) return; /* then it is not computed with */
  const uint8_t *data = sw_experts_data(c, expert);
  const int key = c->residents->layer * EXPERTS + expert;
  long wrong = 0;
  for (int i = 0; i < BYTES; i += 61) wrong += data[i] != byte_of(key, i);
  if (atomic_load(&all.cache.failed)) return;
  atomic_fetch_add(&all.looks, 1);
  atomic_fetch_add(&all.wrong, wrong);
}

static void choose(int n) {
  uint8_t wanted[EXPERTS] = {0};
  for (int left = n; left;) {
    const unsigned e = draw(3) ? draw(EXPERTS / 3) : draw(EXPERTS); /* some are popular */
    left -= !wanted[e];
    wanted[e] = 1;
  }
  all.n_active = 0;
  for (int e = 0; e < EXPERTS; e++)
    if (wanted[e]) all.active[all.n_active++] = e;
}

static void ask(int wave, int size) {
  int from = 0, to;
  while (from < all.n_active && all.active[from] < wave * size) from++;
  for (to = from; to < all.n_active && all.active[to] < (wave + 1) * size;) to++;
  sw_experts_ask(&all.cache, wave & 1, all.active + from, to - from, wave ? 2 : 1, (wave + 1) * size);
}

static void route(int layer, int n_tokens) {
  choose(n_tokens == 1 ? TOP : EXPERTS / 2);
  sw_residents_enter(&all.residents, layer, n_tokens);
  for (int a = 0; a < all.n_active; a++) {
    if (n_tokens == 1) sw_residents_count(&all.residents, all.active[a]);
    sw_residents_use(&all.residents, all.active[a], 0);
  }
  ask(0, sw_experts_wave(&all.cache, n_tokens * TOP));
}

static void compute(int thread, int wave, int size) {
  const int32_t *order = all.cache.order[wave & 1];
  int from = 0, to;
  while (from < all.n_active && all.active[from] < wave * size) from++;
  for (to = from; to < all.n_active && all.active[to] < (wave + 1) * size;) to++;
  for (int i = 0; i < to - from; i++) {
    const int expert = all.active[from + order[i]];
    sw_experts_await(&all.cache, expert, thread);
    look(expert);
  }
}

static void run_layer(int thread, int layer, int n_tokens) {
  if (!thread) route(layer, n_tokens);
  pthread_barrier_wait(&all.phase);
  const int size = sw_experts_wave(&all.cache, n_tokens * TOP), n_waves = (EXPERTS + size - 1) / size;
  for (int wave = 0; wave < n_waves; wave++) {
    if (!thread && wave + 1 < n_waves) ask(wave + 1, size);
    pthread_barrier_wait(&all.phase);
    compute(thread, wave, size);
    pthread_barrier_wait(&all.phase);
  }
}

/* Thread 0, when a step is over. */
static void between_steps(int step) {
  sw_experts *c = &all.cache;
  if (atomic_load(&c->failed)) sw_experts_recover(c);
  if (draw(20) == 0) sw_experts_resize(c, LEAST + (int)draw(SLOTS - LEAST + 1));
  atomic_store(&all.cancelling, draw(25) == 0);
  if (step == 0) return;
  for (int slot = 0; slot < c->residents->n_slots; slot++) {
    const int key = c->residents->key_of[slot];
    if (key >= 0 && c->residents->slot_of[key] != slot) atomic_fetch_add(&all.wrong, 1);
  }
}

static void *member(void *arg) {
  const int thread = (int)(intptr_t)arg;
  for (int step = 0; step < all.n_steps; step++) {
    if (!thread) between_steps(step);
    pthread_barrier_wait(&all.phase);
    for (int layer = 0; layer < LAYERS; layer++) run_layer(thread, layer, step % 5 ? 1 : 64);
    pthread_barrier_wait(&all.phase);
  }
  return NULL;
}

/* Somebody who does not want to wait. */
static void *canceller(void *arg) {
  (void)arg;
  while (!__atomic_load_n(&all.stop, __ATOMIC_ACQUIRE)) {
    if (atomic_exchange(&all.cancelling, 0)) sw_experts_fail(&all.cache, SW_EXPERTS_CANCELLED, 0);
    usleep(50);
  }
  return NULL;
}

int main(int n, char **words) {
  pthread_t team[TEAM], other;
  if (n != 4) return fprintf(stderr, "experts_threads FOLDER STEPS SEED\n"), 2;
  all.n_steps = atoi(words[2]), all.seed = (unsigned)atoi(words[3]);
  make(words[1]);
  for (int e = 0; e < 6; e++) sw_experts_fetch(&all.cache, e % LAYERS, e);
  pthread_barrier_init(&all.phase, NULL, TEAM);
  pthread_create(&other, NULL, canceller, NULL);
  for (int i = 0; i < TEAM; i++) pthread_create(&team[i], NULL, member, (void *)(intptr_t)i);
  for (int i = 0; i < TEAM; i++) pthread_join(team[i], NULL);
  __atomic_store_n(&all.stop, 1, __ATOMIC_RELEASE);
  pthread_join(other, NULL);
  sw_experts_stop(&all.cache);
  printf("%d steps: %llu hits, %llu misses, %ld looks, %ld wrong bytes\n", all.n_steps,
         (unsigned long long)all.cache.hits, (unsigned long long)all.cache.misses, all.looks, all.wrong);
  return all.wrong || !all.looks;
}
