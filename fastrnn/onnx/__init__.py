"""fastrnn and ONNX: recurrent nodes of a model as layers, and layers as a model.

    import fastrnn.onnx as fo

    net = fo.load("tagger.onnx")          # a graph of recurrent nodes: one object that runs it
    y, state = net(x)
    parts = fo.layers("speech.onnx")      # any other graph: its recurrent nodes by name
    fo.save(fastrnn.GRU(40, 128), "gru.onnx")

LSTM, GRU and RNN nodes are read from opset 7 on, with every input and attribute, in float and
double. What cannot be run exactly is refused by its name; nothing is guessed. Files are taken as
hostile: whatever is wrong with one is a ValueError, and data outside the file is read only below a
folder that the caller names.

Where ONNX's text leaves a choice, this is what holds:

    clip          limits what goes into f and g, not what goes into h, as ONNX Runtime has it
    input_forget  f = 1 - i; the rows of the forget gate are ignored, as ONNX Runtime has it
    sequence_lens outputs after a row's end are 0; a row of length 0 keeps its initial state (ONNX
                  Runtime gives 0)
    activation_alpha, activation_beta
                  the activations that take such a value take the next one of the list each, and
                  ONNX's default when the list has ended; Affine and ScaledTanh have no default

`fastrnn.onnx.backend` is an implementation of `onnx.backend.base.Backend`. The package onnx is
needed by this module only: `pip install "fastrnn[onnx]"`.
"""

try:
    import onnx as _onnx
except ModuleNotFoundError as error:
    if error.name != "onnx":
        raise
    raise ImportError("fastrnn.onnx needs the package onnx: pip install 'fastrnn[onnx]'") from error

if not hasattr(_onnx, "ModelProto"):
    raise ImportError("fastrnn.onnx needs the package onnx, and found another module of that name")

from ._model import Model, Part
from ._reader import layers, load
from ._writer import save, to_model

__all__ = ["Model", "Part", "layers", "load", "save", "to_model"]
