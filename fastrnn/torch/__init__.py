"""fastrnn under PyTorch: modules with the names, arguments and parameters of `torch.nn`.

    import fastrnn.torch as ft

    net = ft.LSTM(40, 128, num_layers=2, dropout=0.1)    # as torch.nn.LSTM
    ft.replace(model)                                    # swaps LSTM, GRU and RNN of a model
    net(x, lengths=[7, 3, 5])                            # a padded batch, or a PackedSequence
    ft.GRU(40, 128, delays=(1, 8))                       # time structures, as of fastrnn.LSTM

The kernels of fastrnn run the whole sequence, forward and backward, on the tensors' own memory.
Tensors are float32 or float64 and on the CPU. It works with autograd, optimizers, `state_dict`,
`copy.deepcopy`, `torch.save`, `torch.compile` and DistributedDataParallel.

What is not there is an error that says so: the second derivative (double backward), forward-mode
derivatives and the transforms of torch.func, other devices and dtypes.

Weights are packed for the kernels at the first call after a change. Changes are known by PyTorch's
version counters; optimizers, `load_state_dict` and whatever happens under `torch.no_grad()` move
them. Writes that do not (`p.data`, a NumPy view, another process) are found by looking at the
values, at all of a parameter up to 16 KiB and at some of a larger one; so an update of all values
is always seen, while one of a few values in a large matrix is better written under `no_grad`.

PyTorch is not needed by fastrnn itself: `pip install "fastrnn[torch]"`.
"""

try:
    import torch as _torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "fastrnn.torch needs PyTorch: pip install 'fastrnn[torch]', or see pytorch.org"
    ) from error

if not hasattr(_torch.library, "custom_op"):
    raise ImportError(f"fastrnn.torch needs PyTorch 2.4 or later, this is {_torch.__version__}")

from .dilated import DilatedRNN
from .leaky import Leaky, LeakyRNN
from .modules import GRU, LSTM, RNN, MinGRU
from .replace import replace

__all__ = ["GRU", "LSTM", "RNN", "DilatedRNN", "Leaky", "LeakyRNN", "MinGRU", "replace"]
