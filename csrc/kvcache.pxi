# Keys and values of some layers, in memory that grows.

cdef extern from "ops.h" nogil:
    ctypedef struct sw_kv:
        uint8_t *k
        uint8_t *v
        uint16_t *k_scale
        uint16_t *v_scale
        int32_t kind, capacity, n_kv_heads, head_dim, value_dim


KV_BYTES = {"f16": 2, "q8_0": 1, "f32": 4}


cdef class KvCache:
    """Keys and values of some layers for up to `capacity` positions. `length` positions are filled.

    Of latent attention only keys are kept: a value is a part of its key.
    """

    cdef sw_kv *layers
    cdef readonly int n_layers
    cdef int kinds_kept, value_dim
    cdef list owners
    cdef readonly int capacity
    cdef readonly str kind
    cdef int filled

    def __init__(self, Dims dims not None, int n_layers, int capacity, str kind="f16"):
        cdef int heads = dims.d.n_kv_heads, hd = dims.d.head_dim, i
        self.kinds_kept, self.value_dim = 1 if dims.d.latent else 2, dims.d.value_dim
        if kind == "q8_0" and hd % 32:
            raise ValueError(f"a q8_0 KV cache needs heads of whole blocks of 32, not {hd}; use f16")
        self.kind = kind
        self.n_layers = n_layers
        self.layers = <sw_kv *>calloc(max(n_layers, 1), sizeof(sw_kv))
        if self.layers == NULL:
            raise MemoryError()
        self.capacity = (capacity + 63) // 64 * 64
        self.owners = [None] * n_layers
        for i in range(n_layers):
            self._allocate(i, heads, hd, self.capacity)

    cdef object _allocate(self, int i, int heads, int hd, int capacity):
        """New memory for a layer. Untouched pages of it take none, so a large capacity costs little until it is used.

        Huge pages would take 2 MiB for the first position of each head, and make attention faster by some per cent
        only.
        """
        cdef size_t n = <size_t>heads * capacity * hd, item = KV_BYTES[self.kind]
        cdef size_t n_bytes = self.kinds_kept * (n * item + (n // 32 * 2 if item == 1 else 0))
        try:
            memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"a KV cache for {capacity} positions") from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            with suppress(OSError):  # a kernel without huge pages
                memory.madvise(mmap.MADV_NOHUGEPAGE)
        cdef uint8_t[::1] b = memory
        self.owners[i] = b
        kv = &self.layers[i]
        kv[0] = sw_kv(&b[0], NULL, NULL, NULL, {1: 1, 2: 0, 4: 2}[item], capacity, heads, hd, self.value_dim)
        if item == 1:
            kv.k_scale = <uint16_t *>&b[self.kinds_kept * n]
        if self.kinds_kept == 2:
            kv.v = &b[n * item]
            kv.v_scale = kv.k_scale + n // 32 if item == 1 else NULL
        return np.asarray(b)

    def resize(self, int capacity):
        """Room for `capacity` positions, at least for the filled ones, which stay. Copies one layer at a time."""
        cdef int i, heads, hd, panels = (self.filled + 15) // 16
        capacity = (max(capacity, self.filled) + 63) // 64 * 64
        for i in range(self.n_layers):
            heads, hd = self.layers[i].n_kv_heads, self.layers[i].head_dim
            old = self._rows(np.asarray(self.owners[i]), heads, hd, self.capacity)
            new = self._rows(self._allocate(i, heads, hd, capacity), heads, hd, capacity)
            for before, after in zip(old, new):
                after[:, :panels] = before[:, :panels]
        self.capacity = capacity

    cdef list _rows(self, data, int heads, int hd, int capacity):
        """Views (heads, panels of 16 positions, bytes) of keys, values and, where there are any, their scales."""
        cdef size_t n = <size_t>heads * (capacity // 16)
        widths = [16 * hd * KV_BYTES[self.kind]] * self.kinds_kept
        widths += [hd] * self.kinds_kept if self.kind == "q8_0" else []
        ends = np.cumsum([n * width for width in widths])
        return [data[end - n * w:end].reshape(heads, capacity // 16, w) for end, w in zip(ends, widths)]

    def rows(self, int i):
        """Views uint8 (heads, panels of 16 positions, bytes) of a layer's keys, values and, where there are any, their
        scales: what a file keeps. Who writes there says so with `fill`."""
        if not 0 <= i < self.n_layers:
            raise IndexError(i)
        return self._rows(np.asarray(self.owners[i]), self.layers[i].n_kv_heads, self.layers[i].head_dim, self.capacity)

    def fill(self, int n):
        """The first n positions are filled: somebody has written into their rows."""
        if not self.filled <= n <= self.capacity:
            raise ValueError(f"cannot fill {n} of {self.capacity} positions, {self.filled} are")
        self.filled = n

    def copy(self, KvCache other not None, int n):
        """Hold the first n positions of another cache of the same layers and kind, and nothing else."""
        cdef int i, heads, hd, panels = (n + 15) // 16
        if other is self or not 0 <= n <= min(other.filled, self.capacity):
            raise ValueError(f"cannot copy {n} of {other.filled} positions into room for {self.capacity}")
        if (other.kind, other.n_layers, other.kinds_kept) != (self.kind, self.n_layers, self.kinds_kept):
            raise ValueError("the other cache is of other layers, or of another kind")
        for i in range(self.n_layers):
            heads, hd = self.layers[i].n_kv_heads, self.layers[i].head_dim
            if (heads, hd) != (other.layers[i].n_kv_heads, other.layers[i].head_dim):
                raise ValueError("the other cache is of a model with other heads")
            theirs = self._rows(np.asarray(other.owners[i]), heads, hd, other.capacity)
            for before, after in zip(theirs, self._rows(np.asarray(self.owners[i]), heads, hd, self.capacity)):
                after[:, :panels] = before[:, :panels]
        self.filled = n

    def __dealloc__(self):
        free(self.layers)

    @property
    def length(self):
        return self.filled

    def truncate(self, int n):
        """Forget all positions from n on."""
        if not 0 <= n <= self.filled:
            raise ValueError(f"cannot keep {n} of {self.filled} positions")
        self.filled = n
