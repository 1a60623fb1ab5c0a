# Lists of texts in the header of a model file: hundreds of thousands, before anybody can be answered.

from cpython.unicode cimport PyUnicode_DecodeUTF8


def texts(const uint8_t[::1] raw not None, Py_ssize_t count):
    """`count` texts of UTF-8, each after its length (uint64). UnicodeDecodeError where one is none."""
    cdef Py_ssize_t i, at = 0
    cdef uint64_t n_bytes
    cdef const char *data = <const char *>&raw[0] if raw.shape[0] else NULL
    cdef list found = []
    for i in range(count):
        at = after_text(raw, at, &n_bytes)
        if at < 0:
            raise ValueError(f"text {i} ends after the {raw.shape[0]} bytes")
        found.append(PyUnicode_DecodeUTF8(data + at - n_bytes, n_bytes, NULL))
    return found


def skip_texts(const uint8_t[::1] data not None, Py_ssize_t start, Py_ssize_t count, Py_ssize_t end):
    """Where the text after `count` of them begins, which begin at `start`; -1 when they pass `end`."""
    cdef Py_ssize_t i, at = start
    cdef uint64_t n_bytes
    if not 0 <= start <= end <= data.shape[0]:
        raise ValueError(f"texts from {start} to {end} of {data.shape[0]} bytes")
    for i in range(count):
        at = after_text(data[:end], at, &n_bytes)
        if at < 0:
            return -1
    return at


def split_at_space(list pairs not None):
    """Of texts "a b" the tuples (a, b), cut at the first space; of a text that is no such pair, None."""
    cdef str pair, left, right
    cdef list found = []
    for pair in pairs:
        left, _, right = pair.partition(" ")
        found.append((left, right) if left and right else None)
    return found


cdef Py_ssize_t after_text(const uint8_t[::1] data, Py_ssize_t at, uint64_t *n_bytes) noexcept nogil:
    """Where the text that begins at `at` with its length ends; -1 past the end of the data."""
    cdef Py_ssize_t left = data.shape[0] - at - 8
    if left < 0:
        return -1
    memcpy(n_bytes, &data[at], 8)
    return at + 8 + <Py_ssize_t>n_bytes[0] if n_bytes[0] <= <uint64_t>left else -1
