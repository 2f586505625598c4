"""When which network of a VQGAN is trained, and that no other one is."""

import warnings

import keras
import networks
import numpy as np
import pytest
import tensorflow as tf
from replicas import compile_model, number

from keras_vq.callbacks import ResumableCheckpoint
from keras_vq.trainers.phases import enter_phase

IMAGES = networks.images(8, 8, 8, 3)
PHASES = {"discriminator_start": 2, "pretraining_steps": 2, "warmup_steps": 4}
GENERATOR = {"encoder", "quantizer", "decoder", "optimizer"}
CRITIC = {"discriminator", "discriminator_optimizer", "logit_averages"}
# What the steps of `PHASES` change, one after the other.
CHANGES = [GENERATOR] * 2 + [CRITIC] * 2 + [GENERATOR | CRITIC] * 3


def _model(adversarial=PHASES, compile=None, **arguments):
    # Step by step: a graph of each phase would take longer.
    compile = {"run_eagerly": True, **(compile or {})}
    model = networks.vqgan(adversarial, **arguments)
    return compile_model(
        model, keras.optimizers.SGD(1e-2, momentum=0.9), **compile
    )


def state(model):
    """Values of everything that a network or its optimizer consists of."""
    parts = {
        "encoder": model.encoder,
        "quantizer": model.quantizer,
        "decoder": model.decoder,
        "optimizer": model.optimizer.generator,
        "discriminator": model.discriminator,
        "discriminator_optimizer": model.optimizer.discriminator,
    }
    values = {
        name: [np.array(v) for v in part.variables]
        for name, part in parts.items()
    }
    return {**values, "logit_averages": [np.array(model.logit_averages)]}


def changed(before, after):
    """Names of the parts of which anything is not bit-equal any more."""
    return {
        name
        for name in before
        if any(
            not np.array_equal(old, new)
            for old, new in zip(before[name], after[name], strict=True)
        )
    }


class _Record(keras.callbacks.Callback):
    """What each step changes, and the adversarial weight that it has."""

    def __init__(self):
        super().__init__()
        self.changes, self.weights = [], []

    def on_train_begin(self, logs=None):
        self.last = state(self.model)

    def on_train_batch_end(self, batch, logs=None):
        now = state(self.model)
        self.changes.append(changed(self.last, now))
        self.weights.append(number(self.model.adversarial_weight()))
        self.last = now


def _fit(model, steps, **arguments):
    dataset = tf.data.Dataset.from_tensors(IMAGES).repeat(steps)
    return model.fit(dataset, verbose=0, **arguments)


def test_fit_passes_through_the_phases():
    model, record = _model(), _Record()
    model.adapt(IMAGES)
    for steps in (1, 4, 2):
        history = _fit(model, steps, callbacks=[record]).history
    assert record.changes == CHANGES
    np.testing.assert_allclose(record.weights[4:], [0.2, 0.4, 0.6], rtol=1e-6)
    iterations = [
        number(optimizer.iterations)
        for optimizer, _ in model.optimizer_groups.values()
    ]
    assert iterations == [5, 5] and number(model.steps) == 7
    assert history["adaptive_weight"][0] > 0
    # The weight goes no higher.
    model.steps.assign(100)
    assert number(model.adversarial_weight()) == pytest.approx(0.8)


def test_train_on_batch_passes_through_the_phases():
    model = _model()
    model.adapt(IMAGES)
    for step, expected in enumerate(CHANGES):
        before = state(model)
        logs = model.train_on_batch(IMAGES, return_dict=True)
        assert changed(before, state(model)) == expected, step
        assert np.isfinite(list(logs.values())).all()


def test_fraction_of_the_steps():
    adversarial = {"discriminator_start": 0.5, "total_steps": 4}
    model, record = _model(adversarial), _Record()
    model.adapt(IMAGES)
    _fit(model, 4, callbacks=[record])
    both = GENERATOR | CRITIC
    assert record.changes == [GENERATOR, GENERATOR, both, both]


@pytest.mark.soak
def test_several_steps_an_execution():
    """A phase begins with the first execution that lies in it wholly."""
    adversarial = {"discriminator_start": 1}
    compile = {"steps_per_execution": 2, "run_eagerly": False}
    model, record = _model(adversarial, compile, critic="group"), _Record()
    model.adapt(IMAGES)
    _fit(model, 4, callbacks=[record])
    assert record.changes == [GENERATOR, GENERATOR | CRITIC]
    assert number(model.optimizer.discriminator.iterations) == 2
    assert number(model.steps) == 4


def _step_graph(model):
    enter_phase(model, number(model.steps))
    step = tf.function(model.train_step, autograph=False)
    return step.get_concrete_function(tf.TensorSpec(IMAGES.shape)).graph


def _operations(graph):
    functions = [f.graph for f in graph._functions.values()]
    return [op for g in (graph, *functions) for op in g.get_operations()]


def test_before_its_start_the_discriminator_costs_nothing():
    """No operation of the graph belongs to it, and no variable is read."""
    model = _model({"discriminator_start": 9}, critic="group")
    graph = _step_graph(model)
    rate = model.optimizer.discriminator.learning_rate
    theirs = [
        *model.discriminator.variables,
        *model.optimizer.discriminator.variables,
        model.logit_averages,
    ]
    # Looked at by the gate, a number.
    theirs = {v.value.ref() for v in theirs if v is not rate}
    read = {v.ref() for v in graph.variables}
    assert model.encoder.variables[0].value.ref() in read
    assert not read & theirs
    without = _step_graph(_model(critic=None))
    kinds = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")
    found, expected = (
        [sum(op.type == kind for op in _operations(g)) for kind in kinds]
        for g in (graph, without)
    )
    assert found == expected and min(found) > 0


@pytest.mark.parametrize(
    "kind, steps",
    [
        ("file", 3),
        ("checkpoint", 4),
        *(
            pytest.param(*case, marks=pytest.mark.soak)
            for case in [
                ("file", 1),
                ("file", 4),
                ("checkpoint", 1),
                ("checkpoint", 3),
            ]
        ),
    ],
)
def test_goes_on_in_the_right_phase(kind, steps, tmp_path):
    model = _model(compile={"weight_ema": 0.9})
    checkpoint = ResumableCheckpoint(tmp_path / "run", save_every=steps)
    data = tf.data.Dataset.from_tensors(IMAGES).repeat(steps)
    model.fit(data, callbacks=[checkpoint], verbose=0)
    record, again = _Record(), _Record()
    if kind == "file":
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        _fit(loaded, 2, callbacks=[again])
    else:
        loaded = _model(compile={"weight_ema": 0.9})
        resumed = ResumableCheckpoint(tmp_path / "run")
        # An epoch of `steps` is done; two more steps are an epoch each.
        loaded.fit(
            resumed.resume(data.take(1)),
            epochs=3,
            callbacks=[again, resumed],
            verbose=0,
        )
    _fit(model, 2, callbacks=[record])
    assert record.changes == CHANGES[steps : steps + 2]
    assert again.changes == record.changes
    assert not changed(state(model), state(loaded))
    # Means over the last epoch: of two steps here, of one there.
    means = {id(v) for v in model.metrics_variables}
    for one, other in zip(
        [*model.variables, *model.weight_average.variables],
        [*loaded.variables, *loaded.weight_average.variables],
        strict=True,
    ):
        if id(one) not in means:
            np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_a_fit_that_ends_before_the_discriminator_counts():
    model = _model({"discriminator_start": 1, "pretraining_steps": 1})
    model.adapt(IMAGES)
    with pytest.warns(UserWarning, match="ends after step 2, and .* step 2"):
        _fit(model, 2)


def _warnings_of(model, *arguments, **options):
    """What a `fit` says of the discriminator's start."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        model.fit(*arguments, verbose=0, **options)
    return [str(w.message) for w in record if "counts" in str(w.message)]


def _of_unknown_length(steps):
    dataset = tf.data.Dataset.from_tensors(IMAGES).repeat(steps)
    dataset = dataset.filter(lambda images: True)
    assert dataset.cardinality() == tf.data.UNKNOWN_CARDINALITY
    return dataset


def test_data_of_unknown_length_that_ends_before_the_discriminator_counts():
    model = _model({"discriminator_start": 2, "pretraining_steps": 2})
    model.adapt(IMAGES)
    (message,) = _warnings_of(model, _of_unknown_length(2), epochs=2)
    assert "ends after step 4, and" in message
    assert "only after step 4." in message
    assert not _warnings_of(model, _of_unknown_length(1))
    assert number(model.optimizer.generator.iterations) == 3


class _Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def test_a_fit_that_is_stopped_before_the_discriminator_counts():
    model = _model({"discriminator_start": 2})
    model.adapt(IMAGES)
    data = tf.data.Dataset.from_tensors(IMAGES)
    # Three steps would have been enough. What was said is not said again.
    (message,) = _warnings_of(model, data, epochs=3, callbacks=[_Stop()])
    assert "ends after step 1, and" in message
    (message,) = _warnings_of(model, data)
    assert "ends after step 2, and" in message
