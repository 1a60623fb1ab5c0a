/* Which experts stay in memory: each has two decayed frequencies of use, and whose next use is expected last goes. */
#include "experts.h"

#define RAREST 1e-6 /* a probability of use that is below it counts as this */

static void begin_step(sw_residents *r) {
  r->first_token += r->n_tokens;
  r->n_tokens = 0;
}

void sw_residents_part(sw_residents *r, int before, int more) {
  const int is_long = before >= 0;
  if (is_long && !r->is_long) begin_step(r);
  r->is_long = is_long, r->before = before, r->more = is_long && more;
}

void sw_residents_enter(sw_residents *r, int layer, int n_tokens) {
  if (!r->is_long && layer <= r->layer) begin_step(r);
  r->layer = layer;
  r->n_rows = n_tokens;
  if (r->is_long) {
    r->n_tokens = r->before + n_tokens;
    return;
  }
  if (n_tokens > r->n_tokens) r->n_tokens = n_tokens; /* a last layer goes on with the rows that are wanted */
}

static int64_t last_token(const sw_residents *r) { return r->first_token + r->n_tokens - 1; }

/* A use of a layer that is through with more rows of a long step than this one counts as one of now. */
static double faded(double value, const double *fade, int64_t age) {
  return age < SW_FADES ? value * fade[age > 0 ? age : 0] : 0.0;
}

/* How often an expert was used, as of this step's last token. */
static double rate(const sw_residents *r, int key) {
  const int64_t age = last_token(r) - r->used_at[key];
  return faded(r->fast[key], r->fade_fast, age) + faded(r->slow[key], r->fade_slow, age);
}

void sw_residents_count(sw_residents *r, int expert) {
  const int first = r->layer * r->n_experts;
  const double own = rate(r, first + expert);
  int rank = 0;
  for (int e = 0; e < r->n_experts; e++) rank += rate(r, first + e) > own;
  r->ranks[rank] += 1.0;
}

void sw_residents_use(sw_residents *r, int expert, int i) {
  const int key = r->layer * r->n_experts + expert;
  const int64_t now = r->first_token + r->n_tokens - r->n_rows + i, age = now - r->used_at[key];
  r->fast[key] = faded(r->fast[key], r->fade_fast, age) + (1.0 - r->fade_fast[1]);
  r->slow[key] = faded(r->slow[key], r->fade_slow, age) + (1.0 - r->fade_slow[1]);
  r->used_at[key] = now;
}

void sw_residents_visit(sw_residents *r) { r->visit++; }

int sw_residents_find(sw_residents *r, int expert) {
  const int slot = r->slot_of[r->layer * r->n_experts + expert];
  if (slot >= 0) r->visit_of[slot] = r->visit;
  return slot;
}

/* Layers that pass, it is expected, until a key is used again: those until its layer comes, and a whole round of them
 * for each token that does without it. Further rows of a layer come to its experts in ascending order, too. */
static double next_use(const sw_residents *r, int key, int reach) {
  const int layer = key / r->n_experts, expert = key % r->n_experts;
  if (layer == r->layer && expert >= reach) return 0.0;
  if (layer == r->layer && r->more) return (1.0 + expert) / (1.0 + r->n_experts);
  const int ahead = layer > r->layer ? layer - r->layer : layer - r->layer + r->n_layers;
  const double p = 0.5 * rate(r, key);
  return ahead + r->n_layers * (1.0 / (p > RAREST ? p : RAREST) - 1.0);
}

static int victim(const sw_residents *r, int pinned_visits, int reach) {
  int found = -1, found_key = 0;
  double latest = -1.0;
  for (int slot = 0; slot < r->n_slots; slot++) {
    const int key = r->key_of[slot];
    if (key < 0) return slot;
    if (r->visit_of[slot] + pinned_visits > r->visit) continue;
    const double when = next_use(r, key, reach);
    if (when > latest || (when == latest && key < found_key)) latest = when, found = slot, found_key = key;
  }
  return found;
}

int sw_residents_place_for(const sw_residents *r, int from, int n_slots) {
  double latest = next_use(r, r->key_of[from], r->n_experts);
  int found = -1;
  for (int slot = 0; slot < n_slots; slot++) {
    if (r->key_of[slot] < 0) return slot;
    const double when = next_use(r, r->key_of[slot], r->n_experts);
    if (when > latest) latest = when, found = slot;
  }
  return found;
}

int sw_residents_claim(sw_residents *r, int expert, int pinned_visits, int reach, int *evicted) {
  const int slot = victim(r, pinned_visits, reach), key = r->layer * r->n_experts + expert;
  *evicted = -1;
  if (slot < 0) return -1;
  if (r->key_of[slot] >= 0) {
    *evicted = r->key_of[slot];
    r->slot_of[*evicted] = -1;
  }
  r->key_of[slot] = key;
  r->slot_of[key] = slot;
  r->visit_of[slot] = r->visit;
  return slot;
}
