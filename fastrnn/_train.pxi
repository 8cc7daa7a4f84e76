# Training: what a forward keeps, and the backward over it; part of _core.pyx.


cdef class Tape:
    """What a training forward keeps for its backward; filled by Net.call.

    Tape(0) keeps what every step saves; Tape(k) the state before every k-th step only, from which
    the backward runs the steps once more, k rounded up to whole chains of the sums; Tape(-1)
    chooses k near the root of the number of steps. `saved` is memory to use instead of its own.
    """
    cdef Net net
    cdef object x, saved
    cdef bint batch_first, parallel_time
    cdef Py_ssize_t checkpoint
    cdef size_t steps, batch, segment   # segment 0: every step is saved
    cdef list states                    # before each segment, in their order
    cdef Ragged ragged                  # or None

    def __init__(self, Py_ssize_t checkpoint=0, saved=None):
        self.checkpoint, self.saved, self.states = checkpoint, saved, []

    @property
    def nbytes(self):
        """Bytes that are held for the backward, without x."""
        held = 0 if self.saved is None else self.saved.nbytes
        return held + sum((<Memory> state).size for state in self.states)

    def inputs(self):
        """The arrays that the backward reads."""
        return (self.x,)

    def shapes(self):
        """Of x, of y and of each state array."""
        cdef Py_buffer x
        PyObject_GetBuffer(self.x, &x, PyBUF_STRIDES)
        states = tuple(self.net.state_shape(&x, self.batch_first, i)
                       for i in range(self.net.states))
        PyBuffer_Release(&x)
        width = self.net.config.num_directions * self.net.width
        return self.x.shape, (*self.x.shape[:-1], width), states

    cdef int attach(self, Net net, object x, bint batch_first) except -1:
        cdef int time_axis = 1 if batch_first and x.ndim == 3 else 0
        self.net, self.x, self.batch_first = net, x, batch_first and x.ndim == 3
        self.steps = x.shape[time_axis]
        self.batch = x.shape[1 - time_axis] if x.ndim == 3 else 1
        return 0

    cdef int saved_buffer(self, size_t needed, char **address) except -1:
        """The memory for what is saved."""
        cdef View v
        if self.saved is None:
            self.saved = aligned(needed)
        v = View()
        PyObject_GetBuffer(self.saved, &v.buffer, PyBUF_WRITABLE)
        v.held = True
        if <size_t> v.buffer.len < needed or <uintptr_t> v.buffer.buf % <uintptr_t> FRNN_ALIGN:
            raise ValueError(f"saved: expected {needed} bytes on a boundary of {FRNN_ALIGN}")
        address[0] = <char *> v.buffer.buf
        return 0

    cdef int record(self, Net net, Workspace space, object x, bint batch_first,
                    Ragged ragged) except -1:
        """Runs the forward that `space` is ready for, and keeps what it must."""
        cdef size_t needed, unit, left, piece
        cdef char *address
        cdef frnn_run run = space.run
        self.attach(net, x, batch_first)
        self.parallel_time, self.ragged = run.parallel_time, ragged
        self.segment = 0
        if self.checkpoint != 0 and net.gates > 0 and ragged is None:
            unit = frnn_checkpoint_unit(&net.config, self.batch)
            piece = self.checkpoint if self.checkpoint > 0 else <size_t> math.isqrt(self.steps)
            piece = unit if piece < unit else piece
            if piece < self.steps and piece <= self.steps - unit:
                self.segment = (piece + unit - 1) // unit * unit
        if self.segment == 0:
            check(frnn_saved_size(&net.config, self.steps, self.batch, &needed), "tape")
            self.saved_buffer(needed, &address)
            run.saved, run.saved_size = address, needed
            return net.run_once(&run)
        check(frnn_state_size(&net.config, self.batch, &needed), "tape")
        left = self.steps
        while left > 0:
            piece = left % self.segment if left % self.segment else self.segment
            state = Memory(needed)
            memcpy(state.address, space.state.address, needed)
            self.states.append(state)
            run.steps = piece
            net.run_once(&run)
            net.advance(&run)
            left -= piece
            PyErr_CheckSignals()
        return 0

    def backward(self, dy, tuple dstate, bint need_x, list grads, bint accumulate=False):
        """Gradients of x (or None) and of the state before the first step (a tuple).

        dy is like y, or has no axis of time and belongs to the last step, or is None. dstate holds
        arrays or None. grads is None or holds, for each part, arrays or None in the order of
        Net.pack; they are overwritten, or added to with `accumulate`.
        """
        cdef Net net = self.net
        cdef View x, d
        cdef Adjoint space
        cdef frnn_back *back
        cdef size_t i
        if net is None:
            raise ValueError("tape: nothing was recorded")
        x = view(self.x, False, net.config.dtype)
        try:
            space = net.spare_back.pop()
        except IndexError:
            space = Adjoint()
        space.prepare(net, self.segment if self.segment else self.steps, self.steps, self.batch,
                      self.ragged)
        back = &space.back
        back.x = x.buffer.buf
        self.strides(&x.buffer, &back.x_step, &back.x_row)
        back.dy, back.dx, back.gradients = NULL, NULL, NULL
        back.dy_begin = 0
        dx = None
        if need_x:
            dx = numpy.empty(self.x.shape, net.dtype)
            d = view(dx, True, net.config.dtype)
            back.dx = d.buffer.buf
            self.strides(&d.buffer, &back.dx_step, &back.dx_row)
        if dy is not None and self.steps > 0:
            d = view(dy, False, net.config.dtype)
            self.take_dy(&d.buffer, back)
        for i in range(<size_t> len(dstate)):
            if dstate[i] is not None:
                space.exchange(net, i, dstate[i], True)
        views = []
        if grads is not None:
            table = net.gradient_table(grads, views)
            back.gradients = <const frnn_gradients *> (<Memory> table).address
        back.accumulate, back.parallel_time = accumulate, self.parallel_time
        if self.segment == 0:
            check(frnn_saved_size(&net.config, self.steps, self.batch, &back.saved_size), "tape")
            self.saved_buffer(back.saved_size, <char **> &back.saved)
            back.steps = self.steps
            net.run_back(back)
        else:
            self.segments_back(net, back, x.buffer.itemsize)
        final = tuple(numpy.empty(shape, net.dtype) for shape in self.shapes()[2])
        for i in range(net.states):
            space.exchange(net, i, final[i], False)
        net.spare_back.append(space)
        return dx, final

    cdef void strides(self, const Py_buffer *b, ptrdiff_t *step, ptrdiff_t *row) noexcept:
        cdef int time_axis = 1 if self.batch_first else 0
        step[0] = b.strides[time_axis] // b.itemsize
        row[0] = b.strides[1 - time_axis] // b.itemsize if b.ndim == 3 else 0

    cdef int take_dy(self, const Py_buffer *d, frnn_back *back) except -1:
        cdef Py_ssize_t axes = self.x.ndim
        cdef tuple expected = self.shapes()[1]
        if not regular(d):
            raise ValueError("dy: expected an aligned array with contiguous features")
        if d.ndim == axes - 1:
            expected = expected[1:] if axes == 2 or not self.batch_first else expected[::2]
            back.dy_step, back.dy_begin = 0, self.steps - 1
            back.dy_row = d.strides[0] // d.itemsize if axes == 3 else 0
        elif d.ndim == axes:
            self.strides(d, &back.dy_step, &back.dy_row)
        for axis in range(d.ndim):
            if d.ndim != len(expected) or d.shape[axis] != expected[axis]:
                raise ValueError(f"dy: expected shape {expected}")
        back.dy = d.buf
        return 0

    cdef int segments_back(self, Net net, frnn_back *back, Py_ssize_t itemsize) except -1:
        """From the last segment to the first: forward once more, then backward."""
        cdef Workspace space = Workspace()
        cdef frnn_back piece
        cdef frnn_run *run = &space.run
        cdef size_t begin = self.steps, width
        cdef const char *x = <const char *> back.x
        cdef char *address
        width = net.config.num_directions * net.width
        space.prepare(net, self.segment, self.batch)
        y = Memory(self.segment * self.batch * width * <size_t> itemsize)
        held = Tape()
        check(frnn_saved_size(&net.config, self.segment, self.batch, &run.saved_size), "tape")
        held.saved_buffer(run.saved_size, &address)
        run.y, run.saved = y.address, address
        run.y_row, run.y_step = width, width * self.batch
        run.x_row, run.x_step = back.x_row, back.x_step
        for state in reversed(self.states):
            piece = back[0]
            piece.steps = begin if begin < self.segment else self.segment
            begin -= piece.steps
            run.steps = piece.steps
            run.x = piece.x = x + <Py_ssize_t> begin * back.x_step * itemsize
            memcpy(run.state, (<Memory> state).address, (<Memory> state).size)
            net.run_once(run)
            piece.saved, piece.saved_size = run.saved, run.saved_size
            if back.dx != NULL:
                piece.dx = <char *> back.dx + <Py_ssize_t> begin * back.dx_step * itemsize
            piece.dy_begin = 0
            if back.dy_begin >= begin + piece.steps:
                piece.dy = NULL
            elif back.dy != NULL:
                piece.dy = <const char *> back.dy + <Py_ssize_t> begin * back.dy_step * itemsize
                if back.dy_begin > begin:
                    piece.dy_begin = back.dy_begin - begin
            net.run_back(&piece)
            PyErr_CheckSignals()
        return 0


cdef class Adjoint:
    """Adjoint and scratch of one backward; `back` points into them."""
    cdef frnn_back back
    cdef Memory adjoint, scratch

    cdef int prepare(self, Net net, size_t steps, size_t total, size_t batch,
                     Ragged ragged) except -1:
        cdef size_t adjoint_size, scratch_size
        check(frnn_adjoint_size(&net.config, total, batch, &adjoint_size), "backward")
        if ragged is None:
            check(frnn_backward_scratch_size(&net.config, steps, batch, &scratch_size), "backward")
            self.back.lengths, self.back.reset = NULL, NULL
        else:
            check(frnn_ragged_backward_scratch_size(&net.config, steps, batch, &scratch_size),
                  "backward")
            self.back.lengths, self.back.reset = ragged.lengths, ragged.reset
        if self.adjoint is None or self.adjoint.size < adjoint_size:
            self.adjoint = Memory(adjoint_size)
        if self.scratch is None or self.scratch.size < scratch_size:
            self.scratch = Memory(scratch_size)
        self.back.struct_size = sizeof(frnn_back)
        self.back.total_steps, self.back.batch = total, batch
        self.back.adjoint, self.back.adjoint_size = self.adjoint.address, self.adjoint.size
        self.back.scratch, self.back.scratch_size = self.scratch.address, self.scratch.size
        return check(frnn_adjoint_reset(&net.config, total, batch, self.adjoint.address,
                                        self.adjoint.size), "backward")

    cdef int exchange(self, Net net, size_t index, object array, bint store) except -1:
        """Copies the array `index` from (store) or to a contiguous array."""
        cdef View v = view(array, not store, net.config.dtype)
        check_contiguous(&v.buffer)
        if <size_t> v.buffer.len != (net.slots[index] * self.back.batch * net.state_width(index)
                                     * <size_t> v.buffer.itemsize):
            raise ValueError("dstate: wrong size")
        if store:
            return check(frnn_adjoint_set(&net.config, self.back.total_steps, self.back.batch,
                                          self.adjoint.address, self.adjoint.size, index,
                                          v.buffer.buf), "dstate")
        return check(frnn_adjoint_get(&net.config, self.back.total_steps, self.back.batch,
                                      self.adjoint.address, self.adjoint.size, index,
                                      v.buffer.buf), "dstate")
