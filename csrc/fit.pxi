# Scales for the K quants.

cdef extern from "fit.h" nogil:
    int SW_FIT_MAX
    void sw_fit_with_minimum(const float *, int, int, float *, float *)
    float sw_fit_signed(const float *, int, int)


cdef _check_group(int n):
    if n % 8 or not 0 < n <= SW_FIT_MAX:
        raise ValueError(f"groups of {n}: must be a multiple of 8, at most {SW_FIT_MAX}")


def fit_with_minimum(const float[:, ::1] x, int top):
    """Of each row (n, columns) a scale and a minimum, both >= 0: x is about scale * level - minimum, level 0 to top."""
    cdef int i, rows = <int>x.shape[0], n = <int>x.shape[1]
    _check_group(n)
    cdef float[::1] scale = np.empty(rows, np.float32), minimum = np.empty(rows, np.float32)
    with nogil:
        for i in range(rows):
            sw_fit_with_minimum(&x[i, 0], n, top, &scale[i], &minimum[i])
    return np.asarray(scale), np.asarray(minimum)


def fit_signed(const float[:, ::1] x, int half):
    """Of each row (n, columns) a scale: x is about scale * level, level -half to half - 1."""
    cdef int i, rows = <int>x.shape[0], n = <int>x.shape[1]
    _check_group(n)
    cdef float[::1] scale = np.empty(rows, np.float32)
    with nogil:
        for i in range(rows):
            scale[i] = sw_fit_signed(&x[i, 0], n, half)
    return np.asarray(scale)
