"""The optimizers of a generator and its discriminator, as one object."""

import keras


@keras.saving.register_keras_serializable(package="keras_vq")
class OptimizerPair(keras.optimizers.Optimizer):
    """The optimizers of a generator and its discriminator, as one object.

    Keras carries one optimizer with a model, saves it and restores it. This
    one holds two, which train variables of their own; the training step uses
    them by themselves. `compile` makes it of its two arguments:
    `model.optimizer.generator` and `model.optimizer.discriminator` are these.

    Learning rate and iterations are those of the generator's. Callbacks such
    as `keras.callbacks.LearningRateScheduler` therefore change the
    generator's learning rate alone; give the discriminator's optimizer a
    schedule of its own.

    Args:
        generator: Keras optimizer.
        discriminator: Another Keras optimizer.
        name: Name of the pair.

    Raises:
        ValueError: If both are the same object, which cannot keep two
            networks apart.
    """

    def __init__(self, generator, discriminator, name="optimizer_pair"):
        super().__init__(learning_rate=0.0, name=name)
        if generator is discriminator:
            raise ValueError(
                "The generator and the discriminator need an optimizer each, "
                "because each keeps its own slots and step count. Received: "
                f"the same {type(generator).__name__} twice"
            )
        self.generator = generator
        self.discriminator = discriminator
        # Of either: callbacks ask for it.
        self.use_ema = generator.use_ema or discriminator.use_ema

    def build_both(self, generator_variables, discriminator_variables):
        """Creates the variables of both optimizers, where that was not done.

        Args:
            generator_variables: List of `keras.Variable`, what the first
                optimizer trains.
            discriminator_variables: List of `keras.Variable`, what the second
                one trains.
        """
        if not self.generator.built:
            self.generator.build(generator_variables)
        if not self.discriminator.built:
            self.discriminator.build(discriminator_variables)
        self.built = True

    @property
    def variables(self):
        """The variables of both, the generator's first."""
        return [*self.generator.variables, *self.discriminator.variables]

    @property
    def learning_rate(self):
        """That of the generator."""
        return self.generator.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.generator.learning_rate = learning_rate

    @property
    def iterations(self):
        """Updates of the generator."""
        return self.generator.iterations

    def apply(self, grads, trainable_variables=None):
        """Not taken: gradients go to one of the two optimizers.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "Apply gradients with `optimizer.generator` or "
            "`optimizer.discriminator`."
        )

    def finalize_variable_values(self, var_list):
        """Keras calls this at the end of `fit`; see `keras.optimizers`.

        Args:
            var_list: All trainable variables of the model.
        """
        # Each knows only its own variables, which are those it was built
        # with. Keras has no public name for them.
        for optimizer in (self.generator, self.discriminator):
            optimizer.finalize_variable_values(
                getattr(optimizer, "_trainable_variables", var_list)
            )

    def save_own_variables(self, store):
        """Nothing: each of the two saves its own variables.

        Args:
            store: Where to.
        """

    def load_own_variables(self, store):
        """Nothing: each of the two loads its own variables.

        Args:
            store: Where from.
        """

    def get_config(self):
        """The configurations of both."""
        pack = keras.saving.serialize_keras_object
        return {
            "generator": pack(self.generator),
            "discriminator": pack(self.discriminator),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """A pair of two new optimizers."""
        config = dict(config)
        for name in ("generator", "discriminator"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        return cls(**config)
