"""What goes wrong under a strategy is refused, and what to use instead."""

import keras
import pytest
import tensorflow as tf
from networks import decoder, encoder, images

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder


def _model(my_encoder=None):
    quantizer = EMAVectorQuantizer(8, 4)
    return VQAutoencoder(my_encoder or encoder(), quantizer, decoder())


@pytest.mark.parametrize(
    "name, value, instead",
    [
        ("gradient_accumulation_steps", 2, "accumulation_steps"),
        ("clipnorm", 1.0, "clipnorm"),
        ("global_clipnorm", 1.0, "clipnorm"),
        ("clipvalue", 1.0, "clipnorm"),
        ("ema_overwrite_frequency", 2, "weight_ema"),
    ],
)
def test_options_of_optimizers(name, value, instead, two_replicas):
    options = {name: value, "use_ema": name.startswith("ema")}
    with two_replicas.scope():
        model = _model()
        with pytest.raises(ValueError, match=rf"compile\({instead}=") as error:
            model.compile(keras.optimizers.SGD(0.01, **options))
    assert f"Received: {name}={value}" in str(error.value)
    # On one device they work.
    model = _model()
    model.compile(keras.optimizers.SGD(0.01, **options))
    model.fit(images(4, 8, 8, 3), verbose=0)


def test_several_steps_an_execution(two_replicas):
    with two_replicas.scope():
        model = _model()
        with pytest.raises(ValueError, match="Leave `steps_per_execution` at"):
            model.compile(steps_per_execution=2)


def test_model_of_another_scope(two_replicas, four_replicas):
    plain = _model()
    with two_replicas.scope():
        with pytest.raises(ValueError, match="made under none, and Mirrored"):
            plain.compile()
    plain.compile()
    with four_replicas.scope():
        mirrored = _model()
        mirrored.compile()
        with pytest.raises(ValueError, match="made under none, and Mirrored"):
            plain.fit(images(4, 8, 8, 3), verbose=0)
    with two_replicas.scope():
        with pytest.raises(ValueError, match="made under another Mirrored"):
            mirrored.fit(images(4, 8, 8, 3), verbose=0)


@pytest.mark.parametrize("what", ["encoder", "optimizer"])
def test_parts_made_outside_of_the_scope(what, two_replicas):
    outside = encoder() if what == "encoder" else keras.optimizers.Adam()
    name = outside.variables[0].path
    with two_replicas.scope():
        model = _model(outside if what == "encoder" else None)
    with pytest.raises(ValueError, match="made in the scope") as error:
        model.compile(outside if what == "optimizer" else "adam")
    assert f"Received: `{name}`" in str(error.value)


def test_compile_outside_of_the_scope_makes_slots_for_all(two_replicas):
    with two_replicas.scope():
        model = _model()
    model.compile("adam", weight_ema=0.9)
    made = two_replicas.extended.variable_created_in_scope
    variables = [*model.optimizer.variables, *model.weight_average.variables]
    assert all(made(variable.value) for variable in variables)
    model.fit(images(4, 8, 8, 3), verbose=0)


class ParameterServerStrategyV2:
    """Has a cluster; only the name is looked at."""


class TPUStrategyV2(tf.distribute.OneDeviceStrategy):
    """Has a TPU; told by its name too."""


def test_other_strategies():
    central = tf.distribute.experimental.CentralStorageStrategy(
        compute_devices=["CPU:0", "CPU:1"], parameter_device="CPU:0"
    )
    with central.scope():
        model = _model()
        with pytest.raises(ValueError, match="Received: CentralStorage"):
            model.compile()
    model = _model()
    model._distribute_strategy = ParameterServerStrategyV2()
    with pytest.raises(ValueError, match="MirroredStrategy.* instead"):
        model.compile()


def test_tpus_are_untried():
    with TPUStrategyV2("CPU:0").scope():
        model = _model()
        with pytest.warns(UserWarning, match="never tried under TPUStrategy"):
            model.compile()
