# Model files; part of _core.pyx.


def open_model(data, bint bare=False):
    """Validates the bytes of a model file. Returns (config, tensors): a dict of what the file says
    of the net (None if `bare`), and name -> (dtype, shape, bytes)."""
    cdef Py_buffer buffer
    cdef frnn_model model
    cdef const frnn_config *net
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
    net = &model.config
    config = {
        "cell": frnn_cell_get(net.cell).name.decode(),
        "activation": function_tuple(&net.activation),
        "gate_activation": function_tuple(&net.gate_activation),
        "output_activation": function_tuple(&net.output_activation),
        "input_size": net.input_size,
        "hidden_size": net.hidden_size,
        "num_layers": net.num_layers,
        "bidirectional": net.num_directions == 2,
        "proj_size": net.proj_size,
        "peephole": bool(net.peephole),
        "clip": net.clip,
        "cell_clip": net.cell_clip,
        "bias": bool(model.bias),
        "batch_first": bool(model.batch_first),
        "go_backwards": bool(model.go_backwards),
        "delays": tuple(net.delays[i] + net.fractions[i] if net.fractions[i] else net.delays[i]
                        for i in range(net.num_delays)),
        "dilated": bool(net.dilated),
        "periods": tuple(net.periods[i] for i in range(net.num_groups)),
        "group_sizes": tuple(net.group_sizes[i] for i in range(net.num_groups)),
        "connectivity": "full" if net.full else "slower",
        "dtype": "float32" if net.dtype == FRNN_F32 else "float64",
    }
    return config, tensors
