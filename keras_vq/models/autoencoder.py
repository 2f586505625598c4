"""The vector-quantized autoencoder that every model of the package is."""

import copy

import keras
from keras import ops

from keras_vq.layers.quantizers import HierarchicalQuantizer, Quantizer
from keras_vq.losses import (
    get_reconstruction_loss,
    serialize_reconstruction_loss,
)
from keras_vq.losses.reduction import batch_mean
from keras_vq.metrics import CodebookPerplexity, CodesUsed
from keras_vq.models import codes as code_maps
from keras_vq.models import compiled
from keras_vq.models import images as image_tools
from keras_vq.models import tiling as tiles
from keras_vq.models.networks import (
    check_factor,
    check_networks,
    find_factors,
    freeze_layers,
    frozen_layers,
)
from keras_vq.models.training import TrainingMixin
from keras_vq.trainers import checks


@keras.saving.register_keras_serializable(package="keras_vq")
class VQAutoencoder(TrainingMixin, keras.Model):
    """Autoencoder with a quantizer between anybody's encoder and decoder.

    An ordinary Keras model: `compile`, `fit`, `evaluate`, `predict`,
    callbacks, `.keras` files, `export`, `tf.distribute`. `model(images)` is
    the reconstruction; `encode` gives codes and `decode` images.

    Args:
        encoder: Keras layer or model, images to latents with channels last,
            smaller by `downsample_factor` on every side.
        quantizer: A `keras_vq.layers.Quantizer`, or a
            `keras_vq.layers.HierarchicalQuantizer`: then the encoder gives,
            and the decoder takes, a list over the levels, coarse to fine,
            and so do `encode` and `decode`.
        decoder: Keras layer or model, quantized latents to images.
        commitment_weight: Float, weight of the commitment loss, "beta": how
            much the encoder keeps to the codes.
        codebook_weight: Float, weight of the codebook loss, where the codebook
            learns by gradient.
        reconstruction_loss: `"mse"`, `"l1"`, `"gaussian"`,
            `"discretized_logistic"`, or a callable of images and
            reconstruction; see `keras_vq.losses.get_reconstruction_loss`.
        channels: Integer, channels of an image. Needed only if the encoder
            has no known input shape.
        downsample_factor: Integer, how many pixels of a side become one
            position of codes. Needed only if it cannot be found out.
        **kwargs: `name`, `dtype`.

    Call arguments:
        images: Float tensor of shape `(batch, height, width, channels)`,
            values in [-1, 1], of any height and width: sides that are no
            multiple of `downsample_factor` are padded, and cropped again.
        training: Whether layers behave as in training.
        return_details: Whether to return a dict with `reconstruction` and
            the output of the quantizer instead of the reconstruction alone.

    Returns:
        The reconstruction, like `images`.

    Reference:
        [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937)

    Example:
    ```python
    encoder = keras.Sequential([
        keras.Input((None, None, 3)),
        keras.layers.Conv2D(64, 4, strides=2, padding="same"),
    ])
    decoder = keras.Sequential([
        keras.Input((None, None, 64)),
        keras.layers.Conv2DTranspose(3, 4, strides=2, padding="same"),
    ])
    quantizer = keras_vq.layers.EMAVectorQuantizer(512, 64)
    model = keras_vq.models.VQAutoencoder(encoder, quantizer, decoder)
    model.compile("adam")
    model.fit(dataset)
    ```
    """

    # Pixels that each side of an image must have.
    _smallest_side = 1

    def __init__(
        self,
        encoder,
        quantizer,
        decoder,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        reconstruction_loss="mse",
        channels: int | None = None,
        downsample_factor: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(quantizer, (Quantizer, HierarchicalQuantizer)):
            raise ValueError(
                "`quantizer` must be a keras_vq.layers.Quantizer, such as "
                f"EMAVectorQuantizer(512, 64). Received: {quantizer!r}"
            )
        check_networks(encoder=encoder, decoder=decoder)
        if downsample_factor is not None:
            check_factor(downsample_factor)
        if not min(commitment_weight, codebook_weight) >= 0:
            raise ValueError(
                "`commitment_weight` and `codebook_weight` must not be "
                f"negative. Received: {commitment_weight}, {codebook_weight}"
            )
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder
        self.reconstruction_loss = get_reconstruction_loss(reconstruction_loss)
        self.loss_weights = {
            "reconstruction_loss": 1.0,
            "commitment_loss": commitment_weight,
            "codebook_loss": codebook_weight,
        }
        input_shape = getattr(encoder, "input_shape", None)
        if input_shape is None:
            input_shape = (None, None, None, channels or 3)
        self._image_rank = len(input_shape)
        self.channels = input_shape[-1]
        self._create_variables()
        # Pixels of a side that become one position of codes, by level.
        self.level_factors = [downsample_factor]
        if downsample_factor is None or len(quantizer.levels()) > 1:
            self.level_factors = find_factors(
                encoder, quantizer, decoder, input_shape[1:-1], self.channels
            )
        self.downsample_factor = self.level_factors[0]

    def _create_variables(self):
        """Builds every layer: an unbuilt model loads without its weights."""
        shape = (None,) * (self._image_rank - 2) + (self.channels,)
        images = keras.Input(shape, dtype="float32")
        output = self.quantizer(self.encoder(images))
        reconstruction = self.decoder(output["quantized"])
        if reconstruction.shape[-1] != self.channels:
            raise ValueError(
                f"The decoder must give images of {self.channels} channels, "
                "as the encoder takes. Received: output shape "
                f"{tuple(reconstruction.shape)}"
            )
        self._output_dtype = reconstruction.dtype
        self.reconstruction_loss(images, images)
        names = ["reconstruction", *output["losses"]]
        names += ["regularization"] if self._regularization() else []
        self._create_training_state([f"{name}_loss" for name in names])
        self(images)
        # A functional model that this one is part of counts its calls; after
        # loading it would take this one for its own.
        self._inbound_nodes.clear()
        if not self.trainable:
            self.trainable = False  # Passed on to the layers, now there.

    # The networks

    def call(self, images, training=None, return_details=False):
        self._check_images(images)
        output = self.quantizer(self.encoder(self._pad(images)))
        reconstruction = self.decoder(output["quantized"])
        reconstruction = image_tools.crop_like(reconstruction, images)
        if return_details:
            return {"reconstruction": reconstruction, **output}
        return reconstruction

    def compute_output_spec(self, images, *args, **kwargs):
        # The image has the size that came in. To follow it through all layers
        # takes long, and JAX cannot follow sizes that are not known through
        # every network.
        if kwargs.get("return_details"):
            return super().compute_output_spec(images, *args, **kwargs)
        self._check_images(images)
        return keras.KerasTensor(images.shape, self._output_dtype)

    def _check_images(self, images):
        smallest = self._smallest_side
        rank = self._image_rank
        image_tools.check_images(images, self.channels, rank, smallest)

    def _pad(self, images):
        # Not known yet while the layers are being built.
        factor = getattr(self, "downsample_factor", 1)
        return image_tools.pad_to_multiple(images, factor)

    def encode(self, images, tiling=None):
        """Codes of images.

        Compiled at the first call, as `predict` is, and so are `decode` and
        `reconstruct`.

        Args:
            images: Float array or tensor of shape `(batch, height, width,
                channels)`, values in [-1, 1].
            tiling: A `keras_vq.models.Tiling`, or the size of a tile in
                pixels, to go through large images tile by tile; the codes are
                a NumPy array then. None: all at once.

        Returns:
            int32 tensor of shape `(batch, height / f, width / f)`, rounded up,
            where f is `downsample_factor`; values in `[0, codebook_size)`.
            With several levels a list of such tensors, coarse to fine.

        Raises:
            ValueError: If the images are not floats (convert uint8 ones with
                `preprocess`) or have another shape.
        """
        if tiling is not None:
            return tiles.encode(self, images, tiling)
        if not keras.backend.is_keras_tensor(images):
            checks.warn_unless_adapted(self, "encode")
        images = ops.convert_to_tensor(images)
        self._check_images(images)
        return compiled.run(self, "encode", self._encode, images)

    def _encode(self, images):
        return self.quantizer.encode(self.encoder(self._pad(images)))

    def decode(self, codes, tiling=None, levels: int | None = None):
        """Images of codes.

        Args:
            codes: Integer array or tensor of shape `(batch, h, w)`, values in
                `[0, codebook_size)`; with several levels a list of them, the
                coarsest first.
            tiling: As for `encode`.
            levels: Integer, how many of the coarsest levels to go by: to see
                what each level carries. The finer ones, which `codes` may
                lack, have their most frequent code everywhere. None: all.

        Returns:
            Float tensor of shape `(batch, h * f, w * f, channels)`, values
            about in [-1, 1]; `postprocess` makes uint8 images of it. An image
            whose sides were no multiple of f comes back with its padding.

        Raises:
            ValueError: If a code lies outside of the codebook, the codes
                are no batch of grids, or there are not as many maps as
                levels, or not of sizes that belong together.
        """
        codes = code_maps.complete(self, codes, levels)
        if tiling is not None:
            return tiles.decode(self, codes, tiling)
        # A model of one level takes nested lists of integers too.
        if code_maps.is_hierarchical(self):
            codes = [ops.convert_to_tensor(level) for level in codes]
        else:
            codes = ops.convert_to_tensor(codes)
        code_maps.check_codes(self, codes)
        return compiled.run(self, "decode", self._decode, codes)

    def _decode(self, codes):
        return self.decoder(self.quantizer.decode(codes))

    def reconstruct(self, images, tiling=None):
        """What is left of images after encoding and decoding.

        Args:
            images: As for `encode`.
            tiling: As for `encode`.

        Returns:
            Images like `images`: `model(images)`, or with `tiling` a NumPy
            array.
        """
        if tiling is not None:
            return tiles.reconstruct(self, images, tiling)
        images = ops.convert_to_tensor(images)
        self._check_images(images)
        return compiled.run(
            self,
            "reconstruct",
            lambda images: self(images, training=False),
            images,
        )

    preprocess = staticmethod(image_tools.preprocess)
    postprocess = staticmethod(image_tools.postprocess)

    def bits_per_image(self, height: int, width: int) -> float:
        """Bits that the codes of one image take, without coding."""
        return sum(self.bits_per_level(height, width))

    def bits_per_level(self, height: int, width: int) -> list:
        """What each level adds to `bits_per_image`, coarse to fine."""
        return code_maps.bits_per_level(self, height, width)

    def count_params(self) -> int:
        """Number of parameters that it takes to use the model.

        Networks and codebooks; what only training needs (statistics of the
        codebooks, counters) is left out.
        """
        networks = self.encoder.count_params() + self.decoder.count_params()
        return networks + self.quantizer.count_used_params()

    # The losses

    def generator_losses(self, images, training: bool = True) -> dict:
        """Everything that the training step needs to know of one batch.

        Args:
            images: Float tensor in [-1, 1].
            training: Whether layers behave as in training.

        Returns:
            Dict of `losses` (unweighted float32 scalars by name, means over
            the batch), `reconstruction`, `indices`, and `statistics` for
            `update_quantizers` (when training).
        """
        output = self(images, training=training, return_details=True)
        reconstruction = output["reconstruction"]
        return {
            "losses": {
                **self.reconstruction_losses(images, reconstruction),
                **self.latent_losses(output),
            },
            "reconstruction": reconstruction,
            "indices": output["indices"],
            "statistics": output.get("statistics"),
        }

    def reconstruction_losses(self, images, reconstruction) -> dict:
        """Losses that depend on the reconstruction.

        Args:
            images: Float tensor in [-1, 1].
            reconstruction: Float tensor like `images`.

        Returns:
            Dict of unweighted float32 scalars, means over the batch.
        """
        errors = self.reconstruction_loss(images, reconstruction)
        return {"reconstruction_loss": batch_mean(errors)}

    def latent_losses(self, output: dict) -> dict:
        """Losses that do not: those of the quantizer, and regularization.

        Args:
            output: What the model gives with `return_details=True`.

        Returns:
            Dict of unweighted float32 scalars.
        """
        losses = {f"{n}_loss": value for n, value in output["losses"].items()}
        if regularization := self._regularization():
            losses["regularization_loss"] = sum(regularization)
        return losses

    def _regularization(self) -> list:
        return self.losses

    def total_loss(self, losses: dict):
        """Weighted sum of the losses by name."""
        return sum(
            self.loss_weights.get(name, 1.0) * value
            for name, value in losses.items()
        )

    def update_from(self, statistics: dict):
        """Updates what learns from sums over the batch, once a step.

        Args:
            statistics: Dict of the summed statistics of `"quantizer"`.
        """
        if "quantizer" in statistics:
            self.update_quantizers(statistics["quantizer"])

    def update_quantizers(self, statistics):
        """Hands the summed statistics of one step to the quantizer."""
        # Skipped steps leave no trace, in the choice of revived codes either.
        self.quantizer.update(statistics, self.steps - self.skipped_steps)

    @property
    def quantizer_weights(self) -> list:
        """Weights that only `update_quantizers` and gradients change."""
        levels = self.quantizer.levels()
        return [weight for level in levels for weight in level.weights]

    def _create_trackers(self) -> dict:
        levels, trackers = self.quantizer.levels(), {}
        for name, metric in (
            ("perplexity", CodebookPerplexity),
            ("codes_used", CodesUsed),
        ):
            names = code_maps.level_names(name, len(levels))
            for level, own in zip(levels, names, strict=True):
                trackers[own] = metric(level.codebook_size, name=own)
        return trackers

    def _collect_latents(self, images, level: int):
        features = self.encoder(self._pad(images))
        if code_maps.is_hierarchical(self):
            return self.quantizer.latents(features, level)
        return features

    # Saving: see also `keras_vq.models.saving`

    def get_config(self):
        pack = keras.saving.serialize_keras_object
        config = {
            **super().get_config(),
            "encoder": pack(self.encoder),
            "quantizer": pack(self.quantizer),
            "decoder": pack(self.decoder),
            "channels": self.channels,
            "downsample_factor": self.downsample_factor,
        }
        if frozen := frozen_layers(self):
            config["frozen_layers"] = frozen
        return {**config, **self._loss_config()}

    def _loss_config(self) -> dict:
        return {
            "commitment_weight": self.loss_weights["commitment_loss"],
            "codebook_weight": self.loss_weights["codebook_loss"],
            "reconstruction_loss": serialize_reconstruction_loss(
                self.reconstruction_loss
            ),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("encoder", "quantizer", "decoder"):
            if isinstance(config.get(name), dict):
                # Keras empties the configurations of functional models.
                config[name] = keras.saving.deserialize_keras_object(
                    copy.deepcopy(config[name]), custom_objects=custom_objects
                )
        frozen = config.pop("frozen_layers", None)
        model = cls(**config)
        if frozen:
            freeze_layers(model, frozen)
        return model
