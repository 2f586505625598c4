"""Quantizers of several levels, of which the coarser condition the finer."""

import keras
from keras import ops

from keras_vq.layers.quantizers.base import Quantizer


@keras.saving.register_keras_serializable(package="keras_vq")
class HierarchicalQuantizer(keras.layers.Layer):
    """Quantizes several levels of latents, coarse to fine.

    What a coarse level has decided on is told to the next finer one, which
    codes the rest: with `q` the quantized latents of a level,

        latents = projection(concatenate([context, features]))
        context of the next level = network(concatenate([context, q]))

    where the coarsest level has no context.

    Like a `Quantizer` it computes only; see there for who trains it.

    Args:
        quantizers: List of `keras_vq.layers.Quantizer`, one for each level,
            the coarsest first.
        projections: List of Keras layers, one for each level, which make the
            latents of its quantizer.
        contexts: List of Keras layers or models, one for each level but the
            finest. Their output has height and width of the next finer level.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Call arguments:
        features: List of float tensors of shape `(batch, height, width,
            channels)`, one for each level, the coarsest first.
        training: Whether to return statistics.

    Returns:
        Dict as of `keras_vq.layers.Quantizer`, with lists over the levels
        for `quantized`, `indices` and `statistics`, and sums over the levels
        for `losses`.

    Raises:
        ValueError: If there are not as many layers or features as levels.

    Reference:
        [Razavi et al., 2019](https://arxiv.org/abs/1906.00446), section 3.1.
    """

    def __init__(self, quantizers, projections, contexts, **kwargs):
        super().__init__(**kwargs)
        if len(quantizers) < 1 or not all(
            isinstance(quantizer, Quantizer) for quantizer in quantizers
        ):
            raise ValueError(
                "`quantizers` must be one keras_vq.layers.Quantizer for each "
                f"level, the coarsest first. Received: {quantizers!r}"
            )
        counts = (len(quantizers), len(projections), len(contexts) + 1)
        if len(set(counts)) > 1:
            raise ValueError(
                "There must be a quantizer and a projection for each level, "
                "and a context network for each but the finest. Received: "
                f"{counts[0]} quantizers, {counts[1]} projections, "
                f"{len(contexts)} contexts"
            )
        self.quantizers = list(quantizers)
        self.projections = list(projections)
        self.contexts = list(contexts)

    def levels(self) -> list:
        """The quantizers, the coarsest first."""
        return list(self.quantizers)

    def count_used_params(self) -> int:
        """Number of parameters that encoding and decoding take."""
        networks = (*self.projections, *self.contexts)
        return sum(level.count_used_params() for level in self.levels()) + sum(
            network.count_params() for network in networks
        )

    def build(self, input_shape):
        if not isinstance(input_shape[0], (list, tuple)):
            input_shape = [input_shape]
        context = None
        for level, shape in enumerate(input_shape):
            shape = _joined_shape(context, shape)
            projection = self.projections[level]
            _build(projection, shape)
            shape = projection.compute_output_shape(shape)
            _build(self.quantizers[level], shape)
            if level < len(self.contexts):
                shape = _joined_shape(context, shape)
                _build(self.contexts[level], shape)
                context = self.contexts[level].compute_output_shape(shape)

    def call(self, features, training=None):
        def quantize(quantizer, latents):
            output = quantizer(latents, training=training)
            return output, output["quantized"]

        return self._joined_outputs(self._descend(features, quantize), training)

    def _joined_outputs(self, outputs, training) -> dict:
        losses = {}
        for output in outputs:
            for name, value in output["losses"].items():
                losses[name] = losses.get(name, 0.0) + value
        result = {
            "quantized": [output["quantized"] for output in outputs],
            "indices": [output["indices"] for output in outputs],
            "losses": losses,
        }
        if training:
            result["statistics"] = [output["statistics"] for output in outputs]
        return result

    def compute_output_spec(self, features, training=None):
        # JAX takes all sizes that are not known for one and the same, which
        # those of the levels are not: so layer by layer.
        features = self._levels_of(features, "features")
        outputs, context = [], None
        for level, quantizer in enumerate(self.quantizers):
            joined = _joined(context, features[level])
            latents = self.projections[level].compute_output_spec(joined)
            output = quantizer.compute_output_spec(latents, training=training)
            outputs.append(output)
            if level < len(self.contexts):
                joined = _joined(context, output["quantized"])
                context = self.contexts[level].compute_output_spec(joined)
        return self._joined_outputs(outputs, training)

    def encode(self, features) -> list:
        """Indices of the nearest codes, by level.

        Args:
            features: As in a call.

        Returns:
            List of int32 tensors of shape `(batch, height, width)`.
        """

        def quantize(quantizer, latents):
            indices = quantizer.encode(latents)
            return indices, quantizer.decode(indices)

        return self._descend(features, quantize)

    def decode(self, indices) -> list:
        """Vectors of the given codes, by level.

        Args:
            indices: List of integer tensors, one for each level.

        Returns:
            List of tensors, equal to `quantized` of a call.
        """
        indices = self._levels_of(indices, "maps of indices")
        return [
            quantizer.decode(level)
            for quantizer, level in zip(self.quantizers, indices, strict=True)
        ]

    def latents(self, features, level: int):
        """Latents that one level would quantize.

        Args:
            features: As in a call.
            level: Integer, 0 is the coarsest.

        Returns:
            Float tensor of shape `(batch, height, width, channels)`.
        """
        features, context = self._levels_of(features, "features"), None
        for i in range(level):
            latents = self._project(i, context, features[i])
            quantizer = self.quantizers[i]
            quantized = quantizer.decode(quantizer.encode(latents))
            context = self._context(i, context, quantized)
        return self._project(level, context, features[level])

    def update(self, statistics: list, step):
        """Takes one training step of what does not learn by gradient.

        Args:
            statistics: List over the levels; see `Quantizer.update`.
            step: Integer or integer tensor, number of the training step.
        """
        for quantizer, part in zip(self.quantizers, statistics, strict=True):
            quantizer.update(part, step)

    def _descend(self, features, quantize) -> list:
        """What `quantize` says of each level, from coarse to fine."""
        features = self._levels_of(features, "features")
        outputs, context = [], None
        for level, quantizer in enumerate(self.quantizers):
            latents = self._project(level, context, features[level])
            output, quantized = quantize(quantizer, latents)
            outputs.append(output)
            if level < len(self.contexts):
                context = self._context(level, context, quantized)
        return outputs

    def _project(self, level, context, features):
        return self.projections[level](_joined(context, features))

    def _context(self, level, context, quantized):
        return self.contexts[level](_joined(context, quantized))

    def _levels_of(self, values, what) -> list:
        # Keras takes a list of one for the one itself.
        values = values if isinstance(values, (list, tuple)) else [values]
        if len(values) != len(self.quantizers):
            raise ValueError(
                f"Expected a list of {len(self.quantizers)} {what}, one for "
                f"each level, the coarsest first. Received: {len(values)}"
            )
        return list(values)

    def get_config(self):
        pack = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "quantizers": [pack(layer) for layer in self.quantizers],
            "projections": [pack(layer) for layer in self.projections],
            "contexts": [pack(layer) for layer in self.contexts],
        }

    @classmethod
    def from_config(cls, config):
        unpack = keras.saving.deserialize_keras_object
        config = dict(config)
        for name in ("quantizers", "projections", "contexts"):
            config[name] = [unpack(layer) for layer in config[name]]
        return cls(**config)


def _joined(context, tensor):
    if context is None:
        return tensor
    tensor = ops.cast(tensor, context.dtype)
    return ops.concatenate([context, tensor], axis=-1)


def _joined_shape(context, shape):
    channels = shape[-1] + (0 if context is None else context[-1])
    return (*shape[:-1], channels)


def _build(layer, shape):
    if not layer.built:
        layer.build(shape)
