# How the product of one token is computed: what there is to choose among, and how long each takes.

cdef int READS_AHEAD = sw_likes_ahead()  # asked once: cpuid takes long in a virtual machine


def most_streams(str isa):
    """How many panels an instruction set can read side by side."""
    return kernels_for(isa).streams


cdef sw_way way_of(int qtype, str isa, int streams, int ahead) except *:
    """Of quantised types; float ones have one way."""
    if not 0 <= qtype < SW_N_TYPES or sw_type_block(qtype) < 32:
        raise ValueError(f"type {qtype} has no ways")
    if streams not in (0, 1, SW_STREAMS) or not 0 <= ahead <= 1 << 20:
        raise ValueError(f"{streams} streams that fetch {ahead} bytes ahead")
    cdef const sw_kernels *kernels = kernels_for(isa)
    if streams > kernels.streams:
        raise ValueError(f"{streams} streams of {isa}")
    return sw_way(kernels, streams, ahead if streams else READS_AHEAD)


def product_seconds(int qtype, bint sums, str isa, int streams, int ahead, const uint8_t[::1] data, int cols,
                    int n_threads, int times=1):
    """Seconds in which all of `data`, taken for packed blocks of a matrix `cols` wide, is multiplied with one token, so
    many times.

    data: aligned to 64. Its blocks must be such as a model's are: what is no number takes longer.
    """
    cdef sw_way way = way_of(qtype, isa, streams, ahead)
    cdef size_t panel = sw_packed_bytes(qtype, 16, cols, cols)
    if cols <= 0 or cols % sw_type_block(qtype) or cols % 32 or <size_t>data.shape[0] < panel * n_threads:
        raise ValueError(f"{data.shape[0]} bytes of type {qtype}, {cols} columns, for {n_threads} threads")
    cdef int n_panels = <int>(<size_t>data.shape[0] // panel), i
    cdef sw_mat w = sw_mat(&data[0], qtype, 16 * n_panels, cols, cols, way.streams, way.ahead)
    cdef sw_act x = sw_act(NULL, NULL, NULL, NULL, cols, cols, cols // 32, 1, cols)
    cdef int8_t[::1] q = np.resize(np.arange(-90, 91, 7, np.int8), cols)
    cdef float[::1] scale = np.full(cols // 32, 1e-3, np.float32), y = np.empty(16 * n_panels, np.float32)
    cdef int16_t[::1] sum16 = np.asarray(q).reshape(-1, 16).sum(1, dtype=np.int16)
    cdef int32_t[::1] near = np.zeros(16 * n_panels, np.int32)
    cdef int64_t[::1] far = np.zeros(16 * n_panels, np.int64)
    cdef float factor = 1e-6
    cdef int32_t wide = 0, broken = 0
    cdef sw_sums to = sw_sums(0, sw_group_cols(qtype, 64), &factor, NULL, &near[0], &far[0], 16 * n_panels, &wide,
                              &broken)
    x.q, x.scale, x.sum = &q[0], &scale[0], &sum16[0]
    cdef double started = openmp.omp_get_wtime()
    with nogil, parallel(num_threads=n_threads):
        multiply_share(way, &w, &x, n_panels, threadid(), n_threads, times, &y[0], &to if sums else NULL)
    return openmp.omp_get_wtime() - started


cdef void multiply_share(sw_way way, const sw_mat *w, const sw_act *x, int n_panels, int thread, int n_threads,
                         int times, float *y, const sw_sums *to) noexcept nogil:
    """In pieces such as the items of a step are."""
    cdef int p, end = n_panels * (thread + 1) // n_threads, some
    for _ in range(times):
        p = n_panels * thread // n_threads
        while p < end:
            some = p + 64 if p + 64 < end else end
            if to != NULL:
                way.set.sums[w.type](w, x, 0, 1, p, some, to)
            else:
                way.set.matmul[w.type](w, x, 0, 1, p, some, y, w.rows)
            p = some
