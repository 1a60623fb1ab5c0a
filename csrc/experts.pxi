# Experts that are read from disk when they are needed: checks, memory and errors around experts.c and readers.c.

from cpython.exc cimport PyErr_CheckSignals

cdef extern from "experts.h" nogil:
    ctypedef struct sw_residents:
        int n_layers, n_experts, n_slots
        int32_t *slot_of
        int32_t *key_of
        int64_t *visit_of
        double *fast
        double *slow
        int64_t *used_at
        double *ranks
        const double *fade_fast
        const double *fade_slow
        int64_t visit, first_token
        int n_tokens, n_rows, layer
    ctypedef struct sw_expert_file:
        int fd, cached
        int64_t first, bytes
        const uint32_t *sums
    ctypedef struct sw_piece:
        int32_t slot
    ctypedef struct sw_experts:
        sw_residents *residents
        const sw_expert_file *files
        uint8_t *arena
        size_t slot_bytes, piece_bytes
        void *pieces_left
        int32_t *order[2]
        sw_piece *queue
        uint32_t capacity
        int failed_key, failed, n_readers
        void *readers
        void (*poll)(void *) noexcept
        void *poll_arg
        uint64_t hits, misses, n_bytes, wait_ns
    int SW_FADES, SW_EXPERTS_SHORT, SW_EXPERTS_DAMAGED, SW_EXPERTS_CANCELLED
    void sw_residents_enter(sw_residents *, int, int)
    void sw_residents_part(sw_residents *, int, int)
    void sw_residents_count(sw_residents *, int)
    void sw_residents_use(sw_residents *, int, int)
    void sw_residents_visit(sw_residents *)
    int sw_residents_find(sw_residents *, int)
    int sw_residents_claim(sw_residents *, int, int, int, int *)
    int sw_experts_start(sw_experts *)
    void sw_experts_stop(sw_experts *)
    int sw_experts_fetch(sw_experts *, int, int)
    void sw_experts_pause(sw_experts *, int)
    void sw_experts_fail(sw_experts *, int, int)
    void sw_experts_recover(sw_experts *)
    void sw_experts_resize(sw_experts *, int)
    uint32_t sw_crc32c(const uint8_t *, size_t)
    uint32_t sw_crc32c_by_tables(const uint8_t *, size_t)


FADES = SW_FADES  # tokens after which a use is forgotten
HIT, FREE = -2, -1  # what `Residents.replay` tells instead of the key that had to go


def crc32c(const uint8_t[::1] data not None, bint by_tables=False):
    """CRC32C of some bytes; `by_tables` as on a CPU without the instruction, which is slower."""
    if not data.shape[0]:
        return 0
    return sw_crc32c_by_tables(&data[0], data.shape[0]) if by_tables else sw_crc32c(&data[0], data.shape[0])


cdef class Residents:
    """Which of the experts of some layers have one of `n_slots` slots, and who goes when another needs one.

    fade_fast, fade_slow: float64 (FADES,), what so many tokens leave of a use, from 1 down.
    """

    cdef sw_residents r
    cdef dict arrays

    def __init__(self, int n_layers, int n_experts, int n_slots, fade_fast, fade_slow):
        cdef size_t keys = <size_t>n_layers * n_experts
        if n_layers < 1 or n_experts < 1 or n_slots < 1:
            raise ValueError(f"{n_slots} slots for {n_experts} experts of {n_layers} layers")
        cdef int32_t[::1] slot_of = np.full(keys, -1, np.int32), key_of = np.full(n_slots, -1, np.int32)
        cdef int64_t[::1] visit_of = np.zeros(n_slots, np.int64), used_at = np.zeros(keys, np.int64)
        cdef double[::1] fast = np.zeros(keys), slow = np.zeros(keys), ranks = np.zeros(n_experts)
        cdef const double[::1] fades_fast = np.ascontiguousarray(fade_fast, np.float64)
        cdef const double[::1] fades_slow = np.ascontiguousarray(fade_slow, np.float64)
        if fades_fast.shape[0] != SW_FADES or fades_slow.shape[0] != SW_FADES:
            raise ValueError(f"a table of fading has {SW_FADES} values")
        self.arrays = {"slot_of": slot_of, "key_of": key_of, "visit_of": visit_of, "used_at": used_at, "fast": fast,
                       "slow": slow, "ranks": ranks, "fade_fast": fades_fast, "fade_slow": fades_slow}
        r = &self.r
        r.n_layers, r.n_experts, r.n_slots, r.layer, r.visit = n_layers, n_experts, n_slots, n_layers, 2
        r.slot_of, r.key_of, r.visit_of, r.used_at = &slot_of[0], &key_of[0], &visit_of[0], &used_at[0]
        r.ranks = &ranks[0]
        r.fast, r.slow, r.fade_fast, r.fade_slow = &fast[0], &slow[0], &fades_fast[0], &fades_slow[0]

    def replay(self, const int32_t[:, :, ::1] trace not None):
        """Use experts as `trace` (tokens, layers, top_k) says, token by token: what each use did, int32 of its shape.

        HIT: the expert was there. FREE: it went into a free slot. Otherwise the key (layer * n_experts + expert) that
        had to go.
        """
        r = &self.r
        cdef int t, layer, j, top_k = <int>trace.shape[2], evicted
        if trace.shape[1] != r.n_layers or top_k > r.n_slots:
            raise ValueError(f"a trace of {trace.shape[1]} layers and {top_k} experts a token")
        if np.min(trace) < 0 or np.max(trace) >= r.n_experts:
            raise ValueError("a trace with numbers that no expert has")
        cdef int32_t[:, :, ::1] out = np.empty((trace.shape[0], trace.shape[1], top_k), np.int32)
        for t in range(<int>trace.shape[0]):
            for layer in range(r.n_layers):
                sw_residents_enter(r, layer, 1)
                sw_residents_visit(r)
                for j in range(top_k):
                    sw_residents_count(r, trace[t, layer, j])
                for j in range(top_k):
                    sw_residents_use(r, trace[t, layer, j], 0)
                for j in range(top_k):
                    out[t, layer, j] = HIT if sw_residents_find(r, trace[t, layer, j]) >= 0 else FREE
                for j in range(top_k):
                    if out[t, layer, j] == FREE:
                        sw_residents_claim(r, trace[t, layer, j], 1, r.n_experts, &evicted)
                        out[t, layer, j] = evicted
        return np.asarray(out)

    def part(self, int before, bint more):
        """The next visits are of rows that follow `before` others of a step that goes through its rows layer by layer;
        more: others follow in the same layer. before -1: steps take all of their rows through all layers again.
        """
        sw_residents_part(&self.r, before, more)

    def scores(self):
        """How often each expert is used, as of its last use: float64 (2, layers, experts), fast and slow."""
        shape = self.r.n_layers, self.r.n_experts
        return np.stack([np.asarray(self.arrays[name]).reshape(shape) for name in ("fast", "slow")])

    def set_scores(self, scores):
        """Begin with what another run has learnt."""
        shape = self.r.n_layers, self.r.n_experts
        for name, values in zip(("fast", "slow"), np.asarray(scores, np.float64), strict=True):
            np.asarray(self.arrays[name])[:] = values.reshape(shape).reshape(-1)

    def ranks(self):
        """Uses, each by itself, by how many experts of its layer were used more until then: float64 (experts,)."""
        return np.array(self.arrays["ranks"])

    def set_ranks(self, ranks):
        """Begin with what another run has counted."""
        np.asarray(self.arrays["ranks"])[:] = ranks

    def resident(self):
        """Which experts have a slot: bool (layers, experts)."""
        return (np.asarray(self.arrays["slot_of"]) >= 0).reshape(self.r.n_layers, self.r.n_experts)


cdef class ExpertCache:
    """Experts of some layers in `n_slots` slots of `arena`; those that are needed and absent are read from files.

    files: (fd, through_page_cache, first, n_bytes, sums) of each layer: where its expert 0 begins, the bytes of each
    expert (multiples of 4096 where the page cache is left out), and uint32 (n_experts, pieces) CRC32C of each piece of
    `piece_bytes`. The files stay open as long as the cache; `close` ends its threads. Steps of one engine at a time.
    """

    cdef sw_experts *c
    cdef void *memory
    cdef readonly Residents residents
    cdef list owners
    cdef object error
    cdef bint is_open
    cdef int most_slots
    cdef public bint begun  # a step runs, or has run

    def __init__(self, Residents residents not None, files, uint8_t[::1] arena not None, size_t slot_bytes,
                 size_t piece_bytes, int n_readers):
        r = &residents.r
        cdef int i
        if len(files) != r.n_layers or not 1 <= n_readers <= 64 or not piece_bytes or not slot_bytes:
            raise ValueError(f"{len(files)} files for {r.n_layers} layers, {n_readers} readers")
        if <size_t>arena.shape[0] < slot_bytes * r.n_slots or <uintptr_t>&arena[0] % 4096:
            raise ValueError(f"an arena of {arena.shape[0]} bytes for {r.n_slots} slots of {slot_bytes}")
        self.memory = calloc(1, sizeof(sw_experts) + 64)
        if self.memory == NULL:
            raise MemoryError()
        self.c = <sw_experts *>((<uintptr_t>self.memory + 63) // 64 * 64)
        c = self.c
        self.residents, self.owners, self.most_slots = residents, [arena], r.n_slots
        c.residents, c.arena, c.slot_bytes = r, &arena[0], slot_bytes
        c.piece_bytes, c.n_readers = piece_bytes, n_readers
        c.files = self._files(files)
        c.pieces_left = self._zeros(r.n_slots * sizeof(int32_t))
        for i in range(2):
            c.order[i] = <int32_t *>self._zeros(r.n_experts * sizeof(int32_t))
        # No more is ever under way than fills all slots.
        c.capacity = r.n_slots * <int>((slot_bytes + piece_bytes - 1) // piece_bytes)
        c.queue = <sw_piece *>self._zeros(c.capacity * sizeof(sw_piece))
        c.readers = self._zeros(n_readers * sizeof(uintptr_t))
        c.poll, c.poll_arg = hear_signals, <void *>self
        error = sw_experts_start(c)
        if error:
            raise OSError(error, "no threads to read experts with")
        self.is_open = True

    cdef void *_zeros(self, size_t n_bytes) except NULL:
        cdef uint8_t[::1] memory = np.zeros(n_bytes + 64, np.uint8)
        self.owners.append(memory)
        return <void *>((<uintptr_t>&memory[0] + 63) // 64 * 64)

    cdef const sw_expert_file *_files(self, files) except NULL:
        cdef const uint32_t[:, ::1] table
        cdef size_t pieces
        found = <sw_expert_file *>self._zeros(len(files) * sizeof(sw_expert_file))
        for i, (fd, cached, first, n_bytes, sums) in enumerate(files):
            pieces = (n_bytes + self.c.piece_bytes - 1) // self.c.piece_bytes
            table = np.ascontiguousarray(sums, np.uint32)
            if not 0 < n_bytes <= self.c.slot_bytes or table.shape[0] != self.residents.r.n_experts \
                    or <size_t>table.shape[1] != pieces:
                raise ValueError(f"experts of {n_bytes} bytes with {(table.shape[0], table.shape[1])} checksums")
            self.owners.append(table)
            found[i] = sw_expert_file(fd, cached, first, n_bytes, &table[0, 0])
        return found

    def __dealloc__(self):
        self.close()
        free(self.memory)

    def close(self):
        """End the threads that read. A step afterwards waits for ever for what is absent: make none."""
        if self.is_open:
            self.is_open = False
            with nogil:
                sw_experts_stop(self.c)

    def resize(self, int n_slots):
        """Between steps, on the thread that makes them: go on with so many slots, the first ones of the arena.

        At most as many as in the beginning. Of fewer, those experts stay whose next use is expected first.
        """
        if not 0 < n_slots <= self.most_slots:
            raise ValueError(f"{n_slots} slots of {self.most_slots}")
        if self.is_open:
            with nogil:
                sw_experts_resize(self.c, n_slots)

    def pause(self, bint paused):
        """Begin no more reads, or go on: a disk that stands still, for tests."""
        sw_experts_pause(self.c, paused)

    def cancel(self):
        """From any thread: the step that runs ends at once, with InterruptedError."""
        sw_experts_fail(self.c, SW_EXPERTS_CANCELLED, 0)

    def fetch(self, int layer, int expert):
        """Read an expert ahead of its use into a free slot; False when it is there or on its way, or nothing is free.

        Before the first step only, and False afterwards: no thread of Python comes between this test and the reading.
        """
        if not 0 <= layer < self.residents.r.n_layers or not 0 <= expert < self.residents.r.n_experts:
            raise IndexError((layer, expert))
        return self.is_open and not self.begun and bool(sw_experts_fetch(self.c, layer, expert))

    @property
    def n_filling(self):
        """Slots whose bytes are still to come."""
        cdef int slot, filling = 0
        for slot in range(self.residents.r.n_slots):
            filling += (<int32_t *>self.c.pieces_left)[slot] != 0
        return filling

    def counters(self):
        """Since the beginning: hits and misses of experts, bytes read, seconds that threads waited (all together)."""
        return self.c.hits, self.c.misses, self.c.n_bytes, self.c.wait_ns * 1e-9

    cdef int check(self) except -1:
        """After a step: raise what ended it."""
        cdef int failed = self.c.failed
        if not failed:
            return 0
        key = divmod(self.c.failed_key, self.residents.r.n_experts)
        with nogil:
            sw_experts_recover(self.c)
        error, self.error = self.error, None
        if error is not None:
            raise error
        if failed == SW_EXPERTS_CANCELLED:
            raise InterruptedError("the step was cancelled while it waited for experts")
        raise ExpertUnreadable(*key, READ_ERRORS.get(failed) or os.strerror(failed))


READ_ERRORS = {SW_EXPERTS_SHORT: "the file ends too early", SW_EXPERTS_DAMAGED: "its bytes differ from their checksum"}


cdef void hear_signals(void *cache) noexcept with gil:
    """Thread 0 is the one that called the step: where it is Python's main thread, it is the one that hears Ctrl-C."""
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        (<ExpertCache>cache).error = error
        (<ExpertCache>cache).cancel()
