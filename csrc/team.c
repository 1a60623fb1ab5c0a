/* A team of threads: shared counter of work items, and a barrier that spins briefly, then sleeps. */
#define _GNU_SOURCE
#include <sched.h>
#include "team.h"
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define SPIN 4000   /* about 20-50 us: longer than a phase of a small model, shorter than a time slice */

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");      /* yield is a no-op on Cortex-A; isb pauses for a few dozen cycles */
#endif
}

void sw_team_init(sw_team *team, int n_threads) {
  team->n_threads = n_threads;
  atomic_init(&team->next, 0);
  atomic_init(&team->arrived, 0);
  atomic_init(&team->generation, 0);
  atomic_init(&team->sleepers, 0);
}

static void release(sw_team *team, int generation) {
  atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
  atomic_store_explicit(&team->next, 0, memory_order_relaxed);
  atomic_store(&team->generation, generation + 1);
#ifdef __linux__
  if (atomic_load(&team->sleepers)) syscall(SYS_futex, &team->generation, FUTEX_WAKE_PRIVATE, 1 << 30, 0, 0, 0);
#endif
}

static void wait(sw_team *team, int generation) {
  for (int i = 0; i < SPIN; i++) {
    if (atomic_load_explicit(&team->generation, memory_order_acquire) != generation) return;
    relax();
  }
  atomic_fetch_add(&team->sleepers, 1);
  while (atomic_load(&team->generation) == generation) {
#ifdef __linux__
    syscall(SYS_futex, &team->generation, FUTEX_WAIT_PRIVATE, generation, 0, 0, 0);
#else
    sched_yield();
#endif
  }
  atomic_fetch_sub(&team->sleepers, 1);
}

void sw_barrier(sw_team *team) {
  if (team->n_threads == 1) {
    atomic_store_explicit(&team->next, 0, memory_order_relaxed);
    return;
  }
  const int generation = atomic_load_explicit(&team->generation, memory_order_relaxed);
  if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->n_threads - 1)
    release(team, generation);
  else
    wait(team, generation);
}
