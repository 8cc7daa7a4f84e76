# The gated leak: arrays in, arrays out, no net; part of _core.pyx.

cdef double GATED_FLOPS = 6  # of one channel in one step


cdef class Gated:
    """The arrays of one call: held, checked, and cut into pieces of time."""
    cdef frnn_dtype dtype
    cdef Py_ssize_t ndim, steps, batch, channels, itemsize
    cdef list views

    def __cinit__(self, v):
        cdef Py_buffer b
        PyObject_GetBuffer(v, &b, PyBUF_FORMAT | PyBUF_STRIDES)
        try:
            if b.ndim not in (2, 3):
                raise ValueError("v: expected 2 or 3 axes")
            self.dtype = FRNN_F32 if right_format(&b, FRNN_F32) else FRNN_F64
            self.ndim, self.itemsize = b.ndim, b.itemsize
            self.steps, self.channels = b.shape[0], b.shape[b.ndim - 1]
            self.batch = b.shape[1] if b.ndim == 3 else 1
        finally:
            PyBuffer_Release(&b)
        self.views = []

    cdef View hold(self, str name, object array, bint writable, bint state=False):
        """The view of an array [T, B, H], or of a state [B, H]; without B if v has none."""
        cdef View v = view(array, writable, self.dtype)
        cdef Py_buffer *b = &v.buffer
        cdef Py_ssize_t axis = 0
        cdef bint fits = b.ndim == self.ndim - (1 if state else 0) and regular(b)
        if fits and not state:
            fits = b.shape[0] == self.steps
            axis = 1
        if fits and self.ndim == 3:
            fits = b.shape[axis] == self.batch
        if not fits or b.shape[b.ndim - 1] != self.channels:
            raise ValueError(f"{name}: does not fit v, or its features are not contiguous")
        self.views.append(v)
        return v

    cdef void *take(self, str name, object array, bint writable, ptrdiff_t *step,
                    ptrdiff_t *row) except? NULL:
        """The address of an array [T, B, H], and its strides in elements."""
        cdef View v = self.hold(name, array, writable)
        step[0] = v.buffer.strides[0] // self.itemsize
        row[0] = v.buffer.strides[1] // self.itemsize if self.ndim == 3 else 0
        return v.buffer.buf

    cdef void *take_state(self, str name, object array, bint writable,
                          ptrdiff_t *row) except? NULL:
        cdef View v = self.hold(name, array, writable, True)
        row[0] = v.buffer.strides[0] // self.itemsize if self.ndim == 3 else 0
        return v.buffer.buf

    cdef double flops(self) noexcept:
        """Of one step."""
        return GATED_FLOPS * self.batch * self.channels

    cdef size_t piece(self) noexcept:
        """Steps between two looks for Ctrl-C."""
        cdef double flops = self.flops()
        if flops * self.steps <= SIGNAL_FLOPS:
            return self.steps if self.steps > 0 else 1
        return <size_t> (SIGNAL_FLOPS / flops) + 1


cdef const char *moved(const void *array, size_t steps, ptrdiff_t step,
                       Py_ssize_t itemsize) noexcept:
    return <const char *> array + <Py_ssize_t> steps * step * itemsize


def gated_leaky(alpha, v, state, out, bint parallel_time):
    """Writes y into `out`, and into `state` that after the last step. All arrays have one dtype
    and features that are contiguous."""
    cdef Gated call = Gated(v)
    cdef frnn_gated all, run
    cdef frnn_status status
    cdef size_t left = call.steps, piece = call.piece()
    cdef View y
    all.struct_size, all.dtype = sizeof(frnn_gated), call.dtype
    all.batch, all.channels, all.parallel_time = call.batch, call.channels, parallel_time
    all.y = call.take("out", out, True, &all.y_step, &all.y_row)
    y = call.views[0]
    all.alpha = call.take("alpha", alpha, False, &all.alpha_step, &all.alpha_row)
    all.v = call.take("v", v, False, &all.v_step, &all.v_row)
    all.state = call.take_state("state", state, True, &all.state_row)
    for name, other in zip(("alpha", "v", "state"), call.views[1:]):
        if not apart(&(<View> other).buffer, &y.buffer):
            raise ValueError(f"out: must not overlap {name}")
    run = all
    while left > 0:
        run.steps = left if left < piece else piece
        if call.flops() * run.steps < GIL_FLOPS:
            status = frnn_gated_leaky(&run)
        else:
            with nogil:
                status = frnn_gated_leaky(&run)
        check(status, "gated_leaky")
        left -= run.steps
        run.alpha = moved(run.alpha, run.steps, run.alpha_step, call.itemsize)
        run.v = moved(run.v, run.steps, run.v_step, call.itemsize)
        run.y = <void *> moved(run.y, run.steps, run.y_step, call.itemsize)
        if left > 0:
            PyErr_CheckSignals()


cdef bint apart(const Py_buffer *a, const Py_buffer *b) noexcept:
    cdef char *a_low
    cdef char *a_high
    cdef char *b_low
    cdef char *b_high
    extent(a, &a_low, &a_high)
    extent(b, &b_low, &b_high)
    return a_low >= b_high or b_low >= a_high


def gated_leaky_backward(alpha, v, y, state, dy, dalpha, dv, dstate, bint parallel_time):
    """Writes the gradients into dalpha and dv, which overlap nothing, and into dstate, which holds
    that of the final state before. dy may be None."""
    cdef Gated call = Gated(v)
    cdef frnn_gated_back all, run
    cdef frnn_status status
    cdef size_t end = call.steps, begin, piece = call.piece()
    all.struct_size, all.dtype = sizeof(frnn_gated_back), call.dtype
    all.batch, all.channels, all.parallel_time = call.batch, call.channels, parallel_time
    all.alpha = call.take("alpha", alpha, False, &all.alpha_step, &all.alpha_row)
    all.v = call.take("v", v, False, &all.v_step, &all.v_row)
    all.y = call.take("y", y, False, &all.y_step, &all.y_row)
    all.state = call.take_state("state", state, False, &all.state_row)
    all.dy = NULL
    all.dy_step = all.dy_row = 0
    if dy is not None:
        all.dy = call.take("dy", dy, False, &all.dy_step, &all.dy_row)
    all.dalpha = call.take("dalpha", dalpha, True, &all.dalpha_step, &all.dalpha_row)
    all.dv = call.take("dv", dv, True, &all.dv_step, &all.dv_row)
    all.dstate = call.take_state("dstate", dstate, True, &all.dstate_row)
    while end > 0:
        begin = end - piece if end > piece else 0
        run = all
        run.steps = end - begin
        run.alpha = moved(all.alpha, begin, all.alpha_step, call.itemsize)
        run.v = moved(all.v, begin, all.v_step, call.itemsize)
        run.y = moved(all.y, begin, all.y_step, call.itemsize)
        if dy is not None:
            run.dy = moved(all.dy, begin, all.dy_step, call.itemsize)
        run.dalpha = <void *> moved(all.dalpha, begin, all.dalpha_step, call.itemsize)
        run.dv = <void *> moved(all.dv, begin, all.dv_step, call.itemsize)
        if begin > 0:
            run.state = moved(all.y, begin - 1, all.y_step, call.itemsize)
            run.state_row = all.y_row
        if call.flops() * run.steps < GIL_FLOPS:
            status = frnn_gated_leaky_backward(&run)
        else:
            with nogil:
                status = frnn_gated_leaky_backward(&run)
        check(status, "gated_leaky_backward")
        end = begin
        if end > 0:
            PyErr_CheckSignals()
