"""The NumPy baselines compute the same function as the layers that they are compared with."""

import numpy as np
import pytest

import fastrnn
from fastrnn._numpy_rnn import numpy_leaky_rnn, numpy_lstm, numpy_rnn

CASES = [
    (fastrnn.LSTM, numpy_lstm, {}),
    (fastrnn.RNN, numpy_rnn, {"nonlinearity": "tanh"}),
    (fastrnn.RNN, numpy_rnn, {"nonlinearity": "relu"}),
    (fastrnn.LeakyRNN, numpy_leaky_rnn, {"nonlinearity": "tanh"}),
    (fastrnn.LeakyRNN, numpy_leaky_rnn, {"nonlinearity": "relu"}),
    (fastrnn.LeakyRNN, numpy_leaky_rnn, {"nonlinearity": "identity"}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layer_class", "factory", "options"), CASES)
def test_same_function_as_the_layer(layer_class, factory, options, bias, dtype):
    layer = layer_class(5, 7, bias=bias, dtype=dtype, seed=3, **options)
    forward = factory(layer.parameters(), **options)
    rng = np.random.default_rng(4)
    tolerance = 1e-5 if dtype is np.float32 else 1e-13
    state = None
    for steps, batch in ((6, 3), (6, 3), (1, 3), (0, 3)):
        x = rng.standard_normal((steps, batch, 5)).astype(dtype)
        expected, expected_state = layer(x, state)
        y, y_state = forward(x, state)
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)
        np.testing.assert_allclose(y_state, expected_state, rtol=0, atol=tolerance)
        assert y.dtype == dtype
        state = expected_state


def test_output_is_the_callers():
    forward = numpy_lstm(fastrnn.LSTM(2, 3, seed=0).parameters())
    x = np.ones((4, 1, 2), np.float32)
    y, (h, c) = forward(x)
    kept = y.copy(), h.copy(), c.copy()
    forward(2 * x)
    forward(x, (h, c))
    assert (y == kept[0]).all()
    assert (h == kept[1]).all()
    assert (c == kept[2]).all()


def test_refuses_what_it_does_not_compute():
    with pytest.raises(ValueError, match="weight_hh_l0_reverse"):
        numpy_lstm(fastrnn.LSTM(2, 3, bidirectional=True, bias=False).parameters())
    with pytest.raises(ValueError, match="sine"):
        numpy_rnn(fastrnn.RNN(2, 3).parameters(), nonlinearity="sine")
