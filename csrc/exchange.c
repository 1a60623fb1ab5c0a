/* Between the halves of a layer: the sums of all members of a stage. */
#include "exchange.h"
#include "team.h"

/* Every thread of the team, the same phases also when it fails: see sw_stage. One of them meets the other members. */
static void exchange(sw_stage *stage, sw_step *s) {
  const sw_exchanger *e = (const sw_exchanger *)stage;
  const sw_planes sums = {s->ws->near, s->ws->far, s->ws->wide, (size_t)s->dims->hidden};
  SW_SHARE(s, once, 1) {
    if (!atomic_load(&stage->rc) && sw_stage_exchange(e->carrier, &sums, s->n_tokens, &s->ws->broken))
      atomic_store(&stage->rc, 1);
  }
  sw_join(s);
}

void sw_exchanger_init(sw_exchanger *e, sw_carrier *carrier) {
  e->stage.exchange = exchange;
  atomic_init(&e->stage.rc, 0);
  e->carrier = carrier;
}

void sw_exchanger_begin(sw_exchanger *e, uint64_t sequence) {
  atomic_store(&e->stage.rc, 0);
  sw_stage_begin(e->carrier, sequence);
}
