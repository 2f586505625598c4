"""What the files of a model in training hold."""

from keras import ops

from keras_vq.trainers import workers


class SavingMixin:
    """Saving of a model with averages of its weights and with counters.

    The averages are written beside the model's own variables, and not kept as
    weights of the model, which would double them everywhere.
    """

    def save(self, *args, **kwargs):
        with workers.alone(self):
            return super().save(*args, **kwargs)

    def save_weights(self, *args, **kwargs):
        with workers.alone(self):
            return super().save_weights(*args, **kwargs)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.weight_average is not None:
            for i, variable in enumerate(self.weight_average.variables):
                store[f"average_{i}"] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store):
        values = {name: store[name] for name in store.keys()}
        averages = {k: v for k, v in values.items() if k.startswith("average")}
        if self.weight_average is not None and averages:
            variables = self.weight_average.variables
            if len(variables) != len(averages):
                raise ValueError(
                    f"The file holds averages of {len(averages) - 1} weights, "
                    f"this model has {len(variables) - 1}."
                )
            for i, variable in enumerate(variables):
                variable.assign(averages[f"average_{i}"])
        own = {k: v for k, v in values.items() if k not in averages}
        # The file of a preset has no counters; those of the model stay.
        present = {}
        super().save_own_variables(present)
        state = {id(variable) for variable in self.training_state}
        kept = {k: v for k, v in present.items() if id(v) in state}
        super().load_own_variables({**kept, **own})
