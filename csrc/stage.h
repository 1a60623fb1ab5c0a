/* Members of a stage share each layer and add up their sums between its halves: csrc/README.md, "A stage".
 *
 *   member     a device of the stage, by its number from 0; the first one leads
 *   half       an exchange of a step, counted from 0: after each half of a layer
 *   sequence   the number of a step, which the leader chooses and which grows
 *   frame      a header, a sealed body and a tag: swarm/wire/PROTOCOL.md, "Between the members of a stage"
 *   to refuse  to take no part in a step that others have begun: it ends for all, and the stage lives */
#ifndef SW_STAGE_H
#define SW_STAGE_H
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SW_STAGE_MEMBERS 16
#define SW_FRAME_HEADER 32
#define SW_FRAME_TAG 16
#define SW_FRAME_SLACK 64   /* readable bytes past a body */
#define SW_STAGE_REFUSALS 8 /* steps that members refuse before the others come to them */
#define SW_STAGE_WHY 160    /* bytes of a reason, with a zero at its end */
#define SW_STAGE_SCATTER 16 /* from so many tokens on, each member adds up a part of them */
#define SW_CODE_BLOCK 128   /* values that share a width */
#define SW_CIPHER_STATE 512 /* libsodium's key schedule of AES-256-GCM; of ChaCha20-Poly1305 the key itself */
#define SW_ALL_STEPS UINT64_MAX

enum sw_stage_end {
  SW_STAGE_LIVES,
  SW_STAGE_REFUSED, /* only this step is over */
  SW_STAGE_SHUT,    /* a connection was closed */
  SW_STAGE_FORGED,  /* a frame that its sender did not send so, now, to us */
  SW_STAGE_SILENT,  /* nothing came for too long */
  SW_STAGE_TOLD,    /* a member, or this device, ended the stage */
  SW_STAGE_UNOPENED /* not all members are connected yet */
};

/* libsodium's functions, found at run time. Those of AES may be NULL. */
typedef struct {
  int (*chacha_seal)(uint8_t *, unsigned long long *, const uint8_t *, unsigned long long, const uint8_t *,
                     unsigned long long, const uint8_t *, const uint8_t *, const uint8_t *);
  int (*chacha_open)(uint8_t *, unsigned long long *, uint8_t *, const uint8_t *, unsigned long long, const uint8_t *,
                     unsigned long long, const uint8_t *, const uint8_t *);
  int (*aes_prepare)(void *, const uint8_t *);
  int (*aes_seal)(uint8_t *, unsigned long long *, const uint8_t *, unsigned long long, const uint8_t *,
                  unsigned long long, const uint8_t *, const uint8_t *, const void *);
  int (*aes_open)(uint8_t *, unsigned long long *, uint8_t *, const uint8_t *, unsigned long long, const uint8_t *,
                  unsigned long long, const uint8_t *, const void *);
} sw_sodium;

typedef struct {
  const uint8_t *at;
  size_t left;
} sw_bytes;

/* A member as this device sees it; its own entry has only the key. */
typedef struct {
  _Alignas(64) uint8_t key[SW_CIPHER_STATE]; /* of what it sends */
  int fd;
  uint8_t *in; /* frames as they come */
  size_t have;
  int unsealed;     /* the frame at the front is open: it waits for its step */
  size_t kept;      /* bytes of the frame at the front, which was taken but is still read */
  uint64_t counter; /* of its last frame */
  sw_bytes out[SW_STAGE_REFUSALS + 2];
  int n_out;
} sw_member;

typedef struct {
  uint64_t sequence; /* SW_ALL_STEPS: the stage is over */
  int member;        /* who is to blame */
  char why[SW_STAGE_WHY];
} sw_refusal;

typedef struct {
  uint64_t exchanges, waited_ns, sent_bytes, sleeps;
} sw_stage_counts;

/* What brings the members' frames to each other: this device's end of a stage. */
typedef struct {
  sw_sodium sodium;
  int me, n, aes, event_fd, ceiling_ms;
  int64_t spin_ns;
  sw_member members[SW_STAGE_MEMBERS];
  uint8_t *out;              /* frames on their way */
  size_t capacity, max_body; /* of `out` and each `in`; the largest body that fits them all */
  pthread_mutex_t lock;      /* held for as long as an exchange takes */
  uint64_t sequence, counter;
  uint32_t half;
  int opened;
  sw_refusal refusals[SW_STAGE_REFUSALS]; /* of steps to come */
  int n_refusals;
  uint8_t notes[SW_STAGE_REFUSALS][SW_FRAME_HEADER + SW_STAGE_WHY + SW_FRAME_TAG];
  int n_notes;
  pthread_mutex_t asking; /* of what other threads ask for: */
  sw_refusal asked[SW_STAGE_REFUSALS];
  _Atomic int n_asked;
  /* How the step, or the stage, ended. */
  _Atomic int end;
  int guilty;
  char why[SW_STAGE_WHY];
  sw_stage_counts counts;
} sw_carrier;

/* Sums of a half as sw_ws has them: near + far of each token, far only where wide is set. */
typedef struct {
  int32_t *near; /* (tokens, hidden) */
  int64_t *far;
  int32_t *wide; /* (tokens,) */
  size_t hidden;
} sw_planes;

/* stage_code.c: integers as bits, token by token. For each SW_CODE_BLOCK values (the last block of a token is filled up
 * with zeros) a byte w, with 0x80 one more byte z, then the lowest w bits of zigzag(v >> z) of each value v: value
 * 4 * r + k is number r of lane k, lanes take turns by 32 bits. w = 64: 8 bytes each. */
size_t sw_coded_max(size_t n); /* bytes that n values may take */
/* The values of a token; returns the end. What is so large that adding others may take more than 32 bits goes to far.
 */
uint8_t *sw_encode(int32_t *near, int64_t *far, int32_t *wide, size_t n, uint8_t *out);
/* near + far += n values at `in`; returns what follows them. NULL when they are no such values: then sums are worth
 * nothing. Reads at most SW_FRAME_SLACK bytes past `end`. */
const uint8_t *sw_decode(const uint8_t *in, const uint8_t *end, int32_t *near, int64_t *far, int32_t *wide, size_t n);

/* stage_tcp.c: everything in flight, without waiting longer than the ceiling. */
typedef struct sw_meeting sw_meeting;
struct sw_meeting {
  uint32_t from;  /* bits: members whose frame is to come; with kind 0 only what is queued goes out */
  uint32_t taken; /* whose frame came */
  uint32_t deaf;  /* whose socket is not read any more: its next frame waits, or it went */
  int (*take)(sw_carrier *s, sw_meeting *m, int j); /* a whole frame of member j has come: enum sw_taken */
  int kind;
  const sw_planes *sums;
  int n_tokens;
  int32_t *broken;
};
enum sw_taken { SW_OVER = -1, SW_DROPPED, SW_TAKEN, SW_KEPT, SW_WAITS };
int sw_meet(sw_carrier *s, sw_meeting *m);
void sw_queue(sw_carrier *s, int member, const uint8_t *frame, size_t n_bytes);
int sw_send_queued(sw_member *m); /* what the kernel takes now: 1 something, 0 nothing, -1 it failed */

/* stage.c */
void sw_stage_init(sw_carrier *s, const sw_sodium *sodium, int me, int n, int event_fd, int ceiling_ms);
void sw_stage_wipe(sw_carrier *s);
/* All members are connected: their sockets, which do not block, and the keys that they send with, 32 bytes each. */
void sw_stage_open(sw_carrier *s, const int *fds, const uint8_t *keys, int aes);
void sw_stage_close(sw_carrier *s); /* after a refusal of all steps: it uses no socket any more */
/* Buffers for so many values, or bytes that are gathered: what each must hold, and then that they are there. */
size_t sw_stage_capacity(size_t n_values, size_t n_bytes);
void sw_stage_place(sw_carrier *s, uint8_t *const *buffers, size_t n_values, size_t n_bytes);
void sw_stage_begin(sw_carrier *s, uint64_t sequence);
/* Sums of n_tokens tokens become those of all members, `broken` true when it is at any of them. */
int sw_stage_exchange(sw_carrier *s, const sw_planes *sums, int n_tokens, int32_t *broken);
/* The leader gets everybody's bytes: sw_stage_gathered, until the next exchange. */
int sw_stage_gather(sw_carrier *s, const uint8_t *data, size_t n_bytes);
sw_bytes sw_stage_gathered(const sw_carrier *s, int member);
/* From any thread: step `sequence`, or with SW_ALL_STEPS the stage, is over for all members. */
void sw_stage_refuse(sw_carrier *s, const sw_refusal *refusal);
void sw_stage_note(sw_carrier *s, const sw_refusal *refusal); /* the lock is held */
void sw_stage_hear(sw_carrier *s);                            /* the same: what other threads ask for */
int sw_stage_fail(sw_carrier *s, int end, int guilty, const char *why);
size_t sw_frame_bytes(const sw_carrier *s, int j); /* of the frame at the front; 0: not whole yet, SIZE_MAX: no frame */
#endif
