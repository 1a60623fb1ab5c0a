# The exchange of a stage, from Python: what members of a stage do between the halves of a layer (csrc/stage.h).

from swarm.errors import StageLost
from swarm.plain import one_line

cdef extern from "stage.h":
    enum:
        SW_STAGE_MEMBERS
        SW_STAGE_REFUSED
        SW_STAGE_WHY
        SW_FRAME_SLACK
    uint64_t SW_ALL_STEPS
    ctypedef struct sw_sodium:
        int (*aes_prepare)(void *, const uint8_t *) noexcept
    ctypedef struct sw_bytes:
        const uint8_t *at
        size_t left
    ctypedef struct sw_refusal:
        uint64_t sequence
        int member
        char why[SW_STAGE_WHY]
    ctypedef struct sw_stage_counts:
        uint64_t exchanges, waited_ns, sent_bytes, sleeps
    ctypedef struct sw_carrier:
        int me, n, aes, event_fd, ceiling_ms, opened, guilty, end
        int64_t spin_ns
        uint64_t sequence
        char why[SW_STAGE_WHY]
        sw_stage_counts counts
    size_t sw_coded_max(size_t)
    ctypedef struct sw_planes:
        int32_t *near
        int64_t *far
        int32_t *wide
        size_t hidden
    uint8_t *sw_encode(int32_t *, int64_t *, int32_t *, size_t, uint8_t *) nogil
    const uint8_t *sw_decode(const uint8_t *, const uint8_t *, int32_t *, int64_t *, int32_t *, size_t) nogil
    void sw_stage_init(sw_carrier *, const sw_sodium *, int, int, int, int)
    void sw_stage_wipe(sw_carrier *) nogil
    void sw_stage_open(sw_carrier *, const int *, const uint8_t *, int) nogil
    void sw_stage_close(sw_carrier *) nogil
    size_t sw_stage_capacity(size_t, size_t)
    void sw_stage_place(sw_carrier *, uint8_t *const *, size_t, size_t) nogil
    int sw_stage_exchange(sw_carrier *, const sw_planes *, int, int32_t *) noexcept nogil
    int sw_stage_gather(sw_carrier *, const uint8_t *, size_t) nogil
    sw_bytes sw_stage_gathered(const sw_carrier *, int)
    void sw_stage_refuse(sw_carrier *, const sw_refusal *) nogil

cdef extern from "exchange.h":
    ctypedef struct sw_stage:
        int rc
    ctypedef struct sw_exchanger:
        sw_stage stage
    void sw_exchanger_init(sw_exchanger *, sw_carrier *)
    void sw_exchanger_begin(sw_exchanger *, uint64_t) nogil

SODIUM_FUNCTIONS = [
    "chacha20poly1305_ietf_encrypt", "chacha20poly1305_ietf_decrypt", "aes256gcm_beforenm",
    "aes256gcm_encrypt_afternm", "aes256gcm_decrypt_afternm",
]  # fmt: skip
STAGE_KEY_BYTES = 32
MAX_STAGE_MEMBERS = SW_STAGE_MEMBERS


def encode_sums(int32_t[::1] near not None, int64_t[::1] far not None, bint wide):
    """near + far (one token) as they travel between the members of a stage: bytes that say each sum exactly.

    `far` is not read unless `wide`. What may not be added to within 32 bits moves from near to far: True in the second
    place when there is something in far now.
    """
    cdef size_t n = near.shape[0]
    cdef int32_t flag = wide
    cdef uint8_t[::1] out = np.empty(sw_coded_max(n) + SW_FRAME_SLACK, np.uint8)
    cdef uint8_t *end = sw_encode(&near[0], &far[0], &flag, n, &out[0])
    return bytes(out[:end - &out[0]]), flag != 0


def add_sums(const uint8_t[::1] body not None, int32_t[::1] near not None, int64_t[::1] far not None):
    """near + far += what encode_sums gave; True when something went to far.

    ValueError when the bytes are not as many integers.
    """
    cdef uint8_t[::1] padded = np.zeros(body.shape[0] + SW_FRAME_SLACK, np.uint8)
    cdef int32_t wide = 0
    padded[:body.shape[0]] = body
    cdef const uint8_t *end = &padded[0] + body.shape[0]
    if sw_decode(&padded[0], end, &near[0], &far[0], &wide, near.shape[0]) != end:
        raise ValueError(f"bytes that are not {near.shape[0]} integers")
    return wide != 0


cdef class Stage:
    """This device's place in a stage: with `open` it is connected to the other members.

    An `Engine` that is told of it exchanges after each half of a layer. Every method may be called from any thread, but
    begin, exchange and gather by one at a time.
    """

    cdef sw_carrier *s
    cdef sw_exchanger exchanger
    cdef void *memory
    cdef list buffers, connections
    cdef size_t n_values, n_bytes
    cdef object name

    def __init__(self, int me, int n, functions, int event_fd, *, int ceiling_ms, name=str, int spin_us=0):
        """The addresses of libsodium's SODIUM_FUNCTIONS (0 for those of AES where this CPU lacks them). `event_fd` is
        an eventfd that belongs to the stage; `name` says of a member's number how people call it.
        """
        cdef sw_sodium sodium
        cdef uintptr_t *slots = <uintptr_t *>&sodium
        if not 2 <= n <= SW_STAGE_MEMBERS or not 0 <= me < n:
            raise ValueError(f"member {me} of {n}: a stage has 2 to {SW_STAGE_MEMBERS}")
        if len(functions) != len(SODIUM_FUNCTIONS) or not all(functions[:2]):
            raise ValueError("not all functions of libsodium are there")
        for i, address in enumerate(functions):
            slots[i] = address
        self.memory = calloc(1, sizeof(sw_carrier) + 64)
        if self.memory == NULL:
            raise MemoryError()
        self.s = <sw_carrier *>((<uintptr_t>self.memory + 63) // 64 * 64)
        sw_stage_init(self.s, &sodium, me, n, event_fd, ceiling_ms)
        sw_exchanger_init(&self.exchanger, self.s)
        self.s.spin_ns = <int64_t>spin_us * 1000
        self.buffers, self.connections, self.name = [], [], name
        self.reserve(1, 1)

    def __dealloc__(self):
        if self.memory != NULL:
            sw_stage_wipe(self.s)
            free(self.memory)

    @property
    def n_members(self):
        return self.s.n

    @property
    def me(self):
        return self.s.me

    @property
    def sealed_with(self):
        """The cipher of its frames, "" before it is open."""
        return "" if not self.s.opened else "AES-256-GCM" if self.s.aes else "ChaCha20-Poly1305"

    def reserve(self, size_t n_values, size_t n_bytes):
        """Make room for exchanges of so many values, and for as many bytes that a member gives at a time."""
        cdef uint8_t *places[SW_STAGE_MEMBERS]
        cdef uint8_t[::1] buffer
        cdef int j
        if n_values <= self.n_values and n_bytes <= self.n_bytes:
            return
        self.n_values, self.n_bytes = max(n_values, self.n_values), max(n_bytes, self.n_bytes)
        buffers = []
        for j in range(self.s.n):
            buffer = np.empty(sw_stage_capacity(self.n_values, self.n_bytes), np.uint8)
            buffers.append(buffer)
            places[j] = &buffer[0]
        sw_stage_place(self.s, places, self.n_values, self.n_bytes)
        self.buffers.append(buffers)  # what is on its way from older ones goes on

    def open(self, connections, keys, bint aes):
        """Everybody is connected: the sockets of all members, None for this one, and the keys that each sends with."""
        cdef int fds[SW_STAGE_MEMBERS]
        cdef const uint8_t[::1] joined = b"".join(keys)
        cdef int j
        if len(connections) != self.s.n or joined.shape[0] != self.s.n * STAGE_KEY_BYTES:
            raise ValueError("a connection and a key for each member")
        for j, connection in enumerate(connections):
            fds[j] = -1 if connection is None else connection.fileno()
        self.connections = list(connections)
        with nogil:
            sw_stage_open(self.s, fds, &joined[0], aes)

    def begin(self, uint64_t sequence):
        """The next step; sequences grow."""
        if sequence <= self.s.sequence:
            raise ValueError(f"step {sequence} after step {self.s.sequence}")
        with nogil:
            sw_exchanger_begin(&self.exchanger, sequence)

    def exchange(self, int32_t[:, ::1] near not None, int64_t[:, ::1] far not None, int32_t[::1] wide not None,
                 bint broken=False):
        """near + far (tokens, hidden) become the sums of all members; True when any said that its own are broken.

        `far` of a token counts where `wide`, which is set for what goes there.
        """
        cdef int32_t flag = broken
        cdef int rc, n = near.shape[0]
        cdef sw_planes sums
        if n < 1 or near.shape[1] < 1 or far.shape[0] != n or far.shape[1] != near.shape[1] or wide.shape[0] != n:
            raise ValueError("near and far of as many tokens")
        if <size_t>n * near.shape[1] > self.n_values:
            raise ValueError(f"({n}, {near.shape[1]}) values, where {self.n_values} have room")
        sums = sw_planes(&near[0, 0], &far[0, 0], &wide[0], near.shape[1])
        with nogil:
            rc = sw_stage_exchange(self.s, &sums, n, &flag)
        if rc:
            self.raise_end()
        return flag != 0

    def gather(self, const uint8_t[::1] data not None):
        """After a step: the leader gets the bytes of all members, in their order; the others get None."""
        cdef int rc
        cdef size_t n_bytes = data.shape[0]
        cdef const uint8_t *at = &data[0] if n_bytes else NULL
        cdef sw_bytes given
        if n_bytes > self.n_bytes:
            raise ValueError(f"{n_bytes} bytes, where {self.n_bytes} have room")
        with nogil:
            rc = sw_stage_gather(self.s, at, n_bytes)
        if rc:
            self.raise_end()
        if self.s.me:
            return None
        found = [bytes(data)]
        for j in range(1, self.s.n):
            given = sw_stage_gathered(self.s, j)
            found.append(bytes(<const uint8_t[:given.left]>given.at) if given.left else b"")
        return found

    def refuse(self, sequence, str why, int member=-1):
        """Step `sequence`, or with None the stage, is over for all members; `member` is to blame, else this device."""
        cdef sw_refusal r
        cdef bytes text = why.encode()[:SW_STAGE_WHY - 1]
        memset(&r, 0, sizeof(r))
        r.sequence = SW_ALL_STEPS if sequence is None else sequence
        r.member = member if member >= 0 else self.s.me
        memcpy(r.why, <const char *>text, len(text))
        with nogil:
            sw_stage_refuse(self.s, &r)

    def close(self, str why):
        """The stage is over for all members; on return its sockets are not used any more."""
        self.refuse(None, why)
        with nogil:
            sw_stage_close(self.s)
        self.connections = []

    @property
    def is_over(self):
        """True when no step can use it any more."""
        return self.s.end > SW_STAGE_REFUSED

    def raise_end(self):
        """Raise StageLost: why the last step, or the stage, is over."""
        why = bytes(<const uint8_t[:SW_STAGE_WHY]><const uint8_t *>self.s.why).split(b"\0")[0].decode(errors="replace")
        raise StageLost(self.s.guilty, self.name(self.s.guilty), one_line(why), stage_over=self.is_over)

    def counters(self):
        """Exchanges so far, seconds in which one waited, bytes sent, and how often it slept."""
        cdef sw_stage_counts c = self.s.counts
        return c.exchanges, c.waited_ns / 1e9, c.sent_bytes, c.sleeps
