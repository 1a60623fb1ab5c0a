# What came from elsewhere, looked at once before it is computed with.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from *:
    """
    #include <string.h>
    /* In words: the exponent of NaN and of an infinity is all ones. No early end, so that it becomes vectors. */
    static int sw_all_finite(const uint8_t *p, size_t n_floats) {
      uint32_t found = 0;
      for (size_t i = 0; i < n_floats; i++) {
        uint32_t bits;
        memcpy(&bits, p + 4 * i, 4);
        found |= (bits & 0x7f800000u) == 0x7f800000u;
      }
      return !found;
    }
    """
    int sw_all_finite(const uint8_t *, size_t) noexcept nogil


def all_finite(frame):
    """True when none of the float32 values in a buffer, wherever it lies, is NaN or infinite. Holds the GIL."""
    cdef Py_buffer data
    PyObject_GetBuffer(frame, &data, PyBUF_SIMPLE)
    cdef bint finite = sw_all_finite(<const uint8_t *>data.buf, data.len // 4)
    PyBuffer_Release(&data)
    return finite
