"""Nets of every kind: descriptions that build layers, make arrays and ask the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import reference
import reference_backward
import reference_structure

import fastrnn

CELLS = tuple(reference.CELLS)

# Activations of the state, the default of the cell first; parameters keep slopes at 1 at most.
PARAMETRIC = (
    ("hard_sigmoid", 0.2, 0.5),
    ("affine", -0.75, 0.25),
    ("leaky_relu", 0.125),
    ("thresholded_relu", 0.25),
    ("scaled_tanh", 1.5, 0.625),
    ("elu", 0.5),
)
FUNCTIONS: tuple[Any, ...] = (
    "tanh",
    "relu",
    "identity",
    "sigmoid",
    "softsign",
    "softplus",
    *PARAMETRIC,
)
FUNCTIONS += ("hard_sigmoid", "affine", "leaky_relu", "thresholded_relu", "scaled_tanh", "elu")
NONLINEARITIES: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(CELLS, FUNCTIONS),
    "mingru": ("identity", *(f for f in FUNCTIONS if f != "identity")),
    "leaky": ("tanh",),
}

# Activations of gates. Those that leave [0, 1] go with a clip: a state that grows from step to step
# and is the gates' own argument has errors without any bound.
GATES = ("sigmoid", "hard_sigmoid", ("hard_sigmoid", 0.2, 0.5))
CLIPPED_GATES = ("tanh", "softsign", "relu", "identity", "softplus", *PARAMETRIC)
CLIPS = (0.25, 0.75, 1.0)

# The options that a cell has beside sizes, directions and its first activation.
OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("lstm", "lstm_coupled"),
        ("proj_size", "peephole", "clip", "cell_clip", "gate_activation", "output_activation"),
    ),
    **dict.fromkeys(("gru", "gru_reset_before"), ("clip", "gate_activation")),
    **dict.fromkeys(("rnn", "leaky_rate"), ("clip",)),
}
DEFAULTS: dict[str, Any] = {
    "proj_size": 0,
    "peephole": False,
    "clip": None,
    "cell_clip": None,
    "gate_activation": "sigmoid",
    "output_activation": "tanh",
}

# Nets that torch.nn has, too: fixed options for draw_net.
PLAIN = {name: value for name, value in DEFAULTS.items() if name != "proj_size"}

# One net of each cell with all of its options at once.
RICH: dict[str, dict[str, Any]] = {
    "lstm": {
        "proj_size": 3,
        "peephole": True,
        "clip": 1.0,
        "cell_clip": 0.5,
        "nonlinearity": "softsign",
        "gate_activation": ("hard_sigmoid", 0.2, 0.5),
        "output_activation": ("elu", 0.5),
    },
    "gru": {"clip": 0.75, "nonlinearity": "elu", "gate_activation": "hard_sigmoid"},
    "mingru": {"nonlinearity": "softplus"},
    "rnn": {"clip": 1.0, "nonlinearity": ("scaled_tanh", 1.5, 0.625)},
    "leaky_potential": {"nonlinearity": ("leaky_relu", 0.125)},
}
RICH |= {
    "lstm_coupled": RICH["lstm"],
    "gru_reset_before": RICH["gru"],
    "leaky_rate": RICH["rnn"],
    "leaky": {},
}
DTYPES = ("float32", "float64")

# Sizes with tails: around the 16 units of a panel, around tiles of several panels and rows.
INPUTS = (1, 2, 3, 5, 8, 13, 16, 19)
HIDDENS = (1, 2, 3, 7, 15, 16, 17, 24, 31, 33, 48, 65)
BATCHES = (1, 2, 3, 4, 5, 7, 9, 13)
STEPS = (1, 2, 3, 5, 8, 13)

Pick = Callable[[Sequence[Any]], Any]


# ---- Nets -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    """A description of a layer that builds it, makes its arrays and asks the oracle about it."""

    cell: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    batch_first: bool = False
    nonlinearity: Any = None  # the first of NONLINEARITIES; "activation" of the newer layers
    dtype: str = "float32"
    seed: int = 0
    proj_size: int = 0
    peephole: bool = False
    clip: float | None = None
    cell_clip: float | None = None
    gate_activation: Any = "sigmoid"
    output_activation: Any = "tanh"
    delays: tuple[int, ...] = (1,)
    periods: tuple[int, ...] | None = None
    group_sizes: tuple[int, ...] | None = None
    connectivity: str = "slower"
    recurrent_mask: tuple[str, float, bool] | None = None  # see `mask`
    dilations: tuple[int, ...] | None = None  # of a DilatedRNN, num_layers of them

    def __post_init__(self) -> None:
        if self.nonlinearity is None:
            object.__setattr__(self, "nonlinearity", NONLINEARITIES[self.cell][0])

    def __str__(self) -> str:
        """Short, for the names of tests: lstm-5x17-2bi-peephole-delays-bf-float32."""
        parts = [self.cell, f"{self.input_size}x{self.hidden_size}"]
        if (self.num_layers, self.bidirectional) != (1, False):
            parts.append(f"{self.num_layers}{'bi' * self.bidirectional}")
        parts += [name.split("_")[0] for name in self.special if name.endswith(("e", "clip"))]
        parts += [name for name in self.structure if name not in ("group_sizes", "connectivity")]
        parts += ["bf"] * self.batch_first + [self.dtype]
        return "-".join(parts)

    @property
    def special(self) -> dict[str, Any]:
        """The options that are not at their defaults."""
        return {k: getattr(self, k) for k, v in DEFAULTS.items() if getattr(self, k) != v}

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def unit_outputs(self) -> int:
        """Features of h: P with a projection, else H."""
        return self.proj_size or self.hidden_size

    @property
    def output_size(self) -> int:
        return self.directions * self.unit_outputs

    @property
    def states(self) -> int:
        return reference.CELLS[self.cell].states

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def retention(self) -> np.ndarray:
        """Per unit, from 0 to 1 with both ends."""
        alpha = self.rng().uniform(0.0, 1.0, self.hidden_size)
        alpha[: self.seed % 3] = self.seed % 2
        return alpha

    @property
    def structure(self) -> dict[str, Any]:
        """The options of time that are not at their defaults."""
        given: dict[str, Any] = {} if self.delays == (1,) else {"delays": self.delays}
        if self.periods is not None:
            given["periods"] = self.periods
            given |= {"group_sizes": self.group_sizes} if self.group_sizes else {}
            given |= {"connectivity": "full"} if self.connectivity == "full" else {}
        if self.recurrent_mask is not None:
            given["recurrent_mask"] = self.mask()
        return given | ({"dilations": self.dilations} if self.dilations else {})

    def structures(self) -> list[reference_structure.Structure]:
        """Of each layer and direction."""
        sizes = (self.hidden_size, self.num_layers, self.directions)
        return reference_structure.structures(*sizes, **self.structure)

    def mask(self) -> np.ndarray:
        """Booleans [H, O], or if each layer and direction has its own [L * D, H, O].

        The kind says what is kept or not as a whole, with a probability of the density: "random"
        single elements, "blocks" 16 rows of a column, "tiles" 16 rows of 16 columns, "scattered"
        one element of a row, the only one of it.
        """
        assert self.recurrent_mask is not None
        kind, density, own = self.recurrent_mask
        shapes = {"random": (1, 1), "scattered": (1, 1), "blocks": (16, 1), "tiles": (16, 16)}
        height, width = shapes[kind]
        size, parts = (self.hidden_size, self.unit_outputs), self.num_layers * self.directions
        blocks = (parts if own else 1, -(-size[0] // height), -(-size[1] // width))
        rng = self.rng()
        mask = np.repeat(np.repeat(rng.random(blocks) < density, height, 1), width, 2)
        if kind == "scattered":
            mask &= rng.integers(size[1], size=(*mask.shape[:2], 1)) == np.arange(size[1])
        mask = np.ascontiguousarray(mask[:, : size[0], : size[1]])
        mask[:, 0, 0] = True
        if self.cell == "rnn":  # each of its units has to read one
            lonely = ~mask.any(axis=2, keepdims=True)
            mask |= lonely & np.eye(self.hidden_size, dtype=bool)
        return mask if own else mask[0]

    def build(self, **more: Any) -> Any:
        """The layer, with options that change no value, or that are not among the fields."""
        if self.cell == "leaky":
            return fastrnn.Leaky(
                self.hidden_size,
                alpha=self.retention(),
                batch_first=self.batch_first,
                dtype=self.dtype,
            )
        options: dict[str, Any] = {
            "bias": self.bias,
            "batch_first": self.batch_first,
            "bidirectional": self.bidirectional,
            "dtype": self.dtype,
            "seed": self.seed,
        } | self.special
        if self.nonlinearity != NONLINEARITIES[self.cell][0]:
            named = self.cell == "rnn" or self.cell.startswith("leaky_")
            options["nonlinearity" if named else "activation"] = self.nonlinearity
        if self.cell.startswith("leaky_"):
            options |= {"alpha": self.retention(), "form": self.cell.removeprefix("leaky_")}
        options |= {
            "lstm_coupled": {"coupled": True},
            "gru_reset_before": {"reset_after": False},
        }.get(self.cell, {})
        sizes, options = (self.input_size, self.hidden_size), options | self.structure | more
        if self.dilations is not None:
            name = self.layer_class.__name__.removesuffix("RNN").lower() or "rnn"
            return fastrnn.DilatedRNN(name, *sizes, **options)
        layer = self.layer_class(*sizes, self.num_layers, **options)
        if len(self.delays) > 1:
            layer.load_state_dict(self.tamed(layer.state_dict()))
        return layer

    def tamed(self, parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """With the sum over the delays about as large as that of one: states that grow from step
        to step have errors without any bound."""
        recurrent = [name for name in parameters if name.startswith("weight_hh")]
        scaled = {
            name: parameters[name] / np.array(len(self.delays), self.dtype) for name in recurrent
        }
        return parameters | scaled

    @property
    def layer_class(self) -> Any:
        names = {"rnn": "RNN", "mingru": "MinGRU", "leaky": "Leaky"}
        names |= {"lstm": "LSTM", "lstm_coupled": "LSTM", "gru": "GRU", "gru_reset_before": "GRU"}
        return getattr(fastrnn, names.get(self.cell, "LeakyRNN"))

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """By PyTorch's names and in its order."""
        if self.cell == "leaky":
            return {"alpha": (self.hidden_size,)}
        rows = reference.CELLS[self.cell].gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        recurrent, delayed = self.cell != "mingru", self.delays[1:]
        for index in range(self.num_layers):
            inputs = self.output_size if index else self.input_size
            for suffix in (f"_l{index}", f"_l{index}_reverse")[: self.directions]:
                wanted: list[tuple[str, Any, tuple[int, ...]]] = [
                    ("weight_ih{}", True, (rows, inputs)),
                    ("weight_hh{}", recurrent, (rows, self.unit_outputs)),
                    *((f"weight_hh{{}}_d{d}", True, (rows, self.unit_outputs)) for d in delayed),
                    ("bias_ih{}", self.bias, (rows,)),
                    ("bias_hh{}", self.bias and recurrent, (rows,)),
                    ("weight_hr{}", self.proj_size, (self.proj_size, self.hidden_size)),
                    ("peephole{}", self.peephole, (rows - self.hidden_size,)),
                    ("alpha{}", self.cell.startswith("leaky_"), (self.hidden_size,)),
                ]
                shapes |= {name.format(suffix): shape for name, given, shape in wanted if given}
        return shapes

    def bare(self) -> Parameters:
        """Random parameters as the layer has them, without the layer, for oracle and witnesses."""
        rng, size = self.rng(), 1 / np.sqrt(self.hidden_size)
        found = {
            name: (self.retention() if "alpha" in name else rng.uniform(-size, size, shape)).astype(
                self.dtype
            )
            for name, shape in self.parameter_shapes().items()
        }
        return Parameters(self.tamed(found) if len(self.delays) > 1 else found)

    def input_shape(self, steps: int, batch: int | None) -> tuple[int, ...]:
        if batch is None:
            return (steps, self.input_size)
        lead = (batch, steps) if self.batch_first else (steps, batch)
        return (*lead, self.input_size)

    def output_shape(self, steps: int, batch: int | None) -> tuple[int, ...]:
        return (*self.input_shape(steps, batch)[:-1], self.output_size)

    def state_shape(self, batch: int | None, index: int = 0) -> tuple[int, ...]:
        """Of h, or of c with index 1."""
        rows = () if batch is None else (batch,)
        slots = sum(part.slots[index] for part in self.structures())
        steps = () if self.cell == "leaky" else (slots,)
        return (*steps, *rows, self.hidden_size if index else self.unit_outputs)

    def input(self, rng: np.random.Generator, steps: int, batch: int | None) -> np.ndarray:
        return rng.standard_normal(self.input_shape(steps, batch)).astype(self.dtype)

    def state(self, rng: np.random.Generator, batch: int | None) -> Any:
        arrays = unpack(self.state_gradient(rng, batch))
        if self.periods is None:
            return pack(arrays)
        clock = rng.integers(0, 100, () if batch is None else batch)
        return (*arrays, np.array(clock, np.int64))

    def state_gradient(self, rng: np.random.Generator, batch: int | None) -> Any:
        """As the state, but for the clock: what dstate is like."""
        shapes = [self.state_shape(batch, index) for index in range(self.states)]
        return pack([rng.uniform(-1.0, 1.0, shape).astype(self.dtype) for shape in shapes])

    def zero_state(self, batch: int | None) -> Any:
        return map_state(np.zeros_like, self.state(self.rng(), batch))

    def output_gradient(
        self, rng: np.random.Generator, steps: int, batch: int | None
    ) -> np.ndarray:
        """A gradient of some loss with respect to y."""
        return rng.standard_normal(self.output_shape(steps, batch)).astype(self.dtype)

    @property
    def options(self) -> dict[str, Any]:
        """What the oracles need to know besides the parameters."""
        names = ["nonlinearity", "num_layers", "bidirectional", "batch_first"]
        names += ["clip", "cell_clip", "gate_activation", "output_activation"]
        return {name: getattr(self, name) for name in names} | {"structure": self.structure}

    def oracle(self, layer: Any, x: Any, state: Any = None, **call: Any) -> tuple[np.ndarray, Any]:
        """y and final state; call: lengths, reset, mask, ..."""
        return reference.run(self.cell, layer.parameters(), x, state, **self.options, **call)

    def oracle_backward(
        self,
        layer: Any,
        x: Any,
        state: Any = None,
        dy: Any = None,
        dstate: Any = None,
        **call: Any,
    ) -> reference_backward.Gradients:
        return reference_backward.run(
            self.cell, layer.parameters(), x, state, dy, dstate, **self.options, **call
        )


@dataclass(frozen=True)
class Parameters:
    """The parameters of a layer, and nothing else of it."""

    arrays: dict[str, np.ndarray]

    def parameters(self) -> dict[str, np.ndarray]:
        return self.arrays

    state_dict = parameters


def draw_net(pick: Pick, cell: str | None = None, **fixed: Any) -> Net:
    """A net whose every option is one that pick(choices) picked, except for the fixed ones."""
    cell = cell or pick(CELLS)
    fields: dict[str, Any] = {
        "cell": cell,
        "hidden_size": pick(HIDDENS),
        "batch_first": pick((False, True)),
        "dtype": pick(DTYPES),
        "seed": pick(range(1000)),
    }
    if cell == "leaky":
        fields["input_size"] = fields["hidden_size"]
        return Net(**fields | fixed)
    fields |= {
        "input_size": pick(INPUTS),
        "num_layers": pick((1, 1, 2, 3)),
        "bidirectional": pick((False, True)),
        "bias": pick((True, True, False)),
        "nonlinearity": pick((NONLINEARITIES[cell][0], pick(NONLINEARITIES[cell]))),
    }
    hidden = fixed.get("hidden_size", fields["hidden_size"])
    return Net(**fields | draw_options(pick, cell, hidden) | fixed)


def draw_options(pick: Pick, cell: str, hidden_size: int) -> dict[str, Any]:
    """Each option of the cell that is not a size, three times of four at its default."""
    sizes = [size for size in (1, 2, 5, 16, 17, 40) if size < hidden_size]
    clip = pick((None, None, None, *CLIPS))
    drawn = {
        "proj_size": pick((0, 0, 0, pick(sizes))) if sizes else 0,
        "peephole": pick((False, False, False, True)),
        "clip": clip,
        "cell_clip": pick((None, None, None, 0.5)),
        "gate_activation": pick(
            ("sigmoid", "sigmoid", "sigmoid", pick(GATES if clip is None else CLIPPED_GATES))
        ),
        "output_activation": pick(("tanh", "tanh", "tanh", pick(FUNCTIONS))),
    }
    return {name: drawn[name] for name in OPTIONS.get(cell, ())}


def picker(rng: np.random.Generator) -> Pick:
    return lambda choices: choices[int(rng.integers(len(choices)))]


def one_of_each(**fixed: Any) -> list[Net]:
    """A small net of each cell, for tests of what does not depend on sizes."""
    sizes = {"input_size": 5, "hidden_size": 5}
    return [Net(cell, **sizes | fixed) for cell in CELLS]


def stacked(**fixed: Any) -> list[Net]:
    """Nets of each cell, in the simplest and in the richest stack that the cell has."""
    deep = {"num_layers": 2, "bidirectional": True}
    return [
        Net(cell, 5, 5, **options | fixed)
        for cell in CELLS
        for options in ({}, deep | RICH[cell])
        if not (options and cell == "leaky")
    ]


# ---- States -----------------------------------------------------------------------------------


def pack(arrays: Sequence[np.ndarray]) -> Any:
    """A list of state arrays as a layer takes it: a tuple, or the one array itself."""
    return tuple(arrays) if len(arrays) > 1 else arrays[0]


def unpack(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)


def floats(state: Any) -> Any:
    """A state without its clock, as its gradient is."""
    return pack([array for array in unpack(state) if array.dtype.kind == "f"])


def map_state(function: Callable[[np.ndarray], Any], state: Any) -> Any:
    return pack([function(array) for array in unpack(state)])


def take_slots(state: Any, slots: Any) -> Any:
    """Some layers and directions or some steps of their histories, of a state without a clock."""
    return map_state(lambda array: array[slots], state)


def take_rows(state: Any, rows: Any) -> Any:
    """Some rows of the batch of a state: of arrays [..., B, H] and of a clock [B]."""

    def taken(array: np.ndarray) -> np.ndarray:
        return np.array(array[rows] if array.ndim == 1 else array[..., rows, :], order="C")

    return map_state(taken, state)
