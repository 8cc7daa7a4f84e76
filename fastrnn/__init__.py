"""fastrnn: recurrent nets on the CPU.

C kernels run whole sequences, NumPy arrays go in and come out, and a result has the same bits
whatever the batch, the cut of the sequence and the instruction set.

Example:
    >>> import numpy as np, fastrnn
    >>> lstm = fastrnn.LSTM(3, 8, seed=0)
    >>> y, (h, c) = lstm(np.zeros((5, 2, 3), np.float32))
    >>> y.shape
    (5, 2, 8)
"""

import os as _os

from . import init
from ._core import available_isas, isa
from ._core import version as _version
from .dilated import DilatedRNN
from .gated import GRU, LSTM, MinGRU
from .gated_leaky import gated_leaky, gated_leaky_backward
from .io import load, load_tensors
from .layers import RNN, LeakyRNN
from .leaky import Leaky, leaky
from .prune import prune
from .reservoir import Reservoir
from .stream import Stream
from .threads import get_num_threads, set_num_threads
from .training import Gradients, Tape

if isa() is None:
    raise ImportError(
        f"FASTRNN_ISA={_os.environ.get('FASTRNN_ISA')!r}: expected one of "
        f"{', '.join(available_isas())}, which this build and machine have"
    )

__version__ = _version()
__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "DilatedRNN",
    "Gradients",
    "Leaky",
    "LeakyRNN",
    "MinGRU",
    "Reservoir",
    "Stream",
    "Tape",
    "available_isas",
    "gated_leaky",
    "gated_leaky_backward",
    "get_num_threads",
    "init",
    "isa",
    "leaky",
    "load",
    "load_tensors",
    "prune",
    "set_num_threads",
]
