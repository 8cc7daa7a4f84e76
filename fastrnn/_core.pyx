# cython: freethreading_compatible=True, binding=False
"""The face of the C library: check, fill a struct, one call, raise.

Nothing here converts or copies arrays; that is done in Python (see _arrays.py). What is checked is
what memory safety needs: format, sizes, strides and alignment of every buffer. Arrays come in as
plain objects through the buffer protocol, which costs a third of a typed memoryview argument.
"""

import math

import numpy

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

# A call that does less than this keeps the GIL: giving it up and back costs as much as the work.
cdef double GIL_FLOPS = 2e4
# A longer call is cut into pieces of about this much work, between which Ctrl-C is heard.
cdef double SIGNAL_FLOPS = 5e8

# Names, in the order of enum frnn_activation.
cdef list ACTIVATIONS = [frnn_activation_get(<frnn_activation> i).name.decode()
                         for i in range(FRNN_ACTIVATION_COUNT)]
cdef tuple TANH = ("tanh", 0.0, 0.0)
cdef tuple SIGMOID = ("sigmoid", 0.0, 0.0)
cdef dict ERRORS = {FRNN_E_SIZE: MemoryError, FRNN_E_ISA: RuntimeError}


cdef int check(frnn_status status, str what) except -1:
    if status != FRNN_OK:
        raise ERRORS.get(status, ValueError)(f"{what}: {frnn_strerror(status).decode()}")
    return 0


cdef frnn_cell cell_number(str name) except *:
    for i in range(FRNN_CELL_COUNT):
        if frnn_cell_get(<frnn_cell> i).name.decode() == name:
            return <frnn_cell> i
    raise ValueError(f"cell: expected one of the table of cells, got {name!r}")


cdef frnn_function function(tuple activation) except *:
    """From (name, alpha, beta)."""
    cdef frnn_function f
    name, f.alpha, f.beta = activation
    f.kind = <frnn_activation> <int> ACTIVATIONS.index(name)
    return f


cdef int set_structure(frnn_config *config, tuple delays, tuple periods,
                       tuple group_sizes) except -1:
    """Delays may be fractions, of which the whole part and the rest are kept apart."""
    if len(delays) > FRNN_MAX_DELAYS:
        raise ValueError(f"delays: expected at most {FRNN_MAX_DELAYS}, got {len(delays)}")
    if len(periods) > FRNN_MAX_GROUPS or len(periods) != len(group_sizes):
        raise ValueError(f"periods: expected at most {FRNN_MAX_GROUPS}, with as many group_sizes")
    config.num_delays, config.num_groups = len(delays), len(periods)
    for i in range(len(delays)):
        config.delays[i] = <size_t> math.floor(delays[i])
        config.fractions[i] = delays[i] - math.floor(delays[i])
    for i in range(len(periods)):
        config.periods[i], config.group_sizes[i] = periods[i], group_sizes[i]
    return 0


cdef bint plain_clock(object clock, tuple shape) except -1:
    """Whether the clocks of a state can be taken as they are."""
    return (type(clock) is numpy.ndarray and clock.dtype == numpy.int64 and clock.shape == shape
            and clock.flags.c_contiguous and clock.flags.aligned
            and clock.min(initial=0) >= 0)


cdef tuple function_tuple(const frnn_function *f):
    return ACTIVATIONS[<int> f.kind], f.alpha, f.beta


include "_buffers.pxi"


cdef class Net:
    """A configuration with its packed weights; immutable after pack(), shared by streams.

    An activation is a tuple (name, alpha, beta), a limit of 0 none."""
    cdef frnn_config config
    cdef readonly size_t gates, states
    cdef readonly bint clocked  # the state has clocks too
    cdef size_t width         # values of h, and of one direction's output
    cdef size_t slots[2]      # steps of all parts in the arrays of a state
    cdef object dtype
    cdef Memory packed, packed_back
    cdef list weights, masks  # as given to pack(), for packed_back
    cdef list spare, spare_back   # workspaces of calls that are over, for the next ones
    cdef double step_flops    # work of one step of one sequence

    def __init__(self, str cell, str dtype, size_t input_size, size_t hidden_size,
                 size_t num_layers, size_t num_directions, size_t proj_size=0,
                 bint peephole=False, double clip=0.0, double cell_clip=0.0,
                 tuple activation=TANH, tuple gate_activation=SIGMOID,
                 tuple output_activation=TANH, tuple delays=(), bint dilated=False,
                 tuple periods=(), tuple group_sizes=(), bint full=False, size_t mask_blocks=0):
        cdef size_t packed_size
        cdef frnn_config *config = &self.config
        config.struct_size = sizeof(frnn_config)
        config.cell = cell_number(cell)
        config.dtype = FRNN_F32 if dtype == "float32" else FRNN_F64
        config.input_size, config.hidden_size = input_size, hidden_size
        config.num_layers, config.num_directions = num_layers, num_directions
        config.proj_size, config.peephole = proj_size, peephole
        config.clip, config.cell_clip = clip, cell_clip
        config.activation = function(activation)
        config.gate_activation = function(gate_activation)
        config.output_activation = function(output_activation)
        set_structure(config, delays, periods, group_sizes)
        config.dilated, config.full, config.mask_blocks = dilated, full, mask_blocks
        check(frnn_config_check(config), "configuration")
        check(frnn_packed_size(config, &packed_size), "configuration")
        info = frnn_cell_get(config.cell)
        self.gates = info.gates
        self.states = info.states
        self.dtype = numpy.dtype(dtype)
        self.spare, self.spare_back = [], []
        self.clocked = config.num_groups > 0
        self.width = frnn_output_size(config)
        self.slots[0] = self.slots[1] = 0
        for layer in range(num_layers if dilated else 1):
            part = frnn_part_shape(config, layer)
            for i in range(2):
                self.slots[i] += num_directions * part.history[i]
        if not dilated:
            self.slots[0] *= num_layers
            self.slots[1] *= num_layers
        self.step_flops = 2.0 * num_layers * num_directions * (
            self.gates * hidden_size * (<double> input_size + self.width) + hidden_size)

    def pack(self, list weights, list masks=None):
        """Packs a list of (weight_ih, weight_hh, bias_ih, bias_hh, alpha, weight_hr, peephole, and
        those of later delays), each an array or None: layer by layer, forward before
        reverse; and masks [H, O] of booleans likewise. Returns a new Net, which shares the
        workspaces of this one."""
        cdef Net net = Net.__new__(Net)
        cdef size_t size
        net.config = self.config
        net.gates, net.states, net.step_flops = self.gates, self.states, self.step_flops
        net.width, net.clocked = self.width, self.clocked
        net.slots = self.slots
        net.dtype, net.spare, net.spare_back = self.dtype, self.spare, self.spare_back
        net.weights, net.masks = weights, masks
        check(frnn_packed_size(&self.config, &size), "weights")
        net.packed = Memory(size)
        views = []
        table = self.weight_table(weights, masks, views)
        check(frnn_pack(&self.config, <const frnn_weights *> table.address, net.packed.address,
                        size), "weights")
        return net

    cdef Memory array_table(self, str name, list arrays, list views, bint writable, size_t fields):
        """The addresses of one tuple of arrays per part, checked, in structs of so many pointers;
        `views` holds on to them."""
        cdef View v
        cdef void **field
        cdef size_t expected, parts = self.config.num_layers * self.config.num_directions
        if <size_t> len(arrays) != parts:
            raise ValueError(f"{name}: expected {parts} parts, got {len(arrays)}")
        table = Memory(parts * fields * sizeof(void *))
        field = <void **> table.address
        memset(field, 0, table.size)
        for p in range(parts):
            for i, array in enumerate(arrays[p]):
                if array is None:
                    continue
                v = view(array, writable, self.config.dtype)
                check_contiguous(&v.buffer)
                expected = frnn_weight_elements(&self.config, p // self.config.num_directions, i)
                if expected == 0 or (
                    <size_t> v.buffer.len != expected * <size_t> v.buffer.itemsize
                ):
                    raise ValueError(f"{name}: part {p}, array {i} has the wrong size")
                views.append(v)
                field[fields * p + i] = v.buffer.buf
        return table

    cdef Memory weight_table(self, list weights, list masks, list views):
        cdef size_t i, elements = self.config.hidden_size * self.width
        cdef View v
        table = self.array_table("weights", weights, views, False,
                                 sizeof(frnn_weights) // sizeof(void *))
        for i in range(<size_t> len(masks or ())):
            v = contiguous(masks[i], elements, "masks")
            views.append(v)
            (<frnn_weights *> table.address)[i].mask = <const unsigned char *> v.buffer.buf
        return table

    cdef Memory gradient_table(self, list grads, list views):
        return self.array_table("grads", grads, views, True,
                                sizeof(frnn_gradients) // sizeof(void *))

    cdef Memory transposed(self):
        """The weights as the backward reads them; packed at its first call."""
        cdef size_t size
        cdef Memory packed
        if self.packed_back is None:
            check(frnn_packed_back_size(&self.config, &size), "weights")
            packed = Memory(size)
            views = []
            table = self.weight_table(self.weights, self.masks, views)
            check(frnn_pack_back(&self.config, <const frnn_weights *> table.address,
                                 packed.address, size), "weights")
            self.packed_back = packed
        return self.packed_back

    def call(self, x, state, out, bint batch_first, bint parallel_time, Tape tape=None,
             lengths=None, reset=None):
        """Runs whole sequences: x [T, B, I], [B, T, I] with batch_first, or [T, I]; for a backward
        with a tape; ragged batches with lengths [B] and reset [T, B].

        Returns (y, state), or None if an argument would first have to be converted or refused: the
        caller does that and calls again. Nothing has happened then."""
        cdef Py_buffer bx, by
        cdef Workspace space
        cdef Ragged ragged
        cdef tuple y_shape, state_shape, c_shape
        if type(x) is not numpy.ndarray or not self.borrow(x, &bx, False):
            return None
        try:
            if (bx.ndim not in (2, 3)
                    or <size_t> bx.shape[bx.ndim - 1] != self.config.input_size):
                return None
            batch_first = batch_first and bx.ndim == 3
            width = self.config.num_directions * self.width
            y_shape = (bx.shape[0], width)
            if bx.ndim == 3:
                y_shape = (bx.shape[0], bx.shape[1], width)
            if out is None:
                out = numpy.empty(y_shape, self.dtype)
            elif type(out) is not numpy.ndarray or out.shape != y_shape:
                return None
            state_shape = c_shape = self.state_shape(&bx, batch_first, 0)
            if self.config.proj_size > 0 or self.config.num_delays > 0:
                c_shape = self.state_shape(&bx, batch_first, 1)
            if state is None:
                state = ()
            else:
                if self.states + self.clocked == 1:
                    state = (state,)
                if type(state) is not tuple or <size_t> len(state) != self.states + self.clocked:
                    return None
                for i in range(self.states):
                    if not self.plain_state(state[i], self.state_shape(&bx, batch_first, i)):
                        return None
                if self.clocked and not plain_clock(state[self.states], state_shape[1:-1]):
                    return None
            if not self.borrow(out, &by, True):
                return None
            try:
                check_disjoint(&bx, &by)
                ragged = None
                if lengths is not None or reset is not None:
                    ragged = Ragged(lengths, reset, bx.shape[1 if batch_first else 0],
                                    1 if bx.ndim == 2 else bx.shape[0 if batch_first else 1])
                space = self.workspace(&bx, &by, batch_first, parallel_time, ragged)
                for i in range(<size_t> len(state)):
                    space.exchange(self, i, state[i], True)
                if tape is None:
                    self.run_pieces(&space.run)
                else:
                    tape.record(self, space, x, batch_first, ragged)
            finally:
                PyBuffer_Release(&by)
        finally:
            PyBuffer_Release(&bx)
        final = numpy.empty(state_shape, self.dtype)
        space.exchange(self, 0, final, False)
        if self.states == 2:
            final = final, numpy.empty(c_shape, self.dtype)
            space.exchange(self, 1, final[1], False)
        if self.clocked:
            clock = numpy.empty(state_shape[1:-1], numpy.int64)
            space.exchange(self, self.states, clock, False)
            final = (*final, clock) if self.states == 2 else (final, clock)
        self.spare.append(space)
        return out, final

    cdef bint borrow(self, object array, Py_buffer *buffer, bint writable) except -1:
        """Takes the buffer of an array that the kernels use as it is; False if it is none."""
        try:
            PyObject_GetBuffer(
                array, buffer, PyBUF_FORMAT | PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0)
            )
        except (BufferError, TypeError, ValueError):
            return False
        if right_format(buffer, self.config.dtype) and regular(buffer):
            return True
        PyBuffer_Release(buffer)
        return False

    cdef tuple state_shape(self, const Py_buffer *x, bint batch_first, size_t index):
        """Of the state array `index`."""
        cdef tuple shape = (self.state_width(index),)
        if x.ndim == 3:
            shape = (x.shape[0 if batch_first else 1], *shape)
        if self.gates > 0:
            shape = (self.slots[index], *shape)
        return shape

    cdef size_t state_width(self, size_t index) noexcept:
        return self.width if index == 0 else self.config.hidden_size

    cdef bint plain_state(self, object array, tuple shape) except -1:
        cdef Py_buffer buffer
        cdef bint contiguous
        if type(array) is not numpy.ndarray or array.shape != shape:
            return False
        if not self.borrow(array, &buffer, False):
            return False
        contiguous = is_contiguous(&buffer)
        PyBuffer_Release(&buffer)
        return contiguous

    cdef Workspace workspace(self, const Py_buffer *x, const Py_buffer *y, bint batch_first,
                             bint parallel_time, Ragged ragged):
        """A workspace whose run is filled for x and y."""
        cdef Workspace space
        cdef int time_axis = 1 if batch_first else 0, row_axis = 0 if batch_first else 1
        cdef bint batched = x.ndim == 3
        if self.packed is None:
            raise RuntimeError("the weights are not packed")
        try:
            space = self.spare.pop()
        except IndexError:
            space = Workspace()
        space.prepare(self, x.shape[time_axis], x.shape[row_axis] if batched else 1, ragged)
        space.run.x, space.run.y = x.buf, y.buf
        space.run.x_step = x.strides[time_axis] // x.itemsize
        space.run.y_step = y.strides[time_axis] // y.itemsize
        space.run.x_row = x.strides[row_axis] // x.itemsize if batched else 0
        space.run.y_row = y.strides[row_axis] // y.itemsize if batched else 0
        space.run.parallel_time = parallel_time
        return space

    cdef int run_pieces(self, frnn_run *whole) except -1:
        """Runs all steps; where the net can be fed in pieces, long calls are interruptible."""
        cdef double flops = self.step_flops * (whole.batch if whole.batch > 0 else 1)
        cdef size_t left = whole.steps, piece = left
        cdef frnn_run run = whole[0]
        if (self.config.num_directions == 1 and flops * left > SIGNAL_FLOPS
                and run.lengths == NULL and run.reset == NULL):
            piece = <size_t> (SIGNAL_FLOPS / flops) + 1
        while True:
            run.steps = left if left < piece else piece
            self.run_once(&run)
            left -= run.steps
            if left == 0:
                return 0
            PyErr_CheckSignals()
            self.advance(&run)

    cdef int run_once(self, const frnn_run *run) except -1:
        cdef frnn_status status
        if self.step_flops * run.batch * run.steps < GIL_FLOPS:
            status = frnn_forward(&self.config, self.packed.address, self.packed.size, run)
        else:
            with nogil:
                status = frnn_forward(&self.config, self.packed.address, self.packed.size, run)
        return check(status, "forward")

    cdef void advance(self, frnn_run *run) noexcept:
        """Moves x and y behind the steps of a run."""
        cdef Py_ssize_t itemsize = 4 if self.config.dtype == FRNN_F32 else 8
        run.x = <const char *> run.x + <Py_ssize_t> run.steps * run.x_step * itemsize
        run.y = <char *> run.y + <Py_ssize_t> run.steps * run.y_step * itemsize

    cdef int run_back(self, const frnn_back *back) except -1:
        cdef frnn_status status
        cdef Memory packed = self.transposed()
        with nogil:
            status = frnn_backward(&self.config, packed.address, packed.size, back)
        return check(status, "backward")

    def saved_size(self, size_t steps, size_t batch):
        """Bytes that call_train saves."""
        cdef size_t size
        check(frnn_saved_size(&self.config, steps, batch, &size), "saved")
        return size

    def call_train(self, x, state, out, bint batch_first, saved, lengths=None, reset=None):
        """As call(), and fills `saved`, bytes on a boundary of FRNN_ALIGN, for backward()."""
        return self.call(x, state, out, batch_first, False, Tape(0, saved), lengths, reset)

    def backward(self, x, saved, dy, tuple dstate, bint batch_first, bint need_x, list grads,
                 bint accumulate=False, lengths=None, reset=None):
        """As Tape.backward, with the x, saved, lengths and reset of call_train()."""
        cdef Tape tape = Tape(0, saved)
        tape.attach(self, x, batch_first)
        if lengths is not None or reset is not None:
            tape.ragged = Ragged(lengths, reset, tape.steps, tape.batch)
        return tape.backward(dy, dstate, need_x, grads, accumulate)


cdef class Workspace:
    """State and scratch of one call or one stream; `run` points into them."""
    cdef frnn_run run
    cdef Memory state, scratch
    cdef size_t most_steps   # that scratch is known to serve

    cdef int prepare(self, Net net, size_t steps, size_t batch, Ragged ragged=None) except -1:
        if (ragged is not None or self.state is None or batch != self.run.batch
                or steps > self.most_steps):
            self.resize(net, steps, batch, ragged is not None)
        self.run.steps, self.run.batch = steps, batch
        self.run.lengths, self.run.reset = NULL, NULL
        if ragged is not None:
            self.run.lengths, self.run.reset = ragged.lengths, ragged.reset
        return self.reset(net)

    cdef int resize(self, Net net, size_t steps, size_t batch, bint ragged) except -1:
        """Makes room; what serves many steps serves fewer."""
        cdef size_t state_size, scratch_size
        check(frnn_state_size(&net.config, batch, &state_size), "state")
        if ragged:
            check(frnn_ragged_scratch_size(&net.config, steps, batch, &scratch_size), "scratch")
        else:
            check(frnn_scratch_size(&net.config, steps, batch, &scratch_size), "scratch")
        self.most_steps = 0
        if self.state is None or self.state.size < state_size:
            self.state = Memory(state_size)
        if self.scratch is None or self.scratch.size < scratch_size:
            self.scratch = Memory(scratch_size)
        if not ragged:
            self.most_steps = steps
        self.run.struct_size = sizeof(frnn_run)
        self.run.state, self.run.state_size = self.state.address, self.state.size
        self.run.scratch, self.run.scratch_size = self.scratch.address, self.scratch.size
        return 0

    cdef int reset(self, Net net) except -1:
        return check(frnn_state_reset(&net.config, self.run.batch, self.run.state,
                                      self.run.state_size), "state")

    cdef int exchange(self, Net net, size_t index, object array, bint store) except -1:
        """Copies the state array `index` from (store) or to a contiguous array."""
        cdef View v
        if index == net.states:
            return self.exchange_clock(net, array, store)
        v = view(array, not store, net.config.dtype)
        check_contiguous(&v.buffer)
        if <size_t> v.buffer.len != (net.slots[index] * self.run.batch * net.state_width(index)
                                     * <size_t> v.buffer.itemsize):
            raise ValueError("state: wrong size")
        if store:
            return check(frnn_state_set(&net.config, self.run.batch, self.run.state,
                                        self.run.state_size, index, v.buffer.buf), "state")
        return check(frnn_state_get(&net.config, self.run.batch, self.run.state,
                                    self.run.state_size, index, v.buffer.buf), "state")

    cdef int exchange_clock(self, Net net, object array, bint store) except -1:
        """Likewise the clocks: int64 [B], not negative."""
        cdef View v = contiguous(array, self.run.batch * 8, "clock", not store)
        if store:
            return check(frnn_state_set_clock(&net.config, self.run.batch, self.run.state,
                                              self.run.state_size,
                                              <const unsigned long long *> v.buffer.buf), "clock")
        return check(frnn_state_get_clock(&net.config, self.run.batch, self.run.state,
                                          self.run.state_size,
                                          <unsigned long long *> v.buffer.buf), "clock")


include "_stream.pxi"
include "_train.pxi"
include "_gated.pxi"
include "_model.pxi"


def isa():
    """The instruction set in use: the best that the machine has, or the one that the environment
    variable FASTRNN_ISA names (scalar, avx2 or avx512; read when fastrnn is imported).

    Example:
        >>> isa() in available_isas()
        True
    """
    name = frnn_isa()
    return None if name == NULL else name.decode()


def available_isas():
    """The instruction sets of this build that this machine can run, best first.

    Example:
        >>> available_isas()[-1]
        'scalar'
    """
    names = []
    while frnn_isa_available(len(names)) != NULL:
        names.append(frnn_isa_available(len(names)).decode())
    return names


def version():
    """The version of the C library."""
    return f"{FRNN_VERSION_MAJOR}.{FRNN_VERSION_MINOR}.{FRNN_VERSION_PATCH}"


cdef extern from *:
    """
    #if defined(__clang__)
    #define FRNN_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define FRNN_COMPILER "gcc " __VERSION__
    #else
    #define FRNN_COMPILER "unknown"
    #endif
    """
    const char *FRNN_COMPILER


def build_info():
    """How this extension was built."""
    return {"compiler": FRNN_COMPILER.decode()}


def fma_flops(size_t n):
    """Runs n rounds of independent multiply-adds in float32; returns their floating-point
    operations."""
    cdef double flops
    with nogil:
        flops = frnn_kernels_active(FRNN_F32).fma_flops(n)
    return flops


def read_bytes(buffer, size_t repeats):
    """Reads a buffer into registers `repeats` times; returns the bytes read."""
    cdef Py_buffer b
    cdef size_t done
    PyObject_GetBuffer(buffer, &b, 0)
    with nogil:
        done = frnn_kernels_active(FRNN_F32).read_bytes(b.buf, b.len, repeats)
    PyBuffer_Release(&b)
    return done
