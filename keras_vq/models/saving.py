"""The files of a model: what is saved in training, presets, exports."""

import keras
from keras import ops

from keras_vq.layers.processor import plain_operations
from keras_vq.models import codes as code_maps
from keras_vq.trainers import workers


class SavingMixin:
    """Presets and exports, and saving with averages and with counters.

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

    @classmethod
    def from_preset(
        cls, preset: str, load_weights: bool = True, dtype=None, **overrides
    ):
        """Model of a preset, with its weights.

        Args:
            preset: Name of a preset (see `keras_vq.list_presets()`), path of a
                directory that `save_to_preset` wrote,
                `"hf://user/repository"`, or path of weights of another
                program (a file, or a directory of diffusers).
            load_weights: Whether to load the weights, or to start afresh.
            dtype: Dtype policy of the model, such as `"mixed_bfloat16"`.
            **overrides: Arguments of the model to change, and `load_parts`
                of `keras_vq.presets.load_preset`.

        Returns:
            A model of the preset's class, which must be this class or a
            subclass.
        """
        from keras_vq.presets import load_preset

        return load_preset(
            cls, preset, load_weights=load_weights, dtype=dtype, **overrides
        )

    # Parts that `from_preset` has not loaded, though it has loaded the rest.
    fresh_parts = ()

    def preset_parts(self) -> dict:
        """Parts by name that only training needs; here there are none."""
        return {}

    def preset_config(self, parts) -> dict:
        """Arguments that the model of a preset has instead of this one's.

        Args:
            parts: Names of the parts that the preset holds.
        """
        return {}

    def save_to_preset(self, directory: str, **kwargs):
        """Writes a directory that `from_preset` reads.

        Args:
            directory: Path of a directory that does not exist yet.
            **kwargs: Arguments of `keras_vq.presets.save_preset`.
        """
        from keras_vq.presets import save_preset

        save_preset(self, directory, **kwargs)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Writes a SavedModel with the endpoints serve, encode and decode.

        Args:
            filepath: Path of a directory.
            format: `"tf_saved_model"`; others, such as `"onnx"` (a file, needs
                the extra `export`), are those of `keras.Model`, and hold the
                reconstruction alone.
            **kwargs: Arguments of `keras.Model.export`, such as `verbose`,
                or an `input_signature` of the images, which by default may
                be of any number and size.

        Raises:
            ValueError: If a SavedModel is asked for on another backend than
                TensorFlow.
        """
        backend = keras.backend.backend()
        if format == "tf_saved_model" and backend != "tensorflow":
            raise ValueError(
                "A SavedModel is written on the TensorFlow backend. Save the "
                "model with `save_to_preset`, and export it where "
                "KERAS_BACKEND=tensorflow. Received: the backend "
                f"{backend}"
            )
        with plain_operations():
            if format != "tf_saved_model":
                return super().export(filepath, format=format, **kwargs)
            return self._export_endpoints(filepath, **kwargs)

    def _export_endpoints(self, filepath, **kwargs):
        shape = (None,) * (self._image_rank - 1) + (self.channels,)
        images = kwargs.pop("input_signature", None) or [
            keras.InputSpec(shape=shape, dtype="float32")
        ]
        codes = code_maps.of_shapes(
            self, lambda shape: keras.InputSpec(shape=shape, dtype="int32")
        )
        archive = keras.export.ExportArchive()
        # Not the whole model: a discriminator is of no use there.
        for layer in self.layers:
            if layer not in self.preset_parts().values():
                archive.track(layer)
        archive.add_endpoint("serve", lambda x: self(x, training=False), images)
        archive.add_endpoint("encode", self.encode, images)
        archive.add_endpoint("decode", self.decode, [codes])
        return archive.write_out(filepath, **kwargs)
