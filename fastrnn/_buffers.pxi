# Memory for the kernels, and what is checked of the buffers of arrays; part of _core.pyx.


cdef object aligned(size_t size):
    """An uninitialised byte array on a boundary of FRNN_ALIGN bytes."""
    whole = numpy.empty(size + FRNN_ALIGN, numpy.uint8)
    skip = -whole.ctypes.data % FRNN_ALIGN
    return whole[skip:skip + size]


cdef class Memory:
    """Aligned bytes with their address."""
    cdef object owner
    cdef void *address
    cdef size_t size

    def __cinit__(self, size_t size):
        self.owner = aligned(size)
        self.address = <void *> <uintptr_t> self.owner.ctypes.data
        self.size = size


cdef class View:
    """A buffer that is held while a call uses it."""
    cdef Py_buffer buffer
    cdef bint held

    def __cinit__(self):
        self.held = False

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)


cdef View view(object array, bint writable, frnn_dtype dtype):
    cdef View v = View()
    PyObject_GetBuffer(
        array, &v.buffer, PyBUF_FORMAT | PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0)
    )
    v.held = True
    check_format(&v.buffer, dtype)
    return v


cdef inline bint right_format(const Py_buffer *buffer, frnn_dtype dtype):
    cdef const char *format = buffer.format
    cdef char expected = b"f" if dtype == FRNN_F32 else b"d"
    return format != NULL and format[0] == expected and format[1] == 0


cdef int check_format(const Py_buffer *buffer, frnn_dtype dtype) except -1:
    if not right_format(buffer, dtype):
        raise TypeError("expected an array of " + ("float32" if dtype == FRNN_F32 else "float64"))
    if <uintptr_t> buffer.buf % <uintptr_t> buffer.itemsize != 0:
        raise ValueError("expected an array aligned to its element size")
    return 0


cdef inline bint is_contiguous(const Py_buffer *buffer):
    cdef Py_ssize_t expected = buffer.itemsize
    for axis in range(buffer.ndim - 1, -1, -1):
        if buffer.shape[axis] == 0:
            return True
        if buffer.shape[axis] > 1 and buffer.strides[axis] != expected:
            return False
        expected *= buffer.shape[axis]
    return True


cdef int check_contiguous(const Py_buffer *buffer) except -1:
    if not is_contiguous(buffer):
        raise ValueError("expected a C-contiguous array")
    return 0


cdef inline void extent(const Py_buffer *b, char **low, char **high):
    """The first byte of a buffer and the one behind the last, for strides of any sign."""
    low[0] = high[0] = <char *> b.buf
    for axis in range(b.ndim):
        if b.shape[axis] == 0:
            return
    for axis in range(b.ndim):
        if b.strides[axis] < 0:
            low[0] += b.strides[axis] * (b.shape[axis] - 1)
        else:
            high[0] += b.strides[axis] * (b.shape[axis] - 1)
    high[0] += b.itemsize


cdef inline int check_disjoint(const Py_buffer *x, const Py_buffer *out) except -1:
    cdef char *x_low
    cdef char *x_high
    cdef char *out_low
    cdef char *out_high
    extent(x, &x_low, &x_high)
    extent(out, &out_low, &out_high)
    if x_low < out_high and out_low < x_high:
        raise ValueError("out: must not overlap x")
    return 0


cdef inline bint regular(const Py_buffer *b):
    """Whether the kernels can read it: features contiguous, everything on element boundaries."""
    if <uintptr_t> b.buf % <uintptr_t> b.itemsize != 0:
        return False
    for axis in range(b.ndim):
        if b.shape[axis] == 0:
            return True
    for axis in range(b.ndim):
        if b.strides[axis] % b.itemsize != 0:
            return False
    axis = b.ndim - 1
    return b.ndim > 0 and (b.shape[axis] == 1 or b.strides[axis] == b.itemsize)


cdef class Ragged:
    """Lengths [B] (intp) and resets [T, B] (bool) of the rows of a call, either may be None."""
    cdef const size_t *lengths
    cdef const unsigned char *reset
    cdef View lengths_view, reset_view

    def __cinit__(self, lengths, reset, size_t steps, size_t batch):
        self.lengths, self.reset = NULL, NULL
        if lengths is not None:
            self.lengths_view = contiguous(lengths, batch * sizeof(size_t), "lengths")
            self.lengths = <const size_t *> self.lengths_view.buffer.buf
        if reset is not None:
            self.reset_view = contiguous(reset, steps * batch, "reset")
            self.reset = <const unsigned char *> self.reset_view.buffer.buf


cdef View contiguous(object array, size_t size, str name, bint writable=False):
    """The buffer of an array of so many bytes."""
    cdef View v = View()
    PyObject_GetBuffer(array, &v.buffer, PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0))
    v.held = True
    check_contiguous(&v.buffer)
    if <size_t> v.buffer.len != size:
        raise ValueError(f"{name}: expected {size} bytes, got {v.buffer.len}")
    return v
