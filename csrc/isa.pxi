# What this CPU can run: kernel tables, teams of threads, memory bandwidth.

cdef extern from "sw.h" nogil:
    ctypedef struct sw_mat:
        const uint8_t *data
        int32_t type, rows, cols, tile_cols, streams, ahead
    ctypedef struct sw_act:
        const float *f
        int8_t *q
        float *scale
        int16_t *sum
        ptrdiff_t f_stride, q_stride, s_stride
        int32_t n_tokens, cols
    ctypedef void (*sw_matmul_fn)(const sw_mat *, const sw_act *, int, int, int, int, float *, ptrdiff_t) noexcept nogil
    ctypedef struct sw_sums:
        int32_t grid, group_cols
        const float *factor
        const int32_t *row
        void *near
        int64_t *far
        ptrdiff_t stride
        int32_t *wide
        int32_t *broken
    ctypedef void (*sw_sums_fn)(const sw_mat *, const sw_act *, int, int, int, int, const sw_sums *) noexcept nogil
    ctypedef void (*sw_quantize_fn)(const float *, int, int8_t *, float *, int16_t *) noexcept nogil
    ctypedef struct sw_kernels:
        const char *name
        int32_t streams
        sw_matmul_fn *matmul
        sw_sums_fn *sums
        sw_quantize_fn quantize
    ctypedef struct sw_way:
        const sw_kernels *set
        int32_t streams, ahead
    ctypedef struct sw_ways:
        sw_way *rows
        sw_way *sums
    void sw_usual_ways(sw_ways *, const sw_kernels *, int)
    int sw_group_cols(int, int)
    int SW_STREAMS
    size_t sw_packed_bytes(int, int, int, int)
    int SW_N_TYPES
    const char *sw_type_name(int)
    int sw_type_block(int)
    size_t sw_type_bytes(int)
    void sw_pack(const sw_mat *, uint8_t *, const uint8_t *, int, int, const uint8_t *)
    int sw_unpacks(int)
    void sw_unpack(const sw_mat *, uint8_t *, int, int)
    void sw_dequant_row(const sw_mat *, int, float *)
    const sw_kernels *sw_kernels_by_name(const char *)
    const sw_kernels *sw_kernels_best()
    int sw_likes_ahead()
    int sw_kernels_list(const char **, int)

cdef extern from "ops.h" nogil:
    ctypedef struct sw_ops:
        float (*rmsnorm)(const float *, const float *, float, int, float *) noexcept nogil
        void (*silu_mul)(const float *, const float *, int, float *) noexcept nogil
        void (*add_sums)(float, int32_t *, float, float *, int) noexcept nogil
        void (*swiglu)(const float *, const float *, float, float, int, float *) noexcept nogil
        void (*softmax)(float *, int) noexcept nogil
        void (*sigmoid)(float *, int) noexcept nogil
        void (*hadamard)(float *, int) noexcept nogil
        void (*rope)(float *, const float *, const float *, int, int) noexcept nogil
    const sw_ops *sw_ops_for(const char *)

cdef extern from *:
    """
    #include <stdint.h>
    /* Read every cache line of [p, p + n) in four streams: what memory can deliver to one core. */
    static uint64_t sw_read_all(const uint8_t *p, size_t n) {
      uint64_t s[4] = {0};
      const size_t q = n / 4 / 64 * 64;
      for (size_t i = 0; i < q; i += 64)
        for (int j = 0; j < 4; j++) {
          const uint64_t *w = (const uint64_t *)(p + j * q + i);
          s[j] += w[0] ^ w[1] ^ w[2] ^ w[3] ^ w[4] ^ w[5] ^ w[6] ^ w[7];
          __builtin_prefetch(p + j * q + i + 2048);
        }
      return s[0] + s[1] + s[2] + s[3];
    }
    """
    unsigned long long sw_read_all(const uint8_t *, size_t) noexcept nogil


def isa_names():
    """Kernel sets that this CPU and OS can run, slowest first."""
    cdef const char *names[16]
    cdef int n = sw_kernels_list(names, 16)
    return [names[i].decode() for i in range(n)]


def best_isa():
    """The fastest kernel set usable here."""
    return sw_kernels_best().name.decode()


cdef const sw_kernels *kernels_for(str isa) except NULL:
    cdef const sw_kernels *k = sw_kernels_by_name(isa.encode())
    if k == NULL:
        raise ValueError(f"no kernels called {isa} here; usable: {', '.join(isa_names())}")
    return k


def team_size(int n_threads):
    """How many threads OpenMP really gives when asked for n_threads."""
    cdef int got[1]
    openmp.omp_set_dynamic(0)
    with nogil, parallel(num_threads=n_threads):
        note_team_size(got)
    return got[0]


cdef void note_team_size(int *got) noexcept nogil:
    if openmp.omp_get_thread_num() == 0:
        got[0] = openmp.omp_get_num_threads()


def quant_types():
    """(number in ggml_type, name, columns of a block, its bytes in a file and packed) of every weight type."""
    return [
        (t, sw_type_name(t).decode(), sw_type_block(t), sw_type_bytes(t),
         sw_packed_bytes(t, 16, sw_type_block(t), 0) // 16)
        for t in range(SW_N_TYPES) if sw_type_block(t)
    ]


def packed_bytes(int qtype, int rows, int cols, int tile_cols):
    """Bytes of a packed matrix."""
    return sw_packed_bytes(qtype, rows, cols, tile_cols)


def read_all(const uint8_t[::1] data, int n_threads):
    """Read `data` once with n_threads, for the measurement of memory bandwidth."""
    cdef size_t n = data.shape[0], part = n // n_threads // 64 * 64
    cdef unsigned long long[::1] seen = np.zeros(n_threads, np.uint64)
    with nogil, parallel(num_threads=n_threads):
        seen[threadid()] = sw_read_all(&data[0] + threadid() * part, part)
    return int(np.bitwise_xor.reduce(np.asarray(seen)))


def op(str name, str isa, *args):
    """One float op of an instruction set by name, on float32 arrays, for tests: returns the result."""
    cdef const sw_ops *ops = sw_ops_for(isa.encode())
    cdef float[::1] a = np.array(args[0], np.float32), b, c
    cdef int32_t[::1] sums
    cdef int n = <int>a.shape[0]
    if name == "softmax":
        ops.softmax(&a[0], n)
    elif name == "sigmoid":
        ops.sigmoid(&a[0], n)
    elif name == "hadamard":
        ops.hadamard(&a[0], n)
    elif name == "rmsnorm":
        b = np.array(args[1], np.float32)
        ops.rmsnorm(&a[0], &b[0], args[2], n, &a[0])
    elif name == "add_sums":
        sums = np.array(args[1], np.int32)
        ops.add_sums(args[2], &sums[0], args[3], &a[0], n)
        assert not np.any(sums)
    elif name == "silu_mul":
        b = np.array(args[1], np.float32)
        ops.silu_mul(&a[0], &b[0], n, &a[0])
    elif name == "swiglu":
        b = np.array(args[1], np.float32)
        ops.swiglu(&a[0], &b[0], args[2], args[3], n, &a[0])
    elif name == "rope":
        b, c = np.array(args[1], np.float32), np.array(args[2], np.float32)
        ops.rope(&a[0], &b[0], &c[0], <int>b.shape[0], args[3])
    else:
        raise ValueError(name)
    return np.asarray(a)
