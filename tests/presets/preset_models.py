"""Small registered models that have nothing to do with the package's own.

They show that the preset machinery depends on no particular model: nested
functional and sequential parts, lists of layers, weights of the model itself,
integer and boolean weights, and state of a training run.
"""

import contextlib

import keras
from keras import layers

PACKAGE = "keras_vq_tests"


@keras.saving.register_keras_serializable(package=PACKAGE)
class Shift(layers.Layer):
    """Adds a vector; it also owns an integer and a boolean weight."""

    def build(self, input_shape):
        size = input_shape[-1]
        self.shift = self.add_weight(
            shape=(size,), initializer="random_normal", dtype="float32"
        )
        self.count = self.add_weight(
            shape=(size,), initializer="zeros", dtype="int32", trainable=False
        )
        self.ready = self.add_weight(
            shape=(), initializer="zeros", dtype="bool", trainable=False
        )

    def call(self, inputs):
        return inputs + keras.ops.cast(self.shift, inputs.dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class TinyModel(keras.Model):
    def __init__(self, units=4, activation="relu", channels=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.activation = activation
        self.channels = channels
        dtype = self.dtype_policy
        inputs = keras.Input((8, 8, channels))
        x = layers.Conv2D(units, 3, activation=activation, dtype=dtype)(inputs)
        x = layers.BatchNormalization(dtype=dtype)(x)
        self.encoder = keras.Model(inputs, x, name="encoder")
        self.blocks = [
            layers.Dense(units, dtype=dtype),
            keras.Sequential([layers.Dense(units, dtype=dtype)]),
            layers.Dense(units, dtype=dtype),
        ]
        self.shift = Shift(dtype=dtype)
        self.scale = self.add_weight(
            shape=(units,), initializer="random_normal", name="scale"
        )
        self.steps = self.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False
        )
        self.average = None
        self(keras.Input((8, 8, channels)))

    @property
    def training_state(self):
        return [self.steps]

    def call(self, images):
        x = self.encoder(images)
        for block in self.blocks:
            x = block(x)
        return self.shift(x * keras.ops.cast(self.scale, x.dtype))

    @contextlib.contextmanager
    def averaged_weights(self):
        if self.average is None:
            yield self
            return
        before = self.scale.numpy()
        self.scale.assign(self.average)
        try:
            yield self
        finally:
            self.scale.assign(before)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["average"] = self.scale.numpy() * 0 + 7

    def load_own_variables(self, store):
        if "average" in store:
            raise AssertionError("the average is no part of a preset")
        self.scale.assign(store["0"])

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": self.activation,
            "channels": self.channels,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class TinySubclass(TinyModel):
    pass


@keras.saving.register_keras_serializable(package=PACKAGE)
class OtherModel(keras.Model):
    """Anybody's parts, as arguments of the model."""

    def __init__(self, encoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self(keras.Input((8, 8, 3)))

    def call(self, images):
        return self.encoder(images)

    def get_config(self):
        encoder = keras.saving.serialize_keras_object(self.encoder)
        return {**super().get_config(), "encoder": encoder}

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)
