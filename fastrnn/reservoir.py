"""Echo state networks: a fixed random net of leaky units, and a linear readout that is fitted."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from . import _ridge, _series
from ._arrays import Array, check_dtype
from ._reservoir_states import Checked, States
from ._reservoir_stream import ReservoirStream
from ._reservoir_weights import checked_count, linear, matrix
from ._series import Block
from ._spectral import spectral_radius

__all__ = ["Reservoir", "ReservoirStream", "spectral_radius"]


class Reservoir(States):
    """An echo state network: leaky units with fixed random weights, and a readout by ridge
    regression.

        h_t = a * h_{t-1} + (1 - a) * f(W x_t + W_fb y_{t-1} + U h_{t-1} + b)
        y_t = W_out h_t + b_out     (with `readout_input`: of h_t and x_t)

    U is sparse and scaled to a spectral radius; W_fb, which feeds outputs back, is there with
    `feedback_scale` only. The units are a `LeakyRNN`, `layer`; only W_out and b_out are fitted.

    Args:
        input_size, hidden_size: I, H.
        output_size: O; None to take it from y.
        alpha: a, the *retention* of a unit (1 - leak rate): a scalar or [H], as of LeakyRNN; for
            instance `fastrnn.init.time_constants`.
        density: the part of U's elements that are connections, in (0, 1].
        spectral_radius: of U, >= 0. With a leak that of a + (1 - a) U decides on stability.
        input_scale: W is uniform on [-input_scale, input_scale]; a number, or [I].
        bias_scale, feedback_scale: likewise of b and W_fb, >= 0.
        input_density: the part of W's elements that are not 0, in (0, 1].
        readout_input: whether the readout sees x_t too.
        ridge: the penalty of W_out, >= 0.
        warmup: steps at the start of every series that `fit` and `score` do not count.
        nonlinearity, form: of LeakyRNN.
        group: so many consecutive units read the same units, with different weights. The kernels
            read what 16 units share at once: at 1000 units and a density of 2 % a step takes 2.5
            times as long without groups. None: 16 if a unit reads at least 16 others, else 1, no
            groups.
        weights: given matrices instead of random ones; see `from_matrices`.
        dtype: float32 or float64, of the units and of predictions. x of any real dtype is rounded
            to it. Sums, and the products of the readout, are in float64.
        seed: None, an integer or a Generator. Matrices are drawn when they are first needed; a
            Generator is drawn from each time.

    Series: x is one series [T, I], or several [T, B, I], of which row b has lengths[b] steps; or a
    list of series [T, I] of any lengths. y is in the same form with O values. Each series starts
    from zeros. Parameters are attributes; to change one draws new matrices and forgets the readout,
    but for `ridge` and `warmup`, which are used at the next call.

    As of all layers, states have the same bits in a batch, in a stream and with any instruction
    set; so have predictions of a given W_out. W_out itself comes from NumPy's BLAS and LAPACK.

    Raises:
        TypeError, ValueError: if a parameter does not fit.

    Source: Jaeger (2001), "The echo state approach"; Jaeger et al. (2007), "Optimization and
    applications of echo state networks with leaky-integrator neurons"; Lukosevicius (2012), "A
    practical guide to applying echo state networks".

    Example:
        >>> series = np.sin(np.arange(400) / 4)[:, None]
        >>> net = Reservoir(1, 100, alpha=0.5, warmup=50, seed=0)
        >>> net = net.fit(series[:300], series[1:301])  # the next value
        >>> round(net.score(series[300:-1], series[301:]), 3)
        1.0
        >>> future = net.generate(50, series[:300])
        >>> bool(abs(future - series[300:350]).max() < 0.05)
        True
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        output_size: int | None = None,
        alpha: Any = 0.0,
        density: float = 0.1,
        spectral_radius: float = 0.9,
        input_scale: Any = 1.0,
        bias_scale: float = 0.0,
        input_density: float = 1.0,
        feedback_scale: float = 0.0,
        readout_input: bool = False,
        ridge: float = 1e-6,
        warmup: int = 0,
        nonlinearity: str | tuple[Any, ...] = "tanh",
        form: str = "rate",
        group: int | None = None,
        weights: Mapping[str, Any] | None = None,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self._keep(locals())
        self._changed(set(self.get_params()))

    def __sklearn_tags__(self) -> Any:
        utils: Any = importlib.import_module("sklearn.utils")
        target = utils.TargetTags(required=True, two_d_labels=True, multi_output=True)
        return utils.Tags("regressor", target, regressor_tags=utils.RegressorTags())

    @classmethod
    def from_matrices(
        cls,
        weight_ih: Any,
        weight_hh: Any,
        bias: Any = None,
        alpha: Any = 0.0,
        *,
        weight_fb: Any = None,
        weight_out: Any = None,
        bias_out: Any = None,
        **options: Any,
    ) -> Self:
        """A Reservoir with these matrices: topologies of one's own, or weights of other systems.

        Args:
            weight_ih: W [H, I]; weight_hh: U [H, H], zeros of which are no connections; bias: b
                [H], zeros if None. Dense, or sparse of SciPy; rounded to `dtype`.
            alpha: as of the class. Of reservoirpy it is 1 - lr.
            weight_fb: W_fb [H, O], or None.
            weight_out, bias_out: W_out [O, H] ([O, H + I] with `readout_input`) and b_out [O], if
                there is a readout already; bias_out None for zeros. A clone is without.
            options: output_size, readout_input, ridge, warmup, nonlinearity, form, dtype.

        Raises:
            TypeError, ValueError: if a matrix or an option does not fit.

        Example:
            >>> ring = 0.9 * np.roll(np.eye(50), 1, axis=0)  # Rodan and Tino (2011)
            >>> net = Reservoir.from_matrices(np.ones((50, 1)), ring)
            >>> states, state = net.run(np.ones((10, 1)))
            >>> states.shape, state.shape
            ((10, 50), (50,))
        """
        named = {"weight_ih": weight_ih, "weight_hh": weight_hh}
        named |= {"bias": bias, "weight_fb": weight_fb}
        given = {name: matrix(name, value) for name, value in named.items() if value is not None}
        shape = given["weight_ih"].shape if "weight_ih" in given else ()
        if len(shape) != 2:
            raise ValueError(f"weight_ih: expected [H, I], got shape {shape}")
        net = cls(shape[1], shape[0], alpha=alpha, weights=given, **options)
        if weight_out is not None:
            net._take_readout(weight_out, bias_out)
        elif bias_out is not None:
            raise ValueError("bias_out: expected None without weight_out")
        return net

    def reset(self) -> None:
        """Forgets the readout and what `partial_fit` has added up; the units stay.

        Example:
            >>> net = Reservoir(1, 20, seed=0).fit(np.ones((9, 1)), np.ones((9, 1)))
            >>> net.reset()
            >>> net.weight_out is None
            True
        """
        super().reset()
        self._moments: _ridge.Moments | None = None

    # ---- Fitting

    def fit(self, x: Any, y: Any, warmup: int | None = None, *, lengths: Any = None) -> Self:
        """Fits the readout anew. With feedback y itself is fed back (teacher forcing).

            min sum_t |y_t - W_out h_t - b_out|^2 + ridge |W_out|^2

        States are not kept: memory is O(H^2), whatever T is.

        Args:
            x, y: as of the class.
            warmup: steps at the start of each series that do not count; None for the parameter.
            lengths: of x [T, B, I], the steps of each row; None for T.

        Returns:
            The Reservoir itself.

        Raises:
            TypeError, ValueError: if an argument does not fit; for NaN or infinities in x, or in y
                after the warm-up (with feedback: anywhere); if the warm-up leaves no step.

        Warns:
            RuntimeWarning: if `ridge` is too small for a unique solution; the smallest is taken.

        Example:
            >>> x = np.random.default_rng(0).uniform(-1, 1, (500, 1))
            >>> y = np.roll(x, 2, axis=0)  # x of two steps ago
            >>> round(Reservoir(1, 60, warmup=20, seed=0).fit(x, y).score(x, y), 2)
            1.0
        """
        skipped, blocks = self._blocks(x, y, warmup, lengths, self._given_outputs)
        if not any(block.steps(skipped) for block in blocks):
            raise ValueError(f"x: expected steps after a warm-up of {skipped}, got none")
        self.reset()
        self._add(blocks, skipped)
        return self.solve()

    def partial_fit(
        self, x: Any, y: Any, warmup: int | None = None, *, lengths: Any = None
    ) -> Self:
        """Adds series to those since the last `fit` or `reset`; `solve` then fits the readout.

        Arguments, result and errors are those of `fit`, but the warm-up may leave nothing.

        Example:
            >>> x = np.random.default_rng(0).uniform(-1, 1, (500, 1))
            >>> net = Reservoir(1, 60, warmup=10, seed=0)
            >>> for part in np.split(x, 5):
            ...     net = net.partial_fit(part, np.roll(part, 1, axis=0))
            >>> net.solve().weight_out.shape
            (1, 60)
        """
        known = self._given_outputs if self._moments is None else self._outputs
        skipped, blocks = self._blocks(x, y, warmup, lengths, known)
        self._add(blocks, skipped)
        return self

    def _blocks(
        self, x: Any, y: Any, warmup: int | None, lengths: Any, outputs: int | None
    ) -> tuple[int, list[Block]]:
        """The warm-up, and series with targets."""
        skipped = self.warmup if warmup is None else checked_count("warmup", warmup)
        blocks = _series.blocks(x, y, lengths, self.input_size, outputs, self.dtype)
        for block in blocks:
            _series.refuse_gaps("x", block.x, block, 0)
            _series.refuse_gaps("y", block.y, block, 0 if self._back else skipped)
        return skipped, blocks

    def _add(self, blocks: list[Block], skipped: int) -> None:
        self._outputs = blocks[0].y.shape[-1]
        if self._moments is None:
            self._moments = _ridge.Moments(self._features + self._outputs)
        for block in blocks:
            # Long chunks: the product of one is added to H^2 sums.
            for steps, states in self._chunks(block, min(max(512, 2 * self._features), 4096)):
                seen = [states, block.x[steps]] if self.readout_input else [states]
                counted = block.counted(steps, skipped)
                self._moments.add([*seen, block.y[steps]], counted)

    def solve(self) -> Self:
        """Fits the readout to all that has been added, with the present `ridge`; after
        `set_params(ridge=...)` once more.

        Returns:
            The Reservoir itself.

        Raises:
            RuntimeError: if there are no steps.

        Warns:
            RuntimeWarning: as of `fit`.

        Example:
            >>> net = Reservoir(1, 20, seed=0).fit(np.ones((9, 1)), np.ones((9, 1)))
            >>> weights = net.set_params(ridge=1.0).solve().weight_out
        """
        if self._moments is None or not self._moments.count:
            raise RuntimeError("solve: no steps yet; call partial_fit, or fit")
        self._moments.release()
        self._readout = linear(*_ridge.solve(self._moments, self._features, self.ridge))
        return self

    # ---- Predictions

    def predict(self, x: Any, state: Any = None, *, lengths: Any = None) -> Any:
        """The readout's outputs at every step, from the first on; those of the warm-up are there
        too. With feedback they are fed back.

        Args:
            x: as of the class.
            state: of one or several series, as of `run`; zeros if None.
            lengths: as of `fit`. After its steps a row is 0.

        Returns:
            y: [T, O], [T, B, O], or a list of [T, O]. A NaN in x stays in all later steps of its
            series.

        Raises:
            TypeError, ValueError: if an argument does not fit.
            RuntimeError: if there is no readout yet.

        Example:
            >>> x = np.random.default_rng(0).uniform(-1, 1, (99, 2))
            >>> net = Reservoir(2, 30, seed=0).fit(x, x)
            >>> net.predict(x).shape, [y.shape for y in net.predict([x[:9], x[:20]])]
            ((99, 2), [(9, 2), (20, 2)])
        """
        self._fitted("predict")
        blocks = _series.blocks(x, None, lengths, self.input_size, None, self.dtype)
        if _series.is_list(x):
            if state is not None:
                raise ValueError("state: expected None for a list of series")
            return _series.listed(blocks, [self._predicted(block, None) for block in blocks])
        batch = blocks[0].x.shape[1:-1] if np.ndim(x) == 3 else ()
        y = self._predicted(blocks[0], self._check_state(state, batch))
        return y if batch else y[:, 0]

    def _predicted(self, block: Block, state: Checked | None) -> Array:
        """y [T, B, O]."""
        total, batch, _ = block.x.shape
        if self._back:
            y = self._stream((batch,), state)._over(block.x)
        else:
            readout = self._fitted("predict")
            y = np.empty((total, batch, readout.hidden_size), block.x.dtype)
            initial = None if state is None else state[0]
            # Short chunks: the readout finds the states in the cache.
            for steps, states in self._chunks(block, max(16, 2**17 // self._features), initial):
                features = np.empty((1, states[..., 0].size, self._features))
                seen = features.reshape(*states.shape[:2], -1)
                seen[..., : self.hidden_size] = states
                if self.readout_input:
                    seen[..., self.hidden_size :] = block.x[steps]
                y[steps] = readout(features)[0].reshape(y[steps].shape)
        counted = block.counted(slice(0, total), 0)
        if counted is not None:
            y[~counted] = 0
        return y

    def score(self, x: Any, y: Any, warmup: int | None = None, *, lengths: Any = None) -> float:
        """R^2 of the predictions, 1 - sum (y - predicted)^2 / sum (y - mean y)^2, the mean over
        outputs; of all steps after the warm-ups.

        Arguments and errors are those of `fit`.

        Example:
            >>> x = np.random.default_rng(0).uniform(-1, 1, (500, 1))
            >>> net = Reservoir(1, 30, seed=0).fit(x, x)
            >>> bool(0.99 < net.score(x, x) <= 1)
            True
        """
        outputs = self._fitted("score").hidden_size
        skipped, blocks = self._blocks(x, y, warmup, lengths, outputs)
        pairs = []
        for block in blocks:
            counted = block.counted(slice(0, len(block.x)), skipped)
            for array in (block.y, self._predicted(block, None)):
                pairs.append(array.reshape(-1, outputs) if counted is None else array[counted])
        wanted, found = np.concatenate(pairs[::2]), np.concatenate(pairs[1::2])
        if not len(wanted):
            raise ValueError(f"x: expected steps after a warm-up of {skipped}, got none")
        return _ridge.r_squared(wanted, found)

    def generate(self, steps: int, x: Any = None, state: Any = None) -> Array:
        """Runs freely: each output is the next input.

            x_{t+1} = y_t, from the last step of x, or from a state

        Args:
            steps: how many outputs.
            x: a series [T, I] or [T, B, I] that is run first; the first output is that of its last
                step. None to start with the readout of `state`.
            state: before x, as of `run`; zeros if None.

        Returns:
            y [steps, O] or [steps, B, O], with O = I.

        Raises:
            TypeError, ValueError: if an argument does not fit; if O is not I; if there is neither x
                nor a state, or only a state that does not tell the output (`readout_input`, form
                "potential").
            RuntimeError: if there is no readout yet.

        Source: Jaeger and Haas (2004), "Harnessing nonlinearity".

        Example:
            >>> series = np.sin(np.arange(300) / 5)[:, None]
            >>> net = Reservoir(1, 100, seed=0).fit(series[:-1], series[1:], warmup=50)
            >>> net.generate(20, series).shape
            (20, 1)
        """
        readout, count = self._fitted("generate"), checked_count("steps", steps)
        if readout.hidden_size != self.input_size:
            raise ValueError(
                f"generate: expected as many outputs as inputs, got O = {readout.hidden_size}, "
                f"I = {self.input_size}"
            )
        array = None if x is None else _series.inputs(x, self.input_size, self.dtype)
        if array is not None and len(array):
            batch = array.shape[1:-1]
            _, state = self.run(array[:-1], state)
            stream = self._stream(batch, self._check_state(state, batch))
            y = stream.step(array[-1].reshape(stream.batch_size, -1))
        elif state is None:
            raise ValueError("x: expected a series of at least one step, or a state")
        elif self.readout_input or self.form == "potential":
            raise ValueError("x: expected at least one step, as the state does not tell its output")
        else:
            batch = np.shape(state[0] if self._back else state)[:-1]
            h, *last = self._check_state(state, batch)
            stream = self._stream(batch, (h, *last))
            features = np.asarray(h, np.float64).reshape(1, stream.batch_size, -1)
            y = readout(features)[0][0]
            stream._feed(y)
        result = np.empty((count, stream.batch_size, self.input_size), check_dtype(self.dtype))
        result[:1] = y
        for t in range(1, count):
            stream.step(result[t - 1], result[t])
        return result.reshape(count, *batch, self.input_size)

    def stream(self, batch_size: int = 1) -> ReservoirStream:
        """A state of its own, to be run one step at a time, with the present readout.

        Args:
            batch_size: B, series that step together.

        Raises:
            RuntimeError: if there is no readout yet.

        Example:
            >>> net = Reservoir(2, 20, seed=0).fit(np.eye(2), np.ones((2, 1)))
            >>> net.stream().step(np.ones(2)).shape
            (1,)
        """
        return ReservoirStream(self, batch_size)
