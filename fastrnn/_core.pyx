# cython: freethreading_compatible=True, binding=False
"""The face of the C library: check, fill a struct, one call, raise.

Nothing here converts or copies arrays; that is done in Python (see _arrays.py). What is checked is
what memory safety needs: format, sizes, strides and alignment of every buffer. Arrays come in as
plain objects through the buffer protocol, which costs a third of a typed memoryview argument.
"""

import numpy

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uintptr_t

# A call that does less than this keeps the GIL: giving it up and back costs as much as the work.
cdef double GIL_FLOPS = 2e4
# A longer call is cut into pieces of about this much work, between which Ctrl-C is heard.
cdef double SIGNAL_FLOPS = 5e8

cdef dict ACTIVATIONS = {"tanh": FRNN_TANH, "relu": FRNN_RELU, "identity": FRNN_IDENTITY}
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


include "_buffers.pxi"


cdef class Net:
    """A configuration with its packed weights; immutable after pack(), shared by streams."""
    cdef frnn_config config
    cdef readonly size_t gates, states
    cdef object dtype
    cdef Memory packed
    cdef list spare           # workspaces of calls that are over, for the next ones
    cdef double step_flops    # work of one step of one sequence

    def __init__(self, str cell, str activation, str dtype, size_t input_size,
                 size_t hidden_size, size_t num_layers, size_t num_directions):
        cdef size_t packed_size
        self.config.struct_size = sizeof(frnn_config)
        self.config.cell = cell_number(cell)
        self.config.activation = ACTIVATIONS[activation]
        self.config.dtype = FRNN_F32 if dtype == "float32" else FRNN_F64
        self.config.input_size = input_size
        self.config.hidden_size = hidden_size
        self.config.num_layers = num_layers
        self.config.num_directions = num_directions
        check(frnn_config_check(&self.config), "configuration")
        check(frnn_packed_size(&self.config, &packed_size), "configuration")
        info = frnn_cell_get(self.config.cell)
        self.gates = info.gates
        self.states = info.states
        self.dtype = numpy.dtype(dtype)
        self.spare = []
        self.step_flops = 2.0 * num_layers * num_directions * (
            self.gates * hidden_size * (<double> input_size + hidden_size) + hidden_size)

    def pack(self, list weights):
        """Packs a list of (weight_ih, weight_hh, bias_ih, bias_hh, alpha), each an array or None:
        layer by layer, forward before reverse. Returns a new Net."""
        cdef Net net = Net.__new__(Net)
        cdef size_t size
        cdef frnn_weights *w
        cdef const void **field
        cdef size_t parts = self.config.num_layers * self.config.num_directions
        if <size_t> len(weights) != parts:
            raise ValueError(f"weights: expected {parts} parts, got {len(weights)}")
        net.config = self.config
        net.gates, net.states, net.step_flops = self.gates, self.states, self.step_flops
        net.dtype, net.spare = self.dtype, []
        check(frnn_packed_size(&self.config, &size), "weights")
        net.packed = Memory(size)
        table = Memory(parts * sizeof(frnn_weights))
        w = <frnn_weights *> table.address
        views = []
        for p in range(parts):
            expected = self.weight_sizes(p)
            field = <const void **> &w[p]
            for i in range(5):
                field[i] = NULL
                if weights[p][i] is None:
                    continue
                v = view(weights[p][i], False, self.config.dtype)
                check_contiguous(&v.buffer)
                if v.buffer.len != expected[i] * v.buffer.itemsize:
                    raise ValueError(f"weights: part {p}, array {i} has the wrong size")
                views.append(v)
                field[i] = v.buffer.buf
        check(frnn_pack(&self.config, w, net.packed.address, size), "weights")
        return net

    cdef tuple weight_sizes(self, size_t part):
        rows = self.gates * self.config.hidden_size
        below = self.config.num_directions * self.config.hidden_size
        inputs = self.config.input_size if part < self.config.num_directions else below
        return rows * inputs, rows * self.config.hidden_size, rows, rows, self.config.hidden_size

    def call(self, x, state, out, bint batch_first, bint parallel_time):
        """Runs whole sequences: x [T, B, I], [B, T, I] with batch_first, or [T, I].

        Returns (y, state), or None if an argument would first have to be converted or refused: the
        caller does that and calls again. Nothing has happened then."""
        cdef Py_buffer bx, by
        cdef Workspace space
        cdef tuple y_shape, state_shape
        if type(x) is not numpy.ndarray or not self.borrow(x, &bx, False):
            return None
        try:
            if (bx.ndim not in (2, 3)
                    or <size_t> bx.shape[bx.ndim - 1] != self.config.input_size):
                return None
            batch_first = batch_first and bx.ndim == 3
            width = self.config.num_directions * self.config.hidden_size
            y_shape = (bx.shape[0], width)
            if bx.ndim == 3:
                y_shape = (bx.shape[0], bx.shape[1], width)
            if out is None:
                out = numpy.empty(y_shape, self.dtype)
            elif type(out) is not numpy.ndarray or out.shape != y_shape:
                return None
            state_shape = self.state_shape(&bx, batch_first)
            if state is None:
                state = ()
            else:
                if self.states == 1:
                    state = (state,)
                if type(state) is not tuple or <size_t> len(state) != self.states:
                    return None
                for array in state:
                    if not self.plain_state(array, state_shape):
                        return None
            if not self.borrow(out, &by, True):
                return None
            try:
                check_disjoint(&bx, &by)
                space = self.workspace(&bx, &by, batch_first, parallel_time)
                for i in range(len(state)):
                    space.exchange(self, i, state[i], True)
                self.run_pieces(&space.run)
            finally:
                PyBuffer_Release(&by)
        finally:
            PyBuffer_Release(&bx)
        final = numpy.empty(state_shape, self.dtype)
        space.exchange(self, 0, final, False)
        if self.states == 2:
            final = final, numpy.empty(state_shape, self.dtype)
            space.exchange(self, 1, final[1], False)
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

    cdef tuple state_shape(self, const Py_buffer *x, bint batch_first):
        cdef tuple shape = (self.config.hidden_size,)
        if x.ndim == 3:
            shape = (x.shape[0 if batch_first else 1], *shape)
        if self.gates > 0:
            shape = (self.config.num_layers * self.config.num_directions, *shape)
        return shape

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
                             bint parallel_time):
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
        space.prepare(self, x.shape[time_axis], x.shape[row_axis] if batched else 1)
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
        cdef Py_ssize_t itemsize = 4 if self.config.dtype == FRNN_F32 else 8
        cdef frnn_run run = whole[0]
        cdef frnn_status status
        if self.config.num_directions == 1 and flops * left > SIGNAL_FLOPS:
            piece = <size_t> (SIGNAL_FLOPS / flops) + 1
        while True:
            run.steps = left if left < piece else piece
            if flops * run.steps < GIL_FLOPS:
                status = frnn_forward(&self.config, self.packed.address, self.packed.size, &run)
            else:
                with nogil:
                    status = frnn_forward(&self.config, self.packed.address, self.packed.size,
                                          &run)
            check(status, "forward")
            left -= run.steps
            if left == 0:
                return 0
            PyErr_CheckSignals()
            run.x = <const char *> run.x + <Py_ssize_t> run.steps * run.x_step * itemsize
            run.y = <char *> run.y + <Py_ssize_t> run.steps * run.y_step * itemsize


cdef class Workspace:
    """State and scratch of one call or one stream; `run` points into them."""
    cdef frnn_run run
    cdef Memory state, scratch

    cdef int prepare(self, Net net, size_t steps, size_t batch) except -1:
        cdef size_t state_size, scratch_size
        check(frnn_state_size(&net.config, batch, &state_size), "state")
        check(frnn_scratch_size(&net.config, steps, batch, &scratch_size), "scratch")
        if self.state is None or self.state.size < state_size:
            self.state = Memory(state_size)
        if self.scratch is None or self.scratch.size < scratch_size:
            self.scratch = Memory(scratch_size)
        self.run.struct_size = sizeof(frnn_run)
        self.run.steps, self.run.batch = steps, batch
        self.run.state, self.run.state_size = self.state.address, self.state.size
        self.run.scratch, self.run.scratch_size = self.scratch.address, self.scratch.size
        return self.reset(net)

    cdef int reset(self, Net net) except -1:
        return check(frnn_state_reset(&net.config, self.run.batch, self.run.state,
                                      self.run.state_size), "state")

    cdef int exchange(self, Net net, size_t index, object array, bint store) except -1:
        """Copies the state array `index` from (store) or to a contiguous array."""
        cdef View v = view(array, not store, net.config.dtype)
        cdef size_t parts = net.config.num_layers * net.config.num_directions
        check_contiguous(&v.buffer)
        if <size_t> v.buffer.len != (parts * self.run.batch * net.config.hidden_size
                                     * <size_t> v.buffer.itemsize):
            raise ValueError("state: wrong size")
        if store:
            return check(frnn_state_set(&net.config, self.run.batch, self.run.state,
                                        self.run.state_size, index, v.buffer.buf), "state")
        return check(frnn_state_get(&net.config, self.run.batch, self.run.state,
                                    self.run.state_size, index, v.buffer.buf), "state")


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
        self.y_shape = (batch, net.config.hidden_size)
        self.dtype = net.dtype

    cpdef reset(self):
        """Back to the state before the first step."""
        self.space.reset(self.net)

    def get(self, tuple arrays):
        """Copies the state into arrays [L, B, H]."""
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


def open_model(data, bint bare=False):
    """Validates the bytes of a model file. Returns (config, tensors): a dict of what the file says
    of the net (None if `bare`), and name -> (dtype, shape, bytes)."""
    cdef Py_buffer buffer
    cdef frnn_model model
    cdef frnn_tensor tensor
    cdef frnn_status status
    PyObject_GetBuffer(data, &buffer, 0)
    try:
        if bare:
            status = frnn_model_open_tensors(&model, buffer.buf, buffer.len)
        else:
            status = frnn_model_open(&model, buffer.buf, buffer.len)
        if status != FRNN_OK:
            raise ValueError(model.message.decode("ascii", "replace"))
        tensors = {}
        for i in range(model.num_tensors):
            check(frnn_model_tensor(&model, i, &tensor), "model")
            tensors[tensor.name[:tensor.name_size].decode()] = (
                tensor.dtype[:tensor.dtype_size].decode(),
                tuple(tensor.shape[axis] for axis in range(tensor.rank)),
                (<const char *> tensor.data)[:tensor.data_size],
            )
    finally:
        PyBuffer_Release(&buffer)
    if bare:
        return None, tensors
    config = {
        "cell": frnn_cell_get(model.config.cell).name.decode(),
        "activation": [name for name, value in ACTIVATIONS.items()
                       if value == model.config.activation][0],
        "input_size": model.config.input_size,
        "hidden_size": model.config.hidden_size,
        "num_layers": model.config.num_layers,
        "bidirectional": model.config.num_directions == 2,
        "bias": bool(model.bias),
        "batch_first": bool(model.batch_first),
        "dtype": "float32" if model.config.dtype == FRNN_F32 else "float64",
    }
    return config, tensors


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
