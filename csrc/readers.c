/* Expert bytes from disk: the only C file with threads of its own; beside stage_tcp.c the only one with I/O. Whoever
 * computes never reads; whoever reads knows nothing of layers. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "experts.h"

#define POLL_NS 50000000 /* between two looks of a waiting thread at what else there is */
#define SECOND_NS 1000000000

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static struct timespec soon(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_nsec += POLL_NS;
  if (t.tv_nsec >= SECOND_NS) t.tv_nsec -= SECOND_NS, t.tv_sec++;
  return t;
}

static const sw_expert_file *file_of(const sw_experts *c, int key) { return &c->files[key / c->residents->n_experts]; }

static int n_pieces(const sw_experts *c, const sw_expert_file *f) {
  return (int)(((size_t)f->bytes + c->piece_bytes - 1) / c->piece_bytes);
}

/* ---- the threads that read */

static int read_whole(const sw_expert_file *f, uint8_t *to, size_t n, int64_t from) {
  for (size_t done = 0; done < n;) {
    const ssize_t got = pread(f->fd, to + done, n - done, from + (int64_t)done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return SW_EXPERTS_SHORT;
    done += (size_t)got;
  }
  return 0;
}

static int read_piece(const sw_experts *c, const sw_piece *p) {
  const sw_expert_file *f = file_of(c, p->key);
  const int expert = p->key % c->residents->n_experts;
  const size_t at = (size_t)p->number * c->piece_bytes, left = (size_t)f->bytes - at;
  const size_t n = left < c->piece_bytes ? left : c->piece_bytes;
  uint8_t *to = c->arena + (size_t)p->slot * c->slot_bytes + at;
  const int64_t from = f->first + (int64_t)expert * f->bytes + (int64_t)at;
  const int error = read_whole(f, to, n, from);
#ifdef POSIX_FADV_DONTNEED
  if (f->cached) posix_fadvise(f->fd, from, (off_t)n, POSIX_FADV_DONTNEED);
#endif
  if (error) return error;
  return sw_crc32c(to, n) == f->sums[(size_t)expert * n_pieces(c, f) + p->number] ? 0 : SW_EXPERTS_DAMAGED;
}

/* `lock` is held. */
static int next_piece(sw_experts *c, sw_piece *p) {
  while ((c->head == c->tail || c->paused) && !c->stopping) pthread_cond_wait(&c->queued, &c->lock);
  if (c->stopping) return 0;
  *p = c->queue[c->head++ % c->capacity];
  c->in_flight++;
  return 1;
}

static void *reader(void *arg) {
  sw_experts *c = arg;
  sw_piece p;
  pthread_mutex_lock(&c->lock);
  while (next_piece(c, &p)) {
    pthread_mutex_unlock(&c->lock);
    const int error = read_piece(c, &p);
    if (error) sw_experts_fail(c, error, p.key);
    pthread_mutex_lock(&c->lock);
    c->in_flight--;
    if (!error) atomic_fetch_sub(&c->pieces_left[p.slot], 1);
    if (!c->in_flight || !atomic_load(&c->pieces_left[p.slot])) pthread_cond_broadcast(&c->arrived);
  }
  pthread_mutex_unlock(&c->lock);
  return NULL;
}

/* Signals are for the threads that Python knows. */
static int start_reader(sw_experts *c, int i) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&c->readers[i], NULL, reader, c);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return error;
}

int sw_experts_start(sw_experts *c) {
  pthread_condattr_t steady;
  pthread_condattr_init(&steady);
  pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
  pthread_mutex_init(&c->lock, NULL);
  pthread_cond_init(&c->queued, NULL);
  pthread_cond_init(&c->arrived, &steady);
  pthread_condattr_destroy(&steady);
  const int wanted = c->n_readers;
  for (c->n_readers = 0; c->n_readers < wanted; c->n_readers++) {
    const int error = start_reader(c, c->n_readers);
    if (error) {
      sw_experts_stop(c);
      return error;
    }
  }
  return 0;
}

void sw_experts_stop(sw_experts *c) {
  pthread_mutex_lock(&c->lock);
  c->stopping = 1;
  pthread_cond_broadcast(&c->queued);
  pthread_mutex_unlock(&c->lock);
  for (int i = 0; i < c->n_readers; i++) pthread_join(c->readers[i], NULL);
  c->n_readers = 0;
  pthread_cond_destroy(&c->arrived);
  pthread_cond_destroy(&c->queued);
  pthread_mutex_destroy(&c->lock);
}

void sw_experts_pause(sw_experts *c, int paused) {
  pthread_mutex_lock(&c->lock);
  c->paused = paused;
  pthread_cond_broadcast(&c->queued);
  pthread_mutex_unlock(&c->lock);
}

void sw_experts_fail(sw_experts *c, int error, int key) {
  pthread_mutex_lock(&c->lock);
  if (!atomic_load(&c->failed)) {
    c->failed_key = key;
    atomic_store(&c->failed, error);
  }
  pthread_cond_broadcast(&c->arrived);
  pthread_mutex_unlock(&c->lock);
}

void sw_experts_recover(sw_experts *c) {
  sw_residents *r = c->residents;
  pthread_mutex_lock(&c->lock);
  c->head = c->tail;
  while (c->in_flight) pthread_cond_wait(&c->arrived, &c->lock);
  for (int slot = 0; slot < r->n_slots; slot++) {
    if (!atomic_load(&c->pieces_left[slot])) continue;
    r->slot_of[r->key_of[slot]] = -1;
    r->key_of[slot] = -1;
    atomic_store(&c->pieces_left[slot], 0);
  }
  c->n_waiting[0] = c->n_waiting[1] = 0;
  atomic_store(&c->failed, 0);
  pthread_mutex_unlock(&c->lock);
}

/* ---- the thread that asks */

static int is_filled(sw_experts *c, int slot) {
  return !atomic_load_explicit(&c->pieces_left[slot], memory_order_acquire) || atomic_load(&c->failed);
}

/* `lock` is held. The queue holds all pieces of all slots, so there is always room. */
static void queue_reads(sw_experts *c, int slot, int key) {
  const int n = n_pieces(c, file_of(c, key));
  atomic_store(&c->pieces_left[slot], n);
  for (int i = 0; i < n; i++) c->queue[c->tail++ % c->capacity] = (sw_piece){slot, key, i};
  c->n_bytes += (uint64_t)file_of(c, key)->bytes;
}

/* `lock` is held. What is read ahead has no visit that holds it: it must come before a slot is given to another. */
static void finish_reading_ahead(sw_experts *c) {
  for (int slot = 0; slot < c->residents->n_slots; slot++)
    while (!is_filled(c, slot)) {
      const struct timespec until = soon();
      pthread_cond_timedwait(&c->arrived, &c->lock, &until);
    }
  c->ahead = 0;
}

static int read_into_slot(sw_experts *c, int expert, int pinned_visits, int reach) {
  sw_residents *r = c->residents;
  int evicted;
  const int slot = sw_residents_claim(r, expert, pinned_visits, reach, &evicted);
  if (slot >= 0) queue_reads(c, slot, r->key_of[slot]);
  return slot;
}

void sw_experts_ask(sw_experts *c, int turn, const int32_t *active, int n, int pinned_visits, int reach) {
  sw_residents *r = c->residents;
  int ready = 0, waiting = 0, absent = 0, slot = 0;
  int32_t *order = c->order[turn];
  sw_residents_visit(r);
  for (int a = 0; a < n; a++) {
    const int slot = sw_residents_find(r, active[a]);
    if (slot >= 0 && !atomic_load_explicit(&c->pieces_left[slot], memory_order_acquire)) order[ready++] = a;
    else order[n - ++waiting] = a;
  }
  for (int i = ready, j = n - 1; i < j; i++, j--) { /* the waiting ones in ascending order, too */
    const int32_t a = order[i];
    order[i] = order[j];
    order[j] = a;
  }
  sw_poke(&c->n_waiting[turn], waiting);
  if (waiting && !atomic_load(&c->failed)) {
    pthread_mutex_lock(&c->lock);
    if (c->ahead) finish_reading_ahead(c);
    for (int i = ready; i < n && slot >= 0; i++) {
      if (r->slot_of[r->layer * r->n_experts + active[order[i]]] >= 0) continue;
      slot = read_into_slot(c, active[order[i]], pinned_visits, reach);
      absent++;
    }
    pthread_cond_broadcast(&c->queued);
    pthread_mutex_unlock(&c->lock);
  }
  if (slot < 0) sw_experts_fail(c, ENOMEM, 0); /* cannot be: a wave is no larger than what is free for it */
  c->hits += n - absent;
  c->misses += absent;
}

int sw_experts_has_all(const sw_experts *c) {
  return c->residents->n_slots >= c->residents->n_layers * c->residents->n_experts;
}

int sw_experts_wave(const sw_experts *c, int n_pairs) {
  const sw_residents *r = c->residents;
  const int together = n_pairs < r->n_experts ? n_pairs : r->n_experts, half = r->n_slots / 2;
  if (sw_experts_has_all(c) || (together <= r->n_slots && together < r->n_experts)) return r->n_experts;
  return half < SW_WAVE ? half : SW_WAVE;
}

int sw_experts_fetch(sw_experts *c, int layer, int expert) {
  sw_residents *r = c->residents;
  const int key = layer * r->n_experts + expert;
  if (r->slot_of[key] >= 0) return 0;
  for (int slot = 0; slot < r->n_slots; slot++) {
    if (r->key_of[slot] >= 0) continue;
    r->key_of[slot] = key;
    r->slot_of[key] = slot;
    pthread_mutex_lock(&c->lock);
    c->ahead = 1;
    queue_reads(c, slot, key);
    pthread_cond_broadcast(&c->queued);
    pthread_mutex_unlock(&c->lock);
    return 1;
  }
  return 0;
}

/* Give the place of what is in slot `to`, if anything, to what is in slot `from`. */
static void move_expert(sw_experts *c, int from, int to) {
  sw_residents *r = c->residents;
  if (r->key_of[to] >= 0) r->slot_of[r->key_of[to]] = -1;
  memcpy(c->arena + (size_t)to * c->slot_bytes, c->arena + (size_t)from * c->slot_bytes, c->slot_bytes);
  r->key_of[to] = r->key_of[from];
  r->visit_of[to] = r->visit_of[from];
  r->slot_of[r->key_of[to]] = to;
}

void sw_experts_resize(sw_experts *c, int n_slots) {
  sw_residents *r = c->residents;
  pthread_mutex_lock(&c->lock);
  finish_reading_ahead(c);
  if (atomic_load(&c->failed)) n_slots = r->n_slots; /* the next step says so; until then nothing moves */
  for (int slot = n_slots; slot < r->n_slots; slot++) {
    const int key = r->key_of[slot], to = key < 0 ? -1 : sw_residents_place_for(r, slot, n_slots);
    if (to >= 0) move_expert(c, slot, to);
    else if (key >= 0) r->slot_of[key] = -1;
    r->key_of[slot] = -1;
    r->visit_of[slot] = 0;
  }
  r->n_slots = n_slots;
  pthread_mutex_unlock(&c->lock);
}

/* ---- the threads that compute */

static void wait_for(sw_experts *c, int slot, int polls) {
  const uint64_t begin = now_ns();
  pthread_mutex_lock(&c->lock);
  while (!is_filled(c, slot)) {
    const struct timespec until = soon();
    pthread_cond_timedwait(&c->arrived, &c->lock, &until);
    if (!polls || is_filled(c, slot)) continue;
    pthread_mutex_unlock(&c->lock);
    c->poll(c->poll_arg);
    pthread_mutex_lock(&c->lock);
  }
  pthread_mutex_unlock(&c->lock);
  atomic_fetch_add(&c->wait_ns, now_ns() - begin);
}

static int slot_of(const sw_experts *c, int expert) {
  const sw_residents *r = c->residents;
  return r->slot_of[r->layer * r->n_experts + expert];
}

void sw_experts_await(sw_experts *c, int expert, int thread) {
  const int slot = slot_of(c, expert);
  if (slot >= 0 && !is_filled(c, slot)) wait_for(c, slot, thread == 0 && c->poll);
}

const uint8_t *sw_experts_data(const sw_experts *c, int expert) {
  const int slot = slot_of(c, expert);
  return c->arena + (size_t)(slot < 0 ? 0 : slot) * c->slot_bytes; /* without a slot the step has failed */
}
