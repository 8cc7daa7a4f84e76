# One step at a time; part of _core.pyx.


cdef class Stream:
    """A net with a state of its own, run one step at a time."""
    cdef Net net
    cdef Workspace space
    cdef bint busy
    cdef object x_shape, y_shape, dtype

    def __init__(self, Net net, size_t batch):
        if net.packed is None:
            raise RuntimeError("the weights are not packed")
        self.net = net
        self.space = Workspace()
        self.space.prepare(net, 1, batch)
        self.x_shape = (batch, net.config.input_size)
        self.y_shape = (batch, net.width)
        self.dtype = net.dtype

    cpdef reset(self):
        """Back to the state before the first step."""
        self.space.reset(self.net)

    def get(self, tuple arrays):
        """Copies the state into arrays [L, B, H] (h with a projection [L, B, P])."""
        for i in range(len(arrays)):
            self.space.exchange(self.net, i, arrays[i], False)

    def set(self, tuple arrays):
        """Copies the state from arrays [L, B, H]."""
        for i in range(len(arrays)):
            self.space.exchange(self.net, i, arrays[i], True)

    cpdef step(self, x, out=None):
        """One step: x [B, I] (or [I] for one sequence), result [B, H] (or [H]) in `out`."""
        cdef Py_buffer bx, by
        cdef frnn_run *run = &self.space.run
        cdef frnn_status status
        if self.busy:
            raise RuntimeError("this stream is in use by another thread")
        self.borrow(x, &bx, False, "x", self.x_shape)
        try:
            if out is None:
                out = numpy.empty(self.y_shape[-bx.ndim:], self.dtype)
            self.borrow(out, &by, True, "out", self.y_shape)
            try:
                if by.ndim != bx.ndim:
                    raise ValueError(f"out: expected {bx.ndim} axes as x has, got {by.ndim}")
                check_disjoint(&bx, &by)
                run.x, run.y = bx.buf, by.buf
                run.x_row = bx.strides[0] // bx.itemsize
                run.y_row = by.strides[0] // by.itemsize
                self.busy = True
                if self.net.step_flops * run.batch < GIL_FLOPS:
                    status = frnn_forward(&self.net.config, self.net.packed.address,
                                          self.net.packed.size, run)
                else:
                    with nogil:
                        status = frnn_forward(&self.net.config, self.net.packed.address,
                                              self.net.packed.size, run)
                self.busy = False
                check(status, "step")
            finally:
                PyBuffer_Release(&by)
        finally:
            PyBuffer_Release(&bx)
        return out

    cdef int borrow(self, object array, Py_buffer *buffer, bint writable, str name,
                    tuple shape) except -1:
        """Takes the buffer of an array that must fit as it is: nothing is converted in a step."""
        cdef int flags = PyBUF_FORMAT | PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0)
        cdef Py_ssize_t rows = self.space.run.batch, columns = shape[1]
        cdef bint fits
        try:
            PyObject_GetBuffer(array, buffer, flags)
        except (TypeError, BufferError, ValueError) as error:
            raise TypeError(f"{name}: expected a{' writable' if writable else 'n'} array of "
                            f"{self.dtype}, got {describe(array)}: {error}") from None
        try:
            check_format(buffer, self.net.config.dtype)
            fits = ((buffer.ndim == 2 and buffer.shape[0] == rows and buffer.shape[1] == columns)
                    or (buffer.ndim == 1 and rows == 1 and buffer.shape[0] == columns))
            if not fits:
                raise ValueError(f"expected shape {shape}")
            if not regular(buffer):
                raise ValueError("expected an aligned array with contiguous features")
        except (TypeError, ValueError) as error:
            PyBuffer_Release(buffer)
            raise type(error)(f"{name}: {error}, got {describe(array)}") from None
        return 0


cdef str describe(object array):
    shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
    if shape is None or dtype is None:
        return type(array).__name__
    return f"shape {tuple(shape)} of {dtype}"
