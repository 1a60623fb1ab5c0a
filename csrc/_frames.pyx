# cython: language_level=3
"""A message in or out of a ZeroMQ socket in one call: what swarm/net/frames.py does with pyzmq, past pyzmq.

pyzmq makes an object, a view and a weak reference for each frame, asks for options through a Python enum, and lets go
of the GIL for calls that never wait. With cold caches that is 70 of the 390 us that a message takes from one program to
another. The functions are those of the very library that pyzmq has loaded: `bind` is told where they are. No call here
waits.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize, PyBytes_Size
from libc.errno cimport EAGAIN, EHOSTUNREACH, EINTR, ENOTSOCK
from libc.stdint cimport uintptr_t

from zmq import ZMQError

cdef extern from *:
    """
    /* The size and alignment of a zmq_msg_t since libzmq 4.1. */
    typedef struct { unsigned char bytes[64]; } __attribute__((aligned(8))) sw_msg;
    """
    ctypedef struct sw_msg:
        pass

cdef enum:  # of zmq.h
    DONTWAIT = 1
    SNDMORE = 2
    SRCFD = 2
    EVENTS = 15
    POLLIN = 1

cdef struct Functions:
    int (*msg_init)(sw_msg *) noexcept
    int (*msg_close)(sw_msg *) noexcept
    int (*msg_copy)(sw_msg *, sw_msg *) noexcept
    int (*msg_more)(sw_msg *) noexcept
    int (*msg_get)(sw_msg *, int) noexcept
    const char *(*msg_gets)(sw_msg *, const char *) noexcept
    int (*msg_recv)(sw_msg *, void *, int) noexcept
    void *(*msg_data)(sw_msg *) noexcept
    size_t (*msg_size)(sw_msg *) noexcept
    int (*send)(void *, const void *, size_t, int) noexcept
    int (*getsockopt)(void *, int, void *, size_t *) noexcept
    int (*last_error)() noexcept

FUNCTIONS = [
    "msg_init", "msg_close", "msg_copy", "msg_more", "msg_get", "msg_gets", "msg_recv", "msg_data", "msg_size",
    "send", "getsockopt", "errno",
]  # fmt: skip
cdef Functions zmq
cdef size_t copy_bytes
cdef int most_parts


def bind(list addresses, size_t below, int parts):
    """Use the functions at these addresses, in the order of FUNCTIONS.

    Frames of fewer than `below` bytes are copied when they come; parts of a message past the first `parts` are dropped.
    """
    global copy_bytes, most_parts
    cdef uintptr_t *slots = <uintptr_t *>&zmq
    if len(addresses) != <Py_ssize_t>(sizeof(Functions) // sizeof(uintptr_t)) or not all(addresses):
        raise ValueError("not all functions of libzmq are there")
    for i, address in enumerate(addresses):
        slots[i] = address
    copy_bytes, most_parts = below, parts


cdef class Frame:
    """A large frame: libzmq's bytes, not copied."""

    cdef sw_msg message

    def __cinit__(self):
        zmq.msg_init(&self.message)

    def __dealloc__(self):
        zmq.msg_close(&self.message)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, zmq.msg_data(&self.message), zmq.msg_size(&self.message), True, flags)


cdef class Arrival:
    """A message that came. `parts` are its frames, on a router after the routing id."""

    cdef sw_msg last
    cdef readonly list parts

    def __cinit__(self):
        zmq.msg_init(&self.last)

    def __dealloc__(self):
        zmq.msg_close(&self.last)

    def said(self, bytes name):
        """What its connection says of itself under this name, "" when it says nothing."""
        cdef const char *text = zmq.msg_gets(&self.last, PyBytes_AsString(name))
        return text.decode() if text != NULL else ""

    def fd(self):
        """The file descriptor of its connection."""
        return zmq.msg_get(&self.last, SRCFD)

    cdef object frame(self):
        cdef size_t n_bytes = zmq.msg_size(&self.last)
        if n_bytes < copy_bytes:
            return PyBytes_FromStringAndSize(<char *>zmq.msg_data(&self.last), n_bytes)
        cdef Frame shared = Frame()
        zmq.msg_copy(&shared.message, &self.last)
        return memoryview(shared)


cdef int failed(int allowed) except -1:
    """Raise what libzmq says went wrong, unless it is `allowed`."""
    cdef int error = zmq.last_error()
    if error != allowed:
        raise ZMQError(error)
    return 0


cdef int take(sw_msg *message, void *socket) noexcept:
    cdef int rc = zmq.msg_recv(message, socket, DONTWAIT)
    while rc < 0 and zmq.last_error() == EINTR:
        rc = zmq.msg_recv(message, socket, DONTWAIT)
    return rc


cdef int put(void *socket, const void *data, size_t n_bytes, int flags) noexcept:
    cdef int rc = zmq.send(socket, data, n_bytes, flags)
    while rc < 0 and zmq.last_error() == EINTR:
        rc = zmq.send(socket, data, n_bytes, flags)
    return rc


cdef void *opened(size_t handle) except NULL:
    if handle == 0:  # so pyzmq marks a socket that was closed
        raise ZMQError(ENOTSOCK)
    return <void *>handle


def receive(size_t handle):
    """The next message of a socket, None when there is none."""
    cdef void *socket = opened(handle)
    cdef Arrival arrival = Arrival()
    if take(&arrival.last, socket) < 0:
        failed(EAGAIN)
        return None
    arrival.parts = [arrival.frame()]
    while zmq.msg_more(&arrival.last):
        if take(&arrival.last, socket) < 0:
            failed(0)
        if len(arrival.parts) < most_parts:
            arrival.parts.append(arrival.frame())
    return arrival


def send(size_t handle, bytes routing, bytes header, frame):
    """Send a message of one or two frames, after a routing id where there is one.

    False when the socket is full. To an unknown routing id it is lost.
    """
    cdef void *socket = opened(handle)
    cdef Py_buffer data
    cdef int rc = 0
    if PyBytes_Size(routing):
        rc = put(socket, PyBytes_AsString(routing), PyBytes_Size(routing), DONTWAIT | SNDMORE)
    if rc >= 0 and frame is None:
        rc = put(socket, PyBytes_AsString(header), PyBytes_Size(header), DONTWAIT)
    elif rc >= 0:
        PyObject_GetBuffer(frame, &data, PyBUF_SIMPLE)
        rc = put(socket, PyBytes_AsString(header), PyBytes_Size(header), DONTWAIT | SNDMORE)
        if rc >= 0:
            rc = put(socket, data.buf, data.len, DONTWAIT)
        PyBuffer_Release(&data)
    if rc >= 0:
        return True
    if zmq.last_error() == EAGAIN:
        return False
    failed(EHOSTUNREACH)
    return True


def readable(size_t handle):
    """True when a message waits."""
    cdef int events = 0
    cdef size_t n_bytes = sizeof(events)
    if zmq.getsockopt(opened(handle), EVENTS, &events, &n_bytes) < 0:
        failed(0)
    return events & POLLIN != 0
