# What came from elsewhere, looked at once before it is computed with; and what drawing a token takes.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from "numbers.h" nogil:
    int sw_all_finite(const uint8_t *, size_t)
    int64_t sw_largest(const float *, int64_t, int64_t, float, int64_t *)
    double sw_exponential(double, const double *)
    uint64_t sw_philox(uint64_t, uint64_t)

cdef int N_POWERS = 4480


def all_finite(frame):
    """True when none of the float32 values in a buffer, wherever it lies, is NaN or infinite. Holds the GIL."""
    cdef Py_buffer data
    PyObject_GetBuffer(frame, &data, PyBUF_SIMPLE)
    cdef bint finite = sw_all_finite(<const uint8_t *>data.buf, data.len // 4)
    PyBuffer_Release(&data)
    return finite


def largest(const float[::1] x not None, int64_t k, float floor):
    """Places int64 of the k largest of x that reach `floor`, largest first, among equals the lowest. No NaN in x."""
    cdef int64_t n = min(k, x.shape[0]), found
    if n < 1:
        return np.empty(0, np.int64)
    places = np.empty(n, np.int64)
    cdef int64_t[::1] view = places
    with nogil:
        found = sw_largest(&x[0], x.shape[0], n, floor, &view[0])
    return places[:found]


def weights(const float[::1] x not None, const int64_t[::1] places not None, float best, double temperature,
            const double[::1] powers not None):
    """e^((x[places] - best) / temperature) float64 (n,), for x up to `best`; `powers` are 2^(-i/64) down to e^-48."""
    cdef int64_t i
    check_powers(powers)
    result = np.empty(places.shape[0])
    cdef double[::1] view = result
    for i in range(places.shape[0]):
        if not 0 <= places[i] < x.shape[0]:
            raise ValueError(f"place {places[i]} of {x.shape[0]}")
        view[i] = sw_exponential((<double>x[places[i]] - best) / temperature, &powers[0])
    return result


def exponential(const double[::1] x not None, const double[::1] powers not None):
    """e^x float64 (n,) for x in [-47, 0], less counts as -47; `powers` are 2^(-i/64) down to e^-48."""
    cdef int64_t i
    check_powers(powers)
    result = np.empty(x.shape[0])
    cdef double[::1] view = result
    for i in range(x.shape[0]):
        view[i] = sw_exponential(x[i], &powers[0])
    return result


cdef check_powers(const double[::1] powers):
    if powers.shape[0] < N_POWERS:
        raise ValueError(f"{powers.shape[0]} powers; {N_POWERS} are needed")


def philox(uint64_t key, uint64_t place):
    """64 random bits of Philox4x64-10: what numpy.random.Philox(key=key, counter=place).random_raw() gives."""
    return sw_philox(key, place)
