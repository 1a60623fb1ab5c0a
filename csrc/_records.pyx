# cython: language_level=3
"""Records become lists that msgpack can write, and back, with every value checked. swarm/wire/schema.py says what is legal.

Compiled, for every token of an answer crosses these lines on every device, right after weights went through its caches:
what counts then is how few cache lines are touched. As Python a message took 70 us either way, and 8 us with warm caches.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.ref cimport Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_GET_LENGTH
from libc.math cimport isfinite

cdef extern from *:
    """
    #include <structmember.h>
    /* Where an object of a class with __slots__ keeps a field; -1 when the descriptor is of another kind. */
    static Py_ssize_t slot_offset(PyObject *d) {
      if (!Py_IS_TYPE(d, &PyMemberDescr_Type)) return -1;
      const PyMemberDef *member = ((PyMemberDescrObject *)d)->d_member;
      return member->type == T_OBJECT_EX ? member->offset : -1;
    }
    /* What object.__new__(kind) does. */
    static PyObject *new_object(PyObject *kind, PyObject *no_arguments) {
      return ((PyTypeObject *)kind)->tp_new((PyTypeObject *)kind, no_arguments, NULL);
    }
    """
    Py_ssize_t slot_offset(object)
    object new_object(object, object)

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t, Py_UCS4)
    bint PyUnicode_IS_ASCII(object)


class Violation(ValueError):
    """A value that may not travel; the text names the field and the rule."""


cdef enum Kind:
    BOOL, INT, REAL, TEXT, RAW, HEX, ONE_OF, MANY, RECORD

cdef dict KINDS = {
    "bool": BOOL, "int": INT, "real": REAL, "text": TEXT, "raw": RAW, "hex": HEX, "one_of": ONE_OF, "many": MANY,
    "record": RECORD,
}
cdef tuple NOTHING = ()
cdef const char *DIGITS = b"0123456789abcdef"


cdef class Field:
    """One kind of value. `low` and `high` are bounds of a number or of a length, `detail` the choices of a "one_of", the
    Field of an item of a "many", or the Record."""

    cdef Kind kind
    cdef bint optional
    cdef long long low, high
    cdef double least, most
    cdef object detail

    def __init__(self, str kind, low=0, high=0, detail=None):
        self.kind = KINDS[kind]
        self.detail = detail
        if self.kind == REAL:
            self.least, self.most = low, high
        elif high < 2**63:
            self.low, self.high = low, high
        else:
            self.low, self.high, self.detail = 1, 0, (low, high)

    def or_none(self):
        """Let None travel, too; returns this field."""
        self.optional = True
        return self

    cdef object read(self, object value, str where):
        """What came from a peer, as Python has it."""
        if self.optional and value is None:
            return None
        if self.kind == HEX:
            return hex_of(value, self.low, where)
        if self.kind == MANY:
            if type(value) is not list:
                raise Violation(f"{where} is not a list")
            self.check_many(len(value), where)
            return tuple([(<Field>self.detail).read(each, where) for each in <list>value])
        if self.kind == RECORD:
            if type(value) is not list:
                raise Violation(f"{where} is not a list of fields")
            return (<Record>self.detail).read_from(<list>value, 0, where)
        return self.check(value, where)

    cdef object write(self, object value, str where):
        """What Python has, as it travels."""
        if self.optional and value is None:
            return None
        if self.kind == HEX:
            return bytes_of(value, self.low, where)
        if self.kind == MANY:
            if type(value) is not tuple:
                raise Violation(f"{where} is not a tuple")
            self.check_many(len(value), where)
            return [(<Field>self.detail).write(each, where) for each in <tuple>value]
        if self.kind == RECORD:
            return (<Record>self.detail).write_to(value, [], where)
        return self.check(value, where)

    cdef int check_many(self, Py_ssize_t n, str where) except -1:
        if n > self.high:
            raise Violation(f"{where} has {n} items; at most {self.high} are allowed")
        return 0

    cdef object check(self, object value, str where):
        """A value that is the same on the wire and in Python."""
        if self.kind == INT:
            return self.check_int(value, where)
        if self.kind == BOOL:
            if type(value) is not bool:
                raise Violation(f"{where} is not true or false")
            return value
        if self.kind == ONE_OF:
            if type(value) is not str or value not in <tuple>self.detail:
                raise Violation(f"{where} is not one of {', '.join(self.detail)}")
            return value
        if self.kind == REAL:
            return self.check_real(value, where)
        if self.kind == RAW:
            if type(value) is not bytes:
                raise Violation(f"{where} is not bytes")
            if not self.low <= PyBytes_GET_SIZE(value) <= self.high:
                raise Violation(f"{where} has {len(value)} bytes; it must have from {self.low} to {self.high}")
            return value
        return self.check_text(value, where)

    cdef object check_int(self, object value, str where):
        cdef int overflow = 0
        if type(value) is not int:
            raise Violation(f"{where} is not a whole number")
        cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow and self.low <= number <= self.high:
            return value
        low, high = self.detail or (self.low, self.high)
        if not low <= value <= high:
            raise Violation(f"{where} is {value}; it must be from {low} to {high}")
        return value

    cdef object check_real(self, object value, str where):
        if type(value) is not float and type(value) is not int:
            raise Violation(f"{where} is not a number")
        cdef double number
        try:
            number = value
        except OverflowError:  # an int of any size compares, but does not always become a float
            number = float("inf")
        if not isfinite(number) or not self.least <= number <= self.most:
            raise Violation(f"{where} must be a number from {self.least:g} to {self.most:g}")
        return number

    cdef object check_text(self, object value, str where):
        if type(value) is not str:
            raise Violation(f"{where} is not text")
        if len(value) > self.high or len(value.encode("utf-8", "surrogatepass")) > self.high:
            raise Violation(f"{where} is longer than {self.high} bytes")
        # Names and reasons reach terminals and logs: no escape sequences from a peer.
        if not value.isprintable():
            raise Violation(f"{where} has characters that cannot be printed")
        return value


cdef class Record:
    """A dataclass that may travel.

    Where it has __slots__, they are read and written directly: its own __init__ costs more than all of the checks.
    """

    cdef object kind
    cdef str name
    cdef tuple fields, paths, names, defaults, offsets
    cdef Py_ssize_t n_needed, n_extra
    cdef bint has_slots

    def __init__(self, kind, names, fields, defaults, Py_ssize_t n_extra):
        """`defaults` are those of the last fields; `n_extra` more, of a newer peer, are ignored."""
        self.kind, self.name = kind, kind.__name__
        self.names, self.fields, self.defaults = tuple(names), tuple(fields), tuple(defaults)
        self.paths = tuple([f"{kind.__name__}.{name}" for name in names])
        self.n_needed, self.n_extra = len(self.fields) - len(self.defaults), n_extra
        self.offsets = tuple([slot_offset(getattr(kind, name, None)) for name in names])
        self.has_slots = all([offset > 0 for offset in self.offsets]) and "__post_init__" not in dir(kind)

    def read(self, list values not None, Py_ssize_t first=0):
        """Return the record that values[first:] stand for; raise Violation."""
        return self.read_from(values, first, self.name)

    def write(self, object value, list out not None):
        """Return `out` with the fields of a record appended; raise Violation."""
        return self.write_to(value, out, self.name)

    cdef object read_from(self, list values, Py_ssize_t first, str where):
        cdef Py_ssize_t n_known = len(self.fields), n = len(values) - first, i
        cdef object made, value
        if not self.n_needed <= n <= n_known + self.n_extra:
            raise Violation(f"{where} has {n} fields; it needs {self.n_needed} to {n_known}")
        if not self.has_slots:
            return self.kind(*[self.read_one(values, first, i, n) for i in range(min(n, n_known))])
        made = new_object(self.kind, NOTHING)
        for i in range(n_known):
            value = self.read_one(values, first, i, n)
            Py_INCREF(value)
            self.slot(made, i)[0] = <PyObject *>value
        return made

    cdef object read_one(self, list values, Py_ssize_t first, Py_ssize_t i, Py_ssize_t n):
        if i >= n:
            return self.defaults[i - self.n_needed]
        return (<Field>self.fields[i]).read(values[first + i], <str>self.paths[i])

    cdef object write_to(self, object value, list out, str where):
        if type(value) is not self.kind:
            raise Violation(f"{where} is not a {self.name}")
        cdef Py_ssize_t n = len(self.fields), i
        while n > self.n_needed and self.value_of(value, n - 1) == self.defaults[n - 1 - self.n_needed]:
            n -= 1
        for i in range(n):
            out.append((<Field>self.fields[i]).write(self.value_of(value, i), <str>self.paths[i]))
        return out

    cdef object value_of(self, object value, Py_ssize_t i):
        if not self.has_slots:
            return getattr(value, self.names[i])
        cdef PyObject *here = self.slot(value, i)[0]
        if here is NULL:
            raise Violation(f"{self.paths[i]} is not set")
        return <object>here

    cdef PyObject **slot(self, object value, Py_ssize_t i):
        cdef Py_ssize_t offset = self.offsets[i]
        return <PyObject **>(<char *><PyObject *>value + offset)


cdef class Envelope:
    """A type of message: its number, its fields, and the raw frame that follows them, if any does."""

    cdef readonly object kind
    cdef readonly int number
    cdef Record record
    cdef Py_ssize_t max_frame
    cdef bint has_tensor

    def __init__(self, kind, Record record not None, int number, Py_ssize_t max_frame):
        """`max_frame` 0: no raw frame follows; otherwise one does, of at most so many bytes."""
        self.kind, self.record, self.number, self.max_frame = kind, record, number, max_frame
        self.has_tensor = "tensor" in record.names

    def pack(self, message, frame):
        """Return the header of a message as a list that msgpack can write; raise Violation."""
        header = self.record.write_to(message, [self.number], self.record.name)
        self.check_frame(message, frame)
        return header

    def unpack(self, list header not None, frame):
        """Return the message of a header; raise Violation."""
        message = self.record.read_from(header, 1, self.record.name)
        self.check_frame(message, frame)
        return message

    cdef int check_frame(self, object message, object frame) except -1:
        cdef Py_buffer view
        cdef Py_ssize_t n_bytes
        if frame is None:
            if self.max_frame:
                raise Violation(f"{self.record.name} has no raw frame; it has one")
            return 0
        if not self.max_frame:
            raise Violation(f"{self.record.name} has a raw frame; it has none")
        PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
        n_bytes = view.len
        PyBuffer_Release(&view)
        if n_bytes > self.max_frame:
            raise Violation(
                f"{self.record.name} has a raw frame of {n_bytes} bytes; at most {self.max_frame} are allowed"
            )
        if self.has_tensor:
            wanted = message.tensor.n_bytes
            if wanted != n_bytes:
                raise Violation(f"{self.record.name} has a raw frame of {n_bytes} bytes; its shape says {wanted}")
        return 0


cdef object hex_of(object value, Py_ssize_t n, str where):
    """An id as text."""
    if type(value) is not bytes or PyBytes_GET_SIZE(value) != n:
        raise Violation(f"{where} is not {n} bytes")
    text = PyUnicode_New(2 * n, 127)
    cdef unsigned char *out = <unsigned char *>PyUnicode_1BYTE_DATA(text)
    cdef const unsigned char *data = <const unsigned char *>PyBytes_AS_STRING(value)
    cdef Py_ssize_t i
    for i in range(n):
        out[2 * i], out[2 * i + 1] = DIGITS[data[i] >> 4], DIGITS[data[i] & 15]
    return text


cdef object bytes_of(object value, Py_ssize_t n, str where):
    """The bytes of an id."""
    if type(value) is not str or PyUnicode_GET_LENGTH(value) != 2 * n or not PyUnicode_IS_ASCII(value):
        raise Violation(f"{where} is not {2 * n} hex digits")
    cdef const unsigned char *digits = <const unsigned char *>PyUnicode_1BYTE_DATA(value)
    data = PyBytes_FromStringAndSize(NULL, n)
    cdef char *out = PyBytes_AS_STRING(data)
    cdef Py_ssize_t i
    cdef int high, low
    for i in range(n):
        high, low = digit(digits[2 * i]), digit(digits[2 * i + 1])
        if high < 0 or low < 0:
            raise Violation(f"{where} is not {2 * n} hex digits")
        out[i] = <char>(16 * high + low)
    return data


cdef inline int digit(unsigned char c) noexcept:
    """A lower-case hex digit; -1 for anything else."""
    if c'0' <= c <= c'9':
        return c - c'0'
    return c - c'a' + 10 if c'a' <= c <= c'f' else -1
