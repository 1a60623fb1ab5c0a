/* The sockets of a stage: frames out and in at the same time, so that two who send large ones never wait for each
 * other. Nobody waits for longer than the ceiling, and an eventfd wakes whoever waits when another thread asks for
 * something. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "stage.h"

#define MS_NS 1000000

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 * MS_NS + t.tv_nsec;
}

void sw_queue(sw_carrier *s, int j, const uint8_t *frame, size_t n_bytes) {
  sw_member *m = &s->members[j];
  m->out[m->n_out++] = (sw_bytes){frame, n_bytes};
  s->counts.sent_bytes += n_bytes;
}

int sw_send_queued(sw_member *m) {
  int moved = 0;
  while (m->n_out) {
    const ssize_t sent = send(m->fd, m->out[0].at, m->out[0].left, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? moved : -1;
    moved = 1;
    m->out[0].at += sent, m->out[0].left -= (size_t)sent;
    if (!m->out[0].left) memmove(m->out, m->out + 1, (size_t)--m->n_out * sizeof *m->out);
  }
  return moved;
}

static int lost(sw_carrier *s, int j, int error) {
  const int closed = !error || error == ECONNRESET || error == EPIPE;
  return sw_stage_fail(s, SW_STAGE_SHUT, j, closed ? "its connection was closed" : strerror(error));
}

static int push(sw_carrier *s, int j) {
  const int moved = sw_send_queued(&s->members[j]);
  return moved < 0 ? lost(s, j, errno) : moved;
}

/* 1 something came, 0 nothing, -1 the stage is over; a member that `may_go` may close its connection. */
static int pull(sw_carrier *s, int j, int may_go) {
  sw_member *m = &s->members[j];
  ssize_t got;
  if (m->have == s->capacity) return 0;
  do got = recv(m->fd, m->in + m->have, s->capacity - m->have, MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
  if (got <= 0) return may_go ? -1 : lost(s, j, got ? errno : 0);
  m->have += (size_t)got;
  return 1;
}

static void drop_first(sw_member *m, size_t n_bytes) {
  m->unsealed = 0, m->kept = 0;
  memmove(m->in, m->in + n_bytes, m->have -= n_bytes);
}

/* Whole frames of member j, up to one that is wanted, or waits, or ends it all; SW_DROPPED: not yet. */
static int take_frames(sw_carrier *s, sw_meeting *meeting, int j) {
  sw_member *m = &s->members[j];
  for (size_t n; (n = sw_frame_bytes(s, j));) {
    if (n == SIZE_MAX) return sw_stage_fail(s, SW_STAGE_FORGED, j, "a frame of a length that none has");
    const int taken = meeting->take(s, meeting, j);
    if (taken == SW_OVER || taken == SW_WAITS) return taken;
    if (taken == SW_KEPT) m->kept = n;
    else drop_first(m, n);
    if (taken != SW_DROPPED) return taken;
  }
  return SW_DROPPED;
}

static int sending(const sw_carrier *s) {
  for (int j = 0; j < s->n; j++)
    if (s->members[j].n_out) return 1;
  return 0;
}

static int first_missing(const sw_carrier *s, const sw_meeting *m) {
  for (int j = 0; j < s->n; j++)
    if ((m->from & ~m->taken) >> j & 1) return j;
  for (int j = 0; j < s->n; j++)
    if (s->members[j].n_out) return j;
  return s->me;
}

static void drain(int event_fd) {
  uint64_t count;
  while (read(event_fd, &count, sizeof count) < 0 && errno == EINTR) {
  }
}

static int misses(const sw_meeting *m) { return m->kind && m->from & ~m->taken; }

/* Once all is there nobody is heard: what comes then is about the time after this meeting. */
static uint32_t heard(const sw_meeting *m) { return misses(m) || !m->kind ? m->from & ~m->deaf : 0; }

/* Sleep until something moves; -1: it is over. */
static int sleep_until(sw_carrier *s, const sw_meeting *m, int64_t deadline) {
  struct pollfd fds[SW_STAGE_MEMBERS + 1];
  int n = 0;
  fds[n++] = (struct pollfd){s->event_fd, POLLIN, 0};
  for (int j = 0; j < s->n; j++) {
    const short events = (short)((heard(m) >> j & 1 ? POLLIN : 0) | (s->members[j].n_out ? POLLOUT : 0));
    if (events) fds[n++] = (struct pollfd){s->members[j].fd, events, 0};
  }
  const int64_t wait = deadline - now_ns();
  if (wait <= 0) return sw_stage_fail(s, SW_STAGE_SILENT, first_missing(s, m), "nothing came from it for too long");
  s->counts.sleeps++;
  if (poll(fds, (nfds_t)n, (int)(wait / MS_NS) + 1) < 0 && errno != EINTR)
    return sw_stage_fail(s, SW_STAGE_TOLD, s->me, strerror(errno));
  if (fds[0].revents) {
    drain(s->event_fd);
    sw_stage_hear(s);
  }
  return atomic_load(&s->end) ? -1 : 0;
}

static int take_from(sw_carrier *s, sw_meeting *m, int j) {
  const int taken = take_frames(s, m, j);
  if (taken == SW_OVER) return -1;
  if (taken == SW_TAKEN || taken == SW_KEPT) m->taken |= 1u << j;
  if (taken == SW_WAITS || taken == SW_KEPT) m->deaf |= 1u << j;
  return 0;
}

/* Who has given its frame is heard still, for it may refuse the step, or say who was lost; but it may also go. */
static int hear(sw_carrier *s, sw_meeting *m, int j) {
  const int is_taken = m->taken >> j & 1, pulled = pull(s, j, is_taken);
  if (pulled < 0 && is_taken) {
    m->deaf |= 1u << j;
    return 0;
  }
  return pulled > 0 && take_from(s, m, j) ? -1 : pulled;
}

/* One look at every socket: 1 something moved, 0 nothing did, -1 over. */
static int move(sw_carrier *s, sw_meeting *m) {
  int moved = 0;
  for (int j = 0; j < s->n; j++) {
    const int pushed = s->members[j].n_out ? push(s, j) : 0;
    const int pulled = pushed >= 0 && (heard(m) >> j & 1) ? hear(s, m, j) : 0;
    if (pushed < 0 || pulled < 0) return -1;
    moved |= pushed | pulled;
  }
  return moved;
}

/* Spin, then sleep; `quiet` is since when nothing moved. */
static int wait(sw_carrier *s, const sw_meeting *m, int64_t *quiet) {
  const int64_t time = now_ns();
  if (!*quiet) *quiet = time;
  if (time - *quiet < s->spin_ns) return 0;
  return sleep_until(s, m, *quiet + (int64_t)s->ceiling_ms * MS_NS);
}

int sw_meet(sw_carrier *s, sw_meeting *m) {
  int64_t began = 0, quiet = 0;
  for (int j = 0; j < s->n; j++) { /* what came with the frame before */
    if (s->members[j].kept) drop_first(&s->members[j], s->members[j].kept);
    if (m->from >> j & 1 && take_from(s, m, j)) return -1;
  }
  while (misses(m) || sending(s)) {
    const int moved = move(s, m);
    if (moved < 0) return -1;
    if (moved) quiet = 0;
    else if (wait(s, m, &quiet)) return -1;
    if (!began) began = quiet;
  }
  if (began) s->counts.waited_ns += (uint64_t)(now_ns() - began);
  return 0;
}
