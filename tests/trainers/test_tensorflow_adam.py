"""Adam by TensorFlow's kernel is Keras' Adam."""

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="the kernel is TensorFlow's")

from networks import images  # noqa: E402

from keras_vq.models import VQVAE  # noqa: E402
from keras_vq.trainers.tensorflow_adam import in_one_operation  # noqa: E402

SHAPES = [(3, 4), (5,)]


def _gradients(steps=6):
    rng = np.random.default_rng(1)
    # One of the entries is always 0.
    scale = np.array([0.0, 1e-4, 1.0, 30.0, 1e3])
    return [
        [rng.normal(size=(3, 4)), scale * rng.normal(size=5)]
        for _ in range(steps)
    ]


def _reference(weights, gradients, rates, decay=0.0, epsilon=1e-7):
    """Kingma and Ba, 2015, in NumPy; the decay of Loshchilov and Hutter."""
    weights = [np.array(w, "float64") for w in weights]
    slots = [[np.zeros_like(w), np.zeros_like(w)] for w in weights]
    for step, (group, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        for i, gradient in enumerate(group):
            m, v = slots[i]
            m += 0.1 * (gradient - m)
            v += 0.01 * (gradient**2 - v)
            change = rate * np.sqrt(1 - 0.99**step) / (1 - 0.9**step)
            weights[i] *= 1 - decay * rate
            weights[i] -= change * m / (np.sqrt(v) + epsilon)
    return weights


def _variables():
    rng = np.random.default_rng(0)
    return [
        keras.Variable(rng.normal(size=shape).astype("float32"))
        for shape in SHAPES
    ]


def _train(optimizer, variables, gradients):
    optimizer.build(variables)

    @tf.function
    def step(group):
        with in_one_operation(optimizer):
            optimizer.apply(group, variables)

    for group in gradients:
        step([tf.constant(gradient, "float32") for gradient in group])
    (graph,) = {f.graph for f in step._list_all_concrete_functions()}
    return [operation.type for operation in graph.get_operations()]


@pytest.mark.parametrize("decay", [None, 0.1])
def test_steps_of_the_papers(decay):
    variables, gradients = _variables(), _gradients()
    start = [variable.numpy() for variable in variables]
    rates = keras.optimizers.schedules.PolynomialDecay(1e-2, 10)
    arguments = {"learning_rate": rates, "beta_2": 0.99}
    optimizer = keras.optimizers.Adam(**arguments)
    if decay:
        optimizer = keras.optimizers.AdamW(**arguments, weight_decay=decay)
    operations = _train(optimizer, variables, gradients)
    assert operations.count("ResourceApplyAdam") == len(SHAPES)
    expected = _reference(
        start, gradients, [float(rates(i)) for i in range(6)], decay or 0.0
    )
    for got, want, first in zip(variables, expected, start, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
        assert np.abs(want - first).max() > 1e-2
    assert int(optimizer.iterations) == 6


def test_other_optimizers_are_left_alone():
    class Own(keras.optimizers.Adam):
        def update_step(self, gradient, variable, learning_rate):
            variable.assign_sub(gradient)

    zeros = [[np.zeros(shape) for shape in SHAPES]]
    variables = _variables()
    start = [variable.numpy() for variable in variables]
    _train(Own(), variables, [[np.ones(shape) for shape in SHAPES]])
    for got, first in zip(variables, start, strict=True):
        np.testing.assert_array_equal(got, first - 1)
    for optimizer in (
        keras.optimizers.SGD(),
        keras.optimizers.Adam(amsgrad=True),
    ):
        operations = _train(optimizer, _variables(), zeros)
        assert "ResourceApplyAdam" not in operations


def test_nothing_stays_on_the_optimizer():
    """Else it could not be copied, and others would take this step, too."""
    optimizer = keras.optimizers.Adam()
    _train(optimizer, _variables(), _gradients(1))
    assert "update_step" not in vars(optimizer)
    with pytest.raises(RuntimeError, match="on the way"):
        with in_one_operation(optimizer):
            raise RuntimeError("on the way")
    assert "update_step" not in vars(optimizer)


@pytest.mark.parametrize("scaled", [False, True])
def test_steps_of_a_model(scaled, dtype_policy):
    """One kernel a variable, under a loss scale as well."""
    if scaled:
        dtype_policy("mixed_float16")
    model = VQVAE(hidden_units=8, residual_units=4, codebook_dim=4)
    model.compile(keras.optimizers.Adam())
    assert hasattr(model.optimizer, "inner_optimizer") == scaled
    step = tf.function(model.train_step, autograph=False)
    graph = step.get_concrete_function(tf.constant(images(2, 8, 8, 3))).graph
    nodes = [
        node
        for function in graph.as_graph_def().library.function
        for node in function.node_def
    ]
    kernels = [node for node in nodes if node.op == "ResourceApplyAdam"]
    assert len(kernels) == len(model.trainable_variables)
