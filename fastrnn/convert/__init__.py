"""Weights from and to other systems, each with its own order of gates, shapes and biases.

    import fastrnn.convert as fc

    net = fc.from_torch(model, prefix="encoder.rnn")     # a torch.nn.Module or a state_dict
    net = fc.from_keras(keras_layer)                     # or its arrays
    net = fc.from_keras_file("model.keras", layer="gru") # without Keras
    net = fc.load("weights.safetensors", prefix="rnn")   # what `fastrnn convert` reads

========== ================================= ============== ==========================
system     from                              to             needs
========== ================================= ============== ==========================
PyTorch    from_torch                        to_torch       torch for to_torch
Keras 3    from_keras, from_keras_file       to_keras       h5py for from_keras_file
OpenVINO   from_openvino                     to_openvino    nothing
oneDNN     from_onednn                       to_onednn      nothing
ONNX       fastrnn.onnx.load                 .save          onnx
reservoirpy from_reservoirpy                 to_reservoirpy nothing
snnTorch   from_snntorch                     to_snntorch    nothing
========== ================================= ============== ==========================

What a system has and fastrnn has not, or the other way round, is an error that names it. What
weights do not tell (the activation of a plain RNN, say) is an argument without a default: nothing
is guessed. Where two biases become one they are added, in the dtype of the layer.
"""

from ._files import load, save
from ._keras import from_keras, to_keras
from ._keras_files import from_keras_file
from ._onednn import from_onednn, to_onednn
from ._openvino import from_openvino, to_openvino
from ._reservoirpy import from_reservoirpy, to_reservoirpy
from ._snntorch import ScaledLeaky, from_snntorch, to_snntorch
from ._torch import from_torch, to_torch

__all__ = [
    "ScaledLeaky",
    "from_keras",
    "from_keras_file",
    "from_onednn",
    "from_openvino",
    "from_reservoirpy",
    "from_snntorch",
    "from_torch",
    "load",
    "save",
    "to_keras",
    "to_onednn",
    "to_openvino",
    "to_reservoirpy",
    "to_snntorch",
    "to_torch",
]
