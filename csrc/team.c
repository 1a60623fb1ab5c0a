/* A team of threads that share phases of work: see layer.h. */
#define _GNU_SOURCE
#include <sched.h>
#include "team.h"
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

#define POLL_NS 50000000
#define SPIN 2000 /* about 10-40 us: longer than most waits for a last item, much shorter than a time slice */

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb"); /* yield is a no-op on Cortex-A; isb pauses for a few dozen cycles */
#endif
}

void sw_team_init(sw_team *team, int n_threads) {
  team->n_threads = n_threads;
  atomic_init(&team->ticket, 0);
  atomic_init(&team->done, 0);
  atomic_init(&team->phase, 0);
  atomic_init(&team->sleepers, 0);
  team->poll = NULL;
}

void sw_next_phase(sw_step *s) {
  sw_team *team = s->team;
  atomic_store_explicit(&team->done, 0, memory_order_relaxed);
  atomic_store(&team->ticket, (uint64_t)(s->phase + 1) << 32);
  atomic_store(&team->phase, s->phase + 1);
#ifdef __linux__
  if (atomic_load(&team->sleepers)) syscall(SYS_futex, &team->phase, FUTEX_WAKE_PRIVATE, 1 << 30, 0, 0, 0);
#endif
}

static int is_over(const sw_step *s) { return atomic_load_explicit(&s->team->phase, memory_order_acquire) != s->phase; }

static void sleep_once(const sw_step *s) {
#ifdef __linux__
  const struct timespec interval = {0, POLL_NS};
  const int polls = s->thread == 0 && s->team->poll;
  syscall(SYS_futex, &s->team->phase, FUTEX_WAIT_PRIVATE, s->phase, polls ? &interval : NULL, 0, 0);
  if (polls && atomic_load(&s->team->phase) == s->phase) s->team->poll(s->team->poll_arg);
#else
  sched_yield();
#endif
}

/* Sleep early: a core that goes idle lets the system move the thread we wait for onto it. */
static void wait(sw_step *s) {
  for (int i = 0; i < SPIN; i++) {
    if (is_over(s)) return;
    relax();
  }
  atomic_fetch_add(&s->team->sleepers, 1);
  while (atomic_load(&s->team->phase) == s->phase) sleep_once(s);
  atomic_fetch_sub(&s->team->sleepers, 1);
}

void sw_join(sw_step *s) {
  if (!is_over(s)) wait(s);
  s->phase++;
}
