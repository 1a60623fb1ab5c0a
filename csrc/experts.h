/* Routed experts that do not all fit in memory: an arena of slots, a policy that says which experts stay in them, and
 * threads that read the others from disk when the router asks.
 *
 *   key        an expert of a layer: layer * n_experts + expert; layers are counted within the cache
 *   resident   an expert that has a slot; filled: its bytes have come as well
 *   visit      one request for experts of a layer; all of them stay until the next visit but one
 *   wave       the experts of a visit, when a layer is gone through in several: a range of expert numbers
 *   piece      what is read at once; each has a checksum */
#ifndef SW_EXPERTS_H
#define SW_EXPERTS_H
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* What a thread that was put aside may read while another one writes it already for what comes next: whatever it reads
 * then decides nothing (places_of in ffn.c says why). Atomic, so that no compiler makes more of it than that. */
static inline int32_t sw_peek(const int32_t *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
static inline void sw_poke(int32_t *at, int32_t value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }

/* experts.c: which experts stay. No I/O, no clock; the caller owns all memory. swarm/kernels/reference_experts.py
 * decides the same, in NumPy. */

#define SW_FADES 4096 /* tokens after which a use is forgotten */

typedef struct {
  int n_layers, n_experts, n_slots;
  int32_t *slot_of;                    /* (keys) or -1 */
  int32_t *key_of;                     /* (n_slots) or -1 */
  int64_t *visit_of;                   /* (n_slots) the last visit that needed it; 0: none */
  double *fast, *slow;                 /* (keys) decayed frequencies of use, as of token used_at */
  int64_t *used_at;                    /* (keys) */
  double *ranks;                       /* (n_experts) uses by how many of the layer's experts were used more */
  const double *fade_fast, *fade_slow; /* (SW_FADES) what so many tokens leave of a use */
  int64_t visit;
  int64_t first_token; /* of this step; tokens are counted over all steps */
  int n_tokens;        /* of this step */
  int n_rows;          /* of this visit: the last of them */
  int layer;           /* of this visit */
  int is_long, before; /* a long step goes layer by layer, in parts: rows of it that were before these in a layer */
  int more;            /* of such a layer, further rows are still to come */
} sw_residents;

/* A layer of a step of n_tokens is about to use experts. A layer that does not follow the last one begins a step. */
void sw_residents_enter(sw_residents *r, int layer, int n_tokens);
/* Until told otherwise (before < 0), layers that are entered belong to one step, which takes each in parts: this
 * part comes after `before` rows of it; `more`: others follow. What is remembered is what a step of all rows leaves. */
void sw_residents_part(sw_residents *r, int before, int more);
/* A step of one token is about to use an expert of this layer, and none yet: count how many of the layer were used more
 * until now. With so many in memory, and one more, this use would find it. */
void sw_residents_count(sw_residents *r, int expert);
/* Token i of the step uses an expert of this layer. */
void sw_residents_use(sw_residents *r, int expert, int i);
/* A new visit. */
void sw_residents_visit(sw_residents *r);
/* The expert's slot, which then stays for this visit; -1 when it has none. */
int sw_residents_find(sw_residents *r, int expert);
/* A slot for an expert that has none: a free one, or that of the expert whose next use is expected last, ties to the
 * lower key. Experts of the last `pinned_visits` visits stay, and those of this layer from number `reach` on are still
 * to come. *evicted: the key that was there, or -1. Returns -1 when every slot is pinned. */
int sw_residents_claim(sw_residents *r, int expert, int pinned_visits, int reach, int *evicted);
/* Of the slots before `n_slots` the one to give to what is in slot `from`, which is needed more; -1: there is none. */
int sw_residents_place_for(const sw_residents *r, int from, int n_slots);

/* readers.c: the slots' bytes, and the threads that read them. */

#define SW_EXPERTS_SHORT (-1)     /* the file ended */
#define SW_EXPERTS_DAMAGED (-2)   /* the bytes are not those that were written */
#define SW_EXPERTS_CANCELLED (-3) /* somebody does not want to wait any longer */
#define SW_WAVE 32                /* experts at most in a wave of a batch */

/* The experts of a layer, one after the other in a file. */
typedef struct {
  int fd;
  int cached;           /* reads go through the page cache, which is told to forget them */
  int64_t first, bytes; /* where expert 0 begins; from expert to expert, and read for one */
  const uint32_t *sums; /* (n_experts, pieces) CRC32C */
} sw_expert_file;

typedef struct {
  int32_t slot, key, number;
} sw_piece;

typedef struct {
  sw_residents *residents;
  const sw_expert_file *files; /* (n_layers) */
  uint8_t *arena;              /* (n_slots, slot_bytes) */
  size_t slot_bytes, piece_bytes;
  _Atomic int32_t *pieces_left; /* (n_slots) still to come; 0: filled */
  int32_t *order[2];            /* (n_experts) of two visits: places in `active`, resident experts first */
  int n_waiting[2];             /* how many at the end of `order` were not filled when they were asked for */
  /* the queue and its readers; `lock` guards what follows down to in_flight */
  pthread_mutex_t lock;
  pthread_cond_t queued, arrived;
  sw_piece *queue; /* (capacity) ring */
  uint32_t capacity, head, tail;
  int stopping, paused, in_flight, failed_key;
  int ahead;         /* something is read ahead of its use, perhaps */
  atomic_int failed; /* errno, or one of SW_EXPERTS_*; then nobody waits, and what is computed is dropped */
  int n_readers;
  pthread_t *readers;
  void (*poll)(void *); /* called now and then by thread 0 while it waits; may cancel */
  void *poll_arg;
  /* counters */
  uint64_t hits, misses, n_bytes;
  _Atomic uint64_t wait_ns; /* of all threads together */
} sw_experts;

int sw_experts_start(sw_experts *c); /* errno, or 0 */
void sw_experts_stop(sw_experts *c);
/* One thread, between two phases. Finds slots for `active` (n, ascending numbers), queues reads of what is absent, and
 * leaves in order[turn] in which order to compute them. */
void sw_experts_ask(sw_experts *c, int turn, const int32_t *active, int n, int pinned_visits, int reach);
/* Where the bytes of an expert that was asked for are, or will be. */
const uint8_t *sw_experts_data(const sw_experts *c, int expert);
/* Any thread: wait until they have come, or nothing comes any more. */
void sw_experts_await(sw_experts *c, int expert, int thread);
/* How many expert numbers a wave has in a step that uses n_pairs experts of a layer at most. A function of the step and
 * of sizes, never of what is resident: the number of phases must be the same for all threads, also late ones. */
int sw_experts_wave(const sw_experts *c, int n_pairs);
/* Whether there is a slot for each expert. */
int sw_experts_has_all(const sw_experts *c);
/* Read an expert ahead of its use, between steps. 0: there is nothing to do, or no room that is worth it. */
int sw_experts_fetch(sw_experts *c, int layer, int expert);
void sw_experts_pause(sw_experts *c, int paused); /* or go on */
void sw_experts_fail(sw_experts *c, int error, int key);
/* After a failure: forget what is queued, wait for what is under way, drop what did not come. */
void sw_experts_recover(sw_experts *c);
/* Between steps: go on with another number of slots, at most as many as there were at the beginning. Of fewer, those
 * experts stay whose next use is expected first; memory behind the last slot may then be given back. */
void sw_experts_resize(sw_experts *c, int n_slots);

/* crc32c.c */
uint32_t sw_crc32c(const uint8_t *data, size_t n);
uint32_t sw_crc32c_by_tables(const uint8_t *data, size_t n); /* the same on a CPU without the instruction */
#endif
