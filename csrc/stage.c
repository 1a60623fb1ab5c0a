/* The exchange of a stage: who sends what to whom, sealed, and what may come from whom and when. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "stage.h"

enum { SUMS = 1, PART, TOTAL, BYTES, REFUSAL }; /* kinds of frames */
enum { BROKEN = 1, TO_ALL = 255 };

typedef struct {
  uint32_t n_bytes; /* of the body */
  uint8_t kind, from, to, flags;
  uint64_t counter, sequence;
  uint32_t half, n_tokens;
} frame;
_Static_assert(sizeof(frame) == SW_FRAME_HEADER, "a frame's header");

static frame header_of(const uint8_t *bytes) {
  frame f;
  memcpy(&f, bytes, sizeof f);
  return f;
}

/* --- sealed frames */

static void nonce_of(uint64_t counter, uint8_t *nonce) {
  memset(nonce, 0, 12);
  memcpy(nonce, &counter, sizeof counter);
}

/* Header and body at `at` become a frame; its length. Each counter is used once, so no nonce comes twice. */
static size_t seal(sw_carrier *s, uint8_t *at, frame f) {
  uint8_t nonce[12], *body = at + SW_FRAME_HEADER;
  unsigned long long n;
  f.from = (uint8_t)s->me, f.counter = ++s->counter, f.sequence = f.kind == REFUSAL ? f.sequence : s->sequence;
  memcpy(at, &f, sizeof f);
  nonce_of(f.counter, nonce);
  if (s->aes) s->sodium.aes_seal(body, &n, body, f.n_bytes, at, SW_FRAME_HEADER, NULL, nonce, s->members[s->me].key);
  else s->sodium.chacha_seal(body, &n, body, f.n_bytes, at, SW_FRAME_HEADER, NULL, nonce, s->members[s->me].key);
  return SW_FRAME_HEADER + f.n_bytes + SW_FRAME_TAG;
}

/* In place. */
static int unseal(const sw_carrier *s, int j, uint8_t *at, frame f) {
  uint8_t nonce[12], *body = at + SW_FRAME_HEADER;
  const unsigned long long sealed = (unsigned long long)f.n_bytes + SW_FRAME_TAG;
  unsigned long long n;
  nonce_of(f.counter, nonce);
  if (s->aes) return s->sodium.aes_open(body, &n, NULL, body, sealed, at, SW_FRAME_HEADER, nonce, s->members[j].key);
  return s->sodium.chacha_open(body, &n, NULL, body, sealed, at, SW_FRAME_HEADER, nonce, s->members[j].key);
}

size_t sw_frame_bytes(const sw_carrier *s, int j) {
  const sw_member *m = &s->members[j];
  if (m->have < SW_FRAME_HEADER) return 0;
  const frame f = header_of(m->in);
  if (f.n_bytes > s->max_body) return SIZE_MAX;
  const size_t n = SW_FRAME_HEADER + (size_t)f.n_bytes + SW_FRAME_TAG;
  return m->have < n ? 0 : n;
}

/* --- how it ends */

static void copy_why(char *to, const char *why) {
  const size_t n = strnlen(why, SW_STAGE_WHY - 1);
  memcpy(to, why, n);
  memset(to + n, 0, SW_STAGE_WHY - n);
}

static void set_end(sw_carrier *s, int end, int guilty, const char *why) {
  if (atomic_load(&s->end) > SW_STAGE_REFUSED) return;
  s->guilty = guilty;
  copy_why(s->why, why);
  atomic_store(&s->end, end);
}

/* Tell the others that a step is refused; a frame that is half out goes on first. */
void sw_stage_note(sw_carrier *s, const sw_refusal *refusal) {
  uint8_t *at = s->notes[s->n_notes];
  const size_t n = strnlen(refusal->why, SW_STAGE_WHY - 1);
  s->n_notes = (s->n_notes + 1) % SW_STAGE_REFUSALS;
  memcpy(at + SW_FRAME_HEADER, refusal->why, n);
  const frame f = {.n_bytes = (uint32_t)n,
                   .kind = REFUSAL,
                   .to = TO_ALL,
                   .flags = (uint8_t)refusal->member,
                   .sequence = refusal->sequence};
  const size_t n_bytes = seal(s, at, f);
  for (int j = 0; j < s->n; j++)
    if (j != s->me && s->members[j].n_out < SW_STAGE_REFUSALS) {
      sw_queue(s, j, at, n_bytes);
      sw_send_queued(&s->members[j]);
    }
}

/* The stage is over: tell the others, once, who is to blame. Always -1. */
int sw_stage_fail(sw_carrier *s, int end, int guilty, const char *why) {
  if (atomic_load(&s->end) > SW_STAGE_REFUSED) return -1;
  set_end(s, end, guilty, why);
  if (!s->opened) return -1;
  sw_refusal r = {.sequence = SW_ALL_STEPS, .member = guilty};
  copy_why(r.why, why);
  sw_stage_note(s, &r);
  for (int j = 0; j < s->n; j++)
    if (j != s->me) shutdown(s->members[j].fd, SHUT_WR);
  return -1;
}

static int refuse_step(sw_carrier *s, const sw_refusal *r) {
  set_end(s, SW_STAGE_REFUSED, r->member, r->why);
  return -1;
}

/* A step that has not begun here; -1: there are too many. */
static int remember(sw_carrier *s, const sw_refusal *r) {
  if (s->n_refusals == SW_STAGE_REFUSALS) return -1;
  s->refusals[s->n_refusals++] = *r;
  return 0;
}

/* What this device itself refuses. */
static void refuse(sw_carrier *s, const sw_refusal *r) {
  if (r->sequence == SW_ALL_STEPS) {
    sw_stage_fail(s, SW_STAGE_TOLD, r->member, r->why);
    return;
  }
  if (!s->opened || atomic_load(&s->end) > SW_STAGE_REFUSED || r->sequence < s->sequence) return;
  for (int j = 0; j < s->n; j++)
    if (s->members[j].n_out >= SW_STAGE_REFUSALS) {
      sw_stage_fail(s, SW_STAGE_SILENT, j, "it takes nothing of what is sent");
      return;
    }
  sw_stage_note(s, r);
  if (r->sequence == s->sequence) refuse_step(s, r);
  else if (remember(s, r)) sw_stage_fail(s, SW_STAGE_TOLD, s->me, "it refused too many steps at once");
}

void sw_stage_hear(sw_carrier *s) {
  sw_refusal asked[SW_STAGE_REFUSALS];
  if (!atomic_load(&s->n_asked)) return;
  pthread_mutex_lock(&s->asking);
  const int n = s->n_asked;
  memcpy(asked, s->asked, (size_t)n * sizeof *asked);
  s->n_asked = 0;
  pthread_mutex_unlock(&s->asking);
  for (int i = 0; i < n; i++) refuse(s, &asked[i]);
}

static void ask(sw_carrier *s, const sw_refusal *refusal) {
  pthread_mutex_lock(&s->asking);
  if (s->n_asked < SW_STAGE_REFUSALS) s->asked[s->n_asked++] = *refusal;
  else s->asked[SW_STAGE_REFUSALS - 1].sequence = SW_ALL_STEPS; /* nobody refuses so many */
  pthread_mutex_unlock(&s->asking);
}

/* Let the lock go, and leave nothing behind that others asked for while it was held. */
static void leave(sw_carrier *s) {
  do {
    sw_stage_hear(s);
    pthread_mutex_unlock(&s->lock);
  } while (atomic_load(&s->n_asked) && !pthread_mutex_trylock(&s->lock));
}

/* Who waits in a meeting. After sw_stage_close there is nobody, and the number may be another file's. */
static void wake(sw_carrier *s) {
  const uint64_t one = 1;
  pthread_mutex_lock(&s->asking);
  if (s->event_fd >= 0 && write(s->event_fd, &one, sizeof one) < 0) {
  } /* it is full: it wakes as well */
  pthread_mutex_unlock(&s->asking);
}

void sw_stage_refuse(sw_carrier *s, const sw_refusal *refusal) {
  ask(s, refusal);
  if (!pthread_mutex_trylock(&s->lock)) leave(s);
  else wake(s);
}

/* --- what comes */

static int take_refusal(sw_carrier *s, int j, frame f) {
  sw_refusal r = {f.sequence, f.flags < s->n ? f.flags : j, {0}};
  const size_t n = f.n_bytes < SW_STAGE_WHY - 1 ? f.n_bytes : SW_STAGE_WHY - 1;
  memcpy(r.why, s->members[j].in + SW_FRAME_HEADER, n);
  if (f.sequence == SW_ALL_STEPS) return sw_stage_fail(s, SW_STAGE_TOLD, r.member, r.why);
  if (f.sequence < s->sequence) return 0;
  if (f.sequence == s->sequence) return refuse_step(s, &r);
  return remember(s, &r) ? sw_stage_fail(s, SW_STAGE_FORGED, j, "it refused too many steps at once") : 0;
}

/* Whether its place in the order is right. */
static int place_of(const sw_carrier *s, const sw_meeting *m, frame f) {
  if (f.sequence < s->sequence) return SW_DROPPED;           /* of a step that ended early */
  if (f.sequence > s->sequence || !m->kind) return SW_WAITS; /* this step was refused: we shall hear of it */
  if (f.half != s->half || f.kind != m->kind) return SW_OVER;
  return f.n_tokens == (uint32_t)m->n_tokens ? SW_TAKEN : SW_OVER;
}

static size_t first_token(const sw_carrier *s, int n_tokens, int j) {
  return (size_t)n_tokens * (size_t)j / (size_t)s->n;
}

typedef struct {
  size_t first, end;
} tokens;

/* The tokens that a frame of kind `kind` is about, when member `owner` adds them up. */
static tokens tokens_of(const sw_carrier *s, int kind, int n_tokens, int owner) {
  if (kind == SUMS) return (tokens){0, (size_t)n_tokens};
  return (tokens){first_token(s, n_tokens, owner), first_token(s, n_tokens, owner + 1)};
}

/* Sums of these tokens are nothing yet. */
static void clear_tokens(const sw_planes *p, tokens t) {
  const size_t at = t.first * p->hidden, n = (t.end - t.first) * p->hidden;
  memset(p->near + at, 0, n * sizeof *p->near);
  for (size_t i = t.first; i < t.end; i++) {
    if (p->wide[i]) memset(p->far + i * p->hidden, 0, p->hidden * sizeof *p->far);
    p->wide[i] = 0;
  }
}

static size_t encode_tokens(const sw_planes *p, tokens t, uint8_t *out) {
  uint8_t *at = out;
  for (size_t i = t.first; i < t.end; i++)
    at = sw_encode(p->near + i * p->hidden, p->far + i * p->hidden, p->wide + i, p->hidden, at);
  return (size_t)(at - out);
}

/* -1: the body is not of so many values. */
static int decode_tokens(const sw_planes *p, tokens t, const uint8_t *body, size_t n_bytes) {
  const uint8_t *const end = body + n_bytes;
  for (size_t i = t.first; i < t.end && body; i++)
    body = sw_decode(body, end, p->near + i * p->hidden, p->far + i * p->hidden, p->wide + i, p->hidden);
  return body == end ? 0 : -1;
}

static int take_body(sw_carrier *s, sw_meeting *m, int j, frame f) {
  if (m->kind == BYTES) return SW_KEPT;
  const tokens t = tokens_of(s, m->kind, m->n_tokens, m->kind == TOTAL ? j : s->me);
  if (f.flags & BROKEN) *m->broken = 1;
  if (m->kind == TOTAL) clear_tokens(m->sums, t);
  if (decode_tokens(m->sums, t, s->members[j].in + SW_FRAME_HEADER, f.n_bytes))
    return sw_stage_fail(s, SW_STAGE_FORGED, j, "its sums are not as many as they should be");
  return SW_TAKEN;
}

/* Sealed by member j, for us, and later than all before it. */
static int check_frame(sw_carrier *s, int j, frame f) {
  sw_member *member = &s->members[j];
  if (f.from != j || (f.to != TO_ALL && f.to != s->me))
    return sw_stage_fail(s, SW_STAGE_FORGED, j, "a frame of another member, or for another");
  if (f.counter <= member->counter) return sw_stage_fail(s, SW_STAGE_FORGED, j, "a frame came twice, or late");
  if (unseal(s, j, member->in, f)) return sw_stage_fail(s, SW_STAGE_FORGED, j, "a forged frame");
  member->counter = f.counter, member->unsealed = 1;
  return 0;
}

static int take(sw_carrier *s, sw_meeting *m, int j) {
  const frame f = header_of(s->members[j].in);
  if (!s->members[j].unsealed && check_frame(s, j, f)) return SW_OVER;
  if (f.kind == REFUSAL) return take_refusal(s, j, f);
  if (m->taken >> j & 1) return SW_WAITS;
  const int place = place_of(s, m, f);
  if (place == SW_OVER) return sw_stage_fail(s, SW_STAGE_FORGED, j, "a frame out of its order");
  return place == SW_TAKEN ? take_body(s, m, j, f) : place;
}

/* --- exchanges */

static uint32_t others(const sw_carrier *s) { return ((1u << s->n) - 1) & ~(1u << s->me); }

static void queue_to_others(sw_carrier *s, const uint8_t *at, size_t n_bytes) {
  for (int k = 1; k < s->n; k++) sw_queue(s, (s->me + k) % s->n, at, n_bytes);
}

/* The sums of these tokens as a frame at `at`; its length. */
static size_t put_tokens(sw_carrier *s, const sw_meeting *m, tokens t, int to, uint8_t *at) {
  const size_t n_bytes = encode_tokens(m->sums, t, at + SW_FRAME_HEADER);
  return seal(s, at,
              (frame){.n_bytes = (uint32_t)n_bytes,
                      .kind = (uint8_t)m->kind,
                      .to = (uint8_t)to,
                      .flags = *m->broken ? BROKEN : 0,
                      .half = s->half,
                      .n_tokens = (uint32_t)m->n_tokens});
}

/* Everybody to everybody. */
static int exchange_direct(sw_carrier *s, sw_meeting *m) {
  m->kind = SUMS;
  queue_to_others(s, s->out, put_tokens(s, m, tokens_of(s, SUMS, m->n_tokens, s->me), TO_ALL, s->out));
  return sw_meet(s, m);
}

/* Each member adds up a part of the tokens, then tells the others. */
static int exchange_parts(sw_carrier *s, sw_meeting *m) {
  uint8_t *at = s->out;
  m->kind = PART;
  for (int k = 1; k < s->n; k++) {
    const int j = (s->me + k) % s->n;
    const size_t n_bytes = put_tokens(s, m, tokens_of(s, PART, m->n_tokens, j), j, at);
    sw_queue(s, j, at, n_bytes);
    at += n_bytes;
  }
  if (sw_meet(s, m)) return -1;
  m->kind = TOTAL, m->taken = m->deaf = 0;
  queue_to_others(s, s->out, put_tokens(s, m, tokens_of(s, TOTAL, m->n_tokens, s->me), TO_ALL, s->out));
  return sw_meet(s, m);
}

/* Finish what a refused step left half out, and see what was asked for meanwhile. */
static int clear_way(sw_carrier *s) {
  sw_meeting nothing = {.from = others(s), .take = take};
  sw_stage_hear(s);
  if (!s->opened) set_end(s, SW_STAGE_UNOPENED, s->me, "not all members of the stage are connected yet");
  if (atomic_load(&s->end)) return -1;
  for (int j = 0; j < s->n; j++)
    if (s->members[j].n_out) return sw_meet(s, &nothing);
  return 0;
}

int sw_stage_exchange(sw_carrier *s, const sw_planes *sums, int n_tokens, int32_t *broken) {
  sw_meeting m = {.from = others(s), .take = take, .sums = sums, .n_tokens = n_tokens, .broken = broken};
  pthread_mutex_lock(&s->lock);
  int rc = clear_way(s);
  if (!rc) {
    rc = n_tokens < SW_STAGE_SCATTER ? exchange_direct(s, &m) : exchange_parts(s, &m);
    s->half++, s->counts.exchanges++;
  }
  leave(s);
  return rc;
}

int sw_stage_gather(sw_carrier *s, const uint8_t *data, size_t n_bytes) {
  pthread_mutex_lock(&s->lock);
  int rc = clear_way(s);
  if (!rc) {
    sw_meeting m = {.from = s->me ? 0 : others(s), .take = take, .kind = BYTES};
    if (s->me) {
      const frame f = {.n_bytes = (uint32_t)n_bytes, .kind = BYTES, .half = s->half};
      memcpy(s->out + SW_FRAME_HEADER, data, n_bytes);
      sw_queue(s, 0, s->out, seal(s, s->out, f));
    }
    rc = sw_meet(s, &m);
    s->half++;
  }
  leave(s);
  return rc;
}

sw_bytes sw_stage_gathered(const sw_carrier *s, int j) {
  const sw_member *m = &s->members[j];
  return (sw_bytes){m->in + SW_FRAME_HEADER, m->kept ? m->kept - SW_FRAME_HEADER - SW_FRAME_TAG : 0};
}

/* --- life */

void sw_stage_init(sw_carrier *s, const sw_sodium *sodium, int me, int n, int event_fd, int ceiling_ms) {
  memset(s, 0, sizeof *s);
  s->sodium = *sodium;
  s->me = me, s->n = n, s->event_fd = event_fd, s->ceiling_ms = ceiling_ms;
  for (int j = 0; j < n; j++) s->members[j].fd = -1;
  pthread_mutex_init(&s->lock, NULL);
  pthread_mutex_init(&s->asking, NULL);
}

void sw_stage_wipe(sw_carrier *s) {
  pthread_mutex_destroy(&s->lock);
  pthread_mutex_destroy(&s->asking);
  explicit_bzero(s->members, sizeof s->members);
}

/* A frame for each member, whose parts may begin new blocks. */
size_t sw_stage_capacity(size_t n_values, size_t n_bytes) {
  const size_t coded = sw_coded_max(n_values), most = coded > n_bytes ? coded : n_bytes;
  return most + SW_STAGE_MEMBERS * (SW_FRAME_HEADER + SW_FRAME_TAG + sw_coded_max(1)) + SW_FRAME_SLACK;
}

void sw_stage_place(sw_carrier *s, uint8_t *const *buffers, size_t n_values, size_t n_bytes) {
  pthread_mutex_lock(&s->lock);
  s->max_body = sw_stage_capacity(n_values, n_bytes) - SW_FRAME_HEADER - SW_FRAME_TAG - SW_FRAME_SLACK;
  s->capacity = s->max_body + SW_FRAME_HEADER + SW_FRAME_TAG;
  for (int j = 0; j < s->n; j++) {
    if (s->members[j].have) memcpy(buffers[j], s->members[j].in, s->members[j].have);
    s->members[j].in = buffers[j];
  }
  s->out = buffers[s->me];
  pthread_mutex_unlock(&s->lock);
}

void sw_stage_open(sw_carrier *s, const int *fds, const uint8_t *keys, int aes) {
  pthread_mutex_lock(&s->lock);
  for (int j = 0; j < s->n; j++) {
    s->members[j].fd = fds[j];
    if (aes) s->sodium.aes_prepare(s->members[j].key, keys + 32 * j);
    else memcpy(s->members[j].key, keys + 32 * j, 32);
  }
  s->aes = aes;
  s->opened = 1;
  if (atomic_load(&s->end) == SW_STAGE_UNOPENED) atomic_store(&s->end, SW_STAGE_LIVES);
  pthread_mutex_unlock(&s->lock);
}

void sw_stage_close(sw_carrier *s) {
  pthread_mutex_lock(&s->lock);
  pthread_mutex_lock(&s->asking);
  s->event_fd = -1;
  pthread_mutex_unlock(&s->asking);
  s->opened = 0;
  for (int j = 0; j < s->n; j++) s->members[j].fd = -1, s->members[j].n_out = 0;
  pthread_mutex_unlock(&s->lock);
}

void sw_stage_begin(sw_carrier *s, uint64_t sequence) {
  pthread_mutex_lock(&s->lock);
  s->sequence = sequence, s->half = 0;
  if (atomic_load(&s->end) == SW_STAGE_REFUSED) atomic_store(&s->end, SW_STAGE_LIVES);
  int n = 0;
  for (int i = 0; i < s->n_refusals; i++) {
    if (s->refusals[i].sequence == sequence) refuse_step(s, &s->refusals[i]);
    if (s->refusals[i].sequence > sequence) s->refusals[n++] = s->refusals[i];
  }
  s->n_refusals = n;
  pthread_mutex_unlock(&s->lock);
}
