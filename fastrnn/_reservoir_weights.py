"""What a Reservoir is made of: its parameters checked, its fixed matrices drawn or taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from . import init
from ._activations import checked_activation, finite
from ._arrays import Array, as_array, check_choice, check_dtype, check_flag, check_size
from ._spectral import spectral_radius
from ._structure import BLOCK, mask_entries
from .layers import RNN, LeakyRNN

# The parameters that say how to draw, with the values that they must have beside given weights.
DRAWN: dict[str, Any] = {
    "density": 0.1,
    "group": None,
    "spectral_radius": 0.9,
    "input_scale": 1.0,
    "bias_scale": 0.0,
    "input_density": 1.0,
    "feedback_scale": 0.0,
    "seed": None,
}
_GIVEN = ("weight_ih", "weight_hh", "bias", "weight_fb")


class Weights(NamedTuple):
    """The matrices in float64; weight_fb [H, O] or None."""

    weight_ih: Array
    weight_hh: Array
    bias: Array
    weight_fb: Array | None

    def mask(self) -> Array | None:
        """Which elements of weight_hh are connections; None unless that leaves at most half of the
        work: else to skip the others costs more than it saves. The results have the same bits
        either way."""
        mask = self.weight_hh != 0
        whole = np.ones_like(mask)
        if not 0 < 2 * mask_entries(mask) <= mask_entries(whole):
            return None
        # A unit that reads none reads itself with weight 0.
        alone = np.flatnonzero(~mask.any(1))
        mask[alone, alone] = True
        return mask


def has_feedback(params: Mapping[str, Any]) -> bool:
    """Whether outputs are fed back to the units."""
    given = params["weights"]
    return params["feedback_scale"] > 0 if given is None else given.get("weight_fb") is not None


def check(params: Mapping[str, Any]) -> None:
    """Raises for a parameter that does not fit, by its name."""
    check_size("input_size", params["input_size"])
    hidden_size = check_size("hidden_size", params["hidden_size"])
    if params["output_size"] is not None:
        check_size("output_size", params["output_size"])
    dtype = check_dtype(params["dtype"])
    init.checked_alpha(params["alpha"], hidden_size, dtype)
    checked_activation("nonlinearity", params["nonlinearity"])
    check_choice("form", params["form"], ("rate", "potential"))
    check_flag("readout_input", params["readout_input"])
    for name in ("density", "input_density"):
        if not 0 < finite(name, params[name]) <= 1:
            raise ValueError(f"{name}: expected more than 0 and at most 1, got {params[name]!r}")
    for name in ("spectral_radius", "bias_scale", "feedback_scale", "ridge"):
        if finite(name, params[name]) < 0:
            raise ValueError(f"{name}: expected a number >= 0, got {params[name]!r}")
    if params["group"] is not None:
        check_size("group", params["group"])
    checked_count("warmup", params["warmup"])
    _input_scale(params["input_scale"], params["input_size"])
    _check_seed(params["seed"])
    if params["weights"] is not None:
        _check_given(params)


def checked_count(name: str, value: Any) -> int:
    """An integer of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < 0:
        raise ValueError(f"{name}: expected an integer >= 0, got {value}")
    return int(value)


def _input_scale(value: Any, inputs: int) -> Array:
    array = as_array("input_scale", value)
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise TypeError(f"input_scale: expected finite numbers, got {value!r}")
    if array.shape not in ((), (inputs,)):
        raise ValueError(
            f"input_scale: expected a number or shape ({inputs},), got shape {array.shape}"
        )
    return array.astype(np.float64)


def _check_seed(seed: Any) -> None:
    whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    if not (seed is None or whole or isinstance(seed, np.random.Generator)):
        raise TypeError(f"seed: expected None, an integer or a Generator, got {seed!r}")
    if whole and seed < 0:
        raise ValueError(f"seed: expected an integer >= 0, got {seed}")


def _check_given(params: Mapping[str, Any]) -> None:
    given = params["weights"]
    if not isinstance(given, Mapping):
        raise TypeError(f"weights: expected a mapping of matrices by name, got {given!r}")
    needed = {name for name in ("weight_ih", "weight_hh") if given.get(name) is not None}
    if len(needed) < 2 or not set(given) <= set(_GIVEN):
        raise ValueError(
            f"weights: expected weight_ih, weight_hh and perhaps bias, weight_fb; got "
            f"{', '.join(map(str, given))}"
        )
    for name, value in DRAWN.items():
        found = params[name]
        if not (found is value or (np.ndim(found) == 0 and found == value)):
            raise ValueError(f"{name}: expected {value!r} with given weights, got {found!r}")
    taken_over(given, params["input_size"], params["hidden_size"], params["output_size"])


def taken_over(given: Mapping[str, Any], inputs: int, units: int, outputs: int | None) -> Weights:
    """Given matrices, dense or SciPy's sparse ones."""
    arrays = {name: matrix(name, given[name]) for name in _GIVEN if given.get(name) is not None}
    back = arrays.get("weight_fb")
    columns = outputs or (1 if back is None else back.shape[-1])
    shapes = {"weight_ih": (units, inputs), "weight_hh": (units, units), "bias": (units,)}
    shapes["weight_fb"] = (units, columns)
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{name}: expected shape {shapes[name]}, got {array.shape}")
    bias = arrays.get("bias", np.zeros(units))
    return Weights(arrays["weight_ih"], arrays["weight_hh"], bias, back)


def matrix(name: str, value: Any) -> Array:
    """A given matrix in float64."""
    array = as_array(name, value.toarray() if hasattr(value, "toarray") else value)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise TypeError(f"{name}: expected finite real numbers, got {array.dtype}")
    return array.astype(np.float64)


def units(params: Mapping[str, Any], outputs: int) -> LeakyRNN:
    """The units of a Reservoir; with feedback they read the outputs beside the input."""
    if params["weights"] is None:
        given = _drawn(params, outputs)
    else:
        sizes = params["input_size"], params["hidden_size"]
        given = taken_over(params["weights"], *sizes, outputs)
    columns = [given.weight_ih] + ([] if given.weight_fb is None else [given.weight_fb])
    weight_ih = np.hstack(columns)
    layer = LeakyRNN(
        weight_ih.shape[1],
        params["hidden_size"],
        alpha=params["alpha"],
        nonlinearity=params["nonlinearity"],
        form=params["form"],
        dtype=params["dtype"],
        seed=0,
        recurrent_mask=given.mask(),
    )
    layer.weight_ih_l0 = weight_ih.astype(layer.dtype)
    layer.weight_hh_l0 = given.weight_hh.astype(layer.dtype)
    layer.bias_ih_l0 = given.bias.astype(layer.dtype)
    layer.bias_hh_l0 = np.zeros_like(given.bias, layer.dtype)
    return layer


def linear(weight: Array, bias: Array) -> RNN:
    """y = W x + b as a layer of float64, whose bits do not depend on the batch: a recurrent net
    without recurrent weights, that is never given a state."""
    outputs, features = weight.shape
    # Many outputs would cost a product of zeros.
    mask = np.eye(outputs, dtype=bool) if outputs > BLOCK else None
    options: dict[str, Any] = {"dtype": np.float64, "seed": 0, "recurrent_mask": mask}
    layer = RNN(features, outputs, nonlinearity="identity", **options)
    values = {"weight_ih": weight, "weight_hh": np.zeros((outputs, outputs)), "bias_ih": bias}
    for name, array in (values | {"bias_hh": np.zeros(outputs)}).items():
        setattr(layer, f"{name}_l0", array)
    return layer


def _drawn(params: Mapping[str, Any], outputs: int) -> Weights:
    """Random matrices. Each has a stream of random numbers of its own, so that to change one leaves
    the others as they are."""
    inputs, units = params["input_size"], params["hidden_size"]
    of_hh, of_ih, of_bias, of_fb = np.random.default_rng(params["seed"]).spawn(4)
    weight_ih = of_ih.uniform(-1, 1, (units, inputs)) * _input_scale(params["input_scale"], inputs)
    if params["input_density"] < 1:
        weight_ih[of_ih.random((units, inputs)) >= params["input_density"]] = 0
    weight_hh = _recurrent(of_hh, units, params["density"], params["group"])
    # Not 0: where every unit reads one there is a cycle.
    weight_hh *= params["spectral_radius"] / spectral_radius(weight_hh)
    bias = of_bias.uniform(-1, 1, units) * params["bias_scale"]
    back = of_fb.uniform(-1, 1, (units, outputs)) * params["feedback_scale"]
    return Weights(weight_ih, weight_hh, bias, back if has_feedback(params) else None)


def _recurrent(rng: np.random.Generator, units: int, density: float, group: int | None) -> Array:
    """A matrix in which each row has density * H elements, uniform on [-1, 1], in columns that are
    common to a group of rows; all columns are used equally often."""
    reads = max(1, round(density * units))
    if group is None:
        group = BLOCK if reads >= BLOCK else 1  # no block of the kernels is half empty
    matrix = np.zeros((units, units))
    used = np.zeros(units, np.intp)
    for start in range(0, units, group):
        columns = np.lexsort((rng.random(units), used))[:reads]
        used[columns] += 1
        rows = matrix[start : start + group]
        rows[:, columns] = rng.uniform(-1, 1, (len(rows), reads))
    return matrix
