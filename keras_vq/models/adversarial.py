"""What makes a model trainable against a discriminator."""

import warnings

import keras
from keras import ops

from keras_vq.losses.adversarial import (
    discriminator_accuracy,
    get_adversarial_loss,
    lecam_penalty,
    update_lecam_anchors,
)
from keras_vq.losses.adversarial_training import AdversarialTraining
from keras_vq.losses.reduction import batch_mean
from keras_vq.models.discriminators import Discriminator, PatchGAN
from keras_vq.trainers import checks, scope, workers
from keras_vq.trainers.optimizer_pair import OptimizerPair
from keras_vq.trainers.phases import Phase, PhaseSwitch, enter_phase

# Logged in training only: `val_loss` is the same with and without them.
_TERMS = (
    "generator_loss",
    "discriminator_loss",
    "adaptive_weight",
    "discriminator_accuracy",
    "real_logits",
    "fake_logits",
)


class AdversarialMixin:
    """Training of an autoencoder against a discriminator.

    The model defines `last_layer` and `apply_last_layer`, and returns
    `features`, the input of that layer, among its details.
    """

    def _adversary(self, discriminator, adversarial, channels, dtype):
        """Sets the options, and returns the discriminator, or None."""
        self._adversarial = _checked_options(adversarial)
        if discriminator == "patchgan":
            discriminator = PatchGAN(
                channels=channels, dtype=dtype, name="discriminator"
            )
        if discriminator is not None and not isinstance(
            discriminator, Discriminator
        ):
            raise ValueError(
                '`discriminator` must be "patchgan", a '
                "keras_vq.models.Discriminator such as "
                "PatchGAN(num_layers=2), or None to train without. "
                f"Received: {discriminator!r}"
            )
        theirs = getattr(discriminator, "channels", channels)
        if theirs != channels:
            raise ValueError(
                "The discriminator must take the images of the model: images "
                f"of {channels} channels. Make it with channels={channels}. "
                f"Received: a {type(discriminator).__name__} of "
                f"channels={theirs}"
            )
        if discriminator is not None and not discriminator.built:
            # The optimizer is made for variables that are there.
            discriminator(keras.Input((None, None, channels), dtype="float32"))
        return discriminator

    def _create_training_state(self, loss_names):
        super()._create_training_state([*loss_names, *self._adversarial_terms])
        if self.discriminator is None:
            return
        # The decayed sums of `update_lecam_anchors`.
        self.logit_averages = self.add_weight(
            name="logit_averages",
            shape=(3,),
            dtype="float32",
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    @property
    def adversarial(self):
        """The `AdversarialTraining` that the model was made with."""
        return self._adversarial

    @adversarial.setter
    def adversarial(self, options):
        # Metrics and counters were made for the terms of the old one.
        raise AttributeError(
            "`adversarial` is an argument of the model's constructor and of "
            "`from_preset`, and cannot be exchanged afterwards. "
            f"Received: {options!r}"
        )

    @property
    def _adversarial_terms(self) -> list:
        """Names of what is logged in training only."""
        if self.discriminator is None:
            return []
        options = self.adversarial
        terms = [*_TERMS]
        terms += ["r1_penalty"] if options.r1_weight else []
        terms += ["lecam_penalty"] if options.lecam_weight else []
        return terms

    @property
    def training_state(self) -> list:
        """Variables that count the training: no part of a preset."""
        own = [self.logit_averages] if self.discriminator is not None else []
        return [*super().training_state, *own]

    @property
    def optimizer_groups(self) -> dict:
        """Optimizers and what each of them trains, by their gradients' name."""
        if self.discriminator is None:
            return super().optimizer_groups
        return {
            "gradients": (
                getattr(self.optimizer, "generator", None),
                self._generator_variables(),
            ),
            "discriminator_gradients": (
                getattr(self.optimizer, "discriminator", None),
                self.discriminator.trainable_variables,
            ),
        }

    def _generator_variables(self) -> list:
        theirs = {id(v) for v in self.discriminator.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in theirs]

    def _averaged(self) -> list:
        if self.discriminator is None:
            return super()._averaged()
        left_out = [*self.discriminator.weights, self.logit_averages]
        theirs = {id(v) for v in left_out}
        return [v for v in self.weights if id(v) not in theirs]

    def _regularization(self) -> list:
        parts = (self.encoder, self.quantizer, self.decoder)
        return [loss for part in parts for loss in part.losses]

    # compile

    @scope.in_own_scope
    def compile(
        self,
        optimizer="adam",
        discriminator_optimizer=None,
        auto_scale_loss: bool = True,
        **kwargs,
    ):
        """Sets up training.

        Args:
            optimizer: Keras optimizer of encoder, quantizer and decoder, or
                its name.
            discriminator_optimizer: Keras optimizer of the discriminator, or
                its name. Needed unless the model has no discriminator.
            auto_scale_loss: Whether the optimizers of a model in
                mixed_float16 are wrapped in a
                `keras.optimizers.LossScaleOptimizer` each.
            **kwargs: `metrics`, `weight_ema` (of all weights but the
                discriminator's), `accumulation_steps`, `clipnorm` (of each
                network by itself) and the rest of
                `keras_vq.models.VQAutoencoder.compile`.

        Raises:
            ValueError: If the optimizer of the discriminator is missing, or
                there is no discriminator to train, and as there.
        """
        if self.discriminator is None:
            if discriminator_optimizer is not None:
                raise ValueError(
                    "This model has no discriminator. Leave "
                    "`discriminator_optimizer` out, or make the model with "
                    'one, such as `discriminator="patchgan"`. Received: '
                    f"discriminator_optimizer={discriminator_optimizer!r}"
                )
            super().compile(
                optimizer, auto_scale_loss=auto_scale_loss, **kwargs
            )
            return
        pair = _pair(optimizer, discriminator_optimizer)
        scaled = auto_scale_loss and self.dtype_policy.name == "mixed_float16"
        if scaled:
            pair.generator = _scaled(pair.generator)
            pair.discriminator = _scaled(pair.discriminator)
        strategy = getattr(self, "_distribute_strategy", None)
        for part in (pair.generator, pair.discriminator):
            checks.check_optimizer(part, strategy)
        pair.build_both(
            self._generator_variables(),
            self.discriminator.trainable_variables,
        )
        super().compile(pair, auto_scale_loss=False, **kwargs)
        self._warn_of_a_fresh_discriminator()

    def _warn_of_a_fresh_discriminator(self):
        fresh = "discriminator" in self.fresh_parts
        if not fresh or self.phase_at(0) is not Phase.BOTH:
            return
        if int(ops.convert_to_numpy(self.steps)) or (
            self.adversarial.warmup_steps
        ):
            return
        warnings.warn(
            "The autoencoder has been trained, and its discriminator is a "
            "fresh one, whose noise takes part in the first step already. To "
            "let it learn alone first, give `from_preset` "
            "adversarial=keras_vq.losses.AdversarialTraining("
            "pretraining_steps=1000).",
            stacklevel=4,
        )

    # The phases

    def phase_at(self, steps: int) -> Phase:
        """Which networks the step after `steps` others concerns."""
        options = self.adversarial
        if self.discriminator is None or steps < options.first_step:
            return Phase.AUTOENCODER
        if steps < options.adversarial_start:
            return Phase.DISCRIMINATOR
        return Phase.BOTH

    def _with_own_callbacks(self, callbacks):
        callbacks = super()._with_own_callbacks(callbacks)
        if self.discriminator is None:
            return callbacks
        return [PhaseSwitch(), *callbacks]

    def _open_files(self):
        # Before a step is traced, so that what is missing is named plainly.
        load = getattr(self.perceptual_loss, "load", None)
        if callable(load):
            load()

    def train_on_batch(self, *args, **kwargs):
        """Takes one step; `adapt` must have been called before."""
        self._open_files()
        if self.compiled:
            enter_phase(self, int(ops.convert_to_numpy(self.steps)))
        images = args[0] if args else kwargs.get("x")
        if getattr(images, "ndim", 0) == self._image_rank:
            self._check_sizes(images)
        return super().train_on_batch(*args, **kwargs)

    # Start values

    def _check_sizes(self, images):
        adversary = self.discriminator
        if adversary is None or min(images.shape[1:3]) >= (
            smallest := adversary.minimum_size
        ):
            return
        raise ValueError(
            "The discriminator of this model takes images of "
            f"{smallest} x {smallest} pixels or more. Use larger images, a "
            "discriminator of smaller patches, such as "
            "PatchGAN(num_layers=2), or `discriminator=None`. Received: shape "
            f"{tuple(images.shape)}"
        )

    def _is_ready(self) -> bool:
        adversary = self.discriminator
        return self._is_adapted() and (
            adversary is None or adversary.initialized
        )

    def _adapt_what_is_new(self, data):
        # A codebook that was loaded keeps its codes.
        if self._is_adapted():
            self._adapt_discriminator(data)
        else:
            self.adapt(data)

    def adapt(self, data, latents_per_code: int = 64):
        """Starts the codebook, and a discriminator that has not started yet.

        Args:
            data: Images as an array, or a data set as `fit` takes it. The
                discriminator takes the first batch, of which it must be
                possible to read it twice.
            latents_per_code: Integer. So many latents per code are collected
                (or all there are).
        """
        super().adapt(data, latents_per_code)
        if not self._is_ready():
            self._adapt_discriminator(data)

    def _adapt_discriminator(self, data):
        if workers.is_chief(self):
            images = checks.first_batch(data)
            if images is None:
                raise ValueError(
                    "The discriminator starts from a batch of images, and "
                    "this kind of data can be read only once. Give an array "
                    f"or a data set. Received: {type(data).__name__}"
                )
            checks.check_finite(images)
            self.discriminator.adapt(ops.convert_to_tensor(images))
        workers.share(self.discriminator.weights, self)

    # Saving

    def preset_config(self, parts) -> dict:
        """Arguments that the model of a preset has instead of this one's.

        The phases belong to this training: a discriminator that has learned
        takes part from the first step of the next one.
        """
        changed = super().preset_config(parts)
        options = self.adversarial
        steps = int(ops.convert_to_numpy(self.steps))
        learned = options.first_step < steps >= options.adversarial_start
        if "discriminator" in parts and learned:
            changed["adversarial"] = keras.saving.serialize_keras_object(
                options.without_phases()
            )
        return changed

    # The losses

    def discriminator_losses(self, real_logits, fake_logits) -> dict:
        """What both networks make of the discriminator's judgement.

        Args:
            real_logits: Float tensor of shape `(batch, ...)`, of images.
            fake_logits: Float tensor of that shape, of reconstructions.

        Returns:
            Dict of float32 scalars, means over the batch: `generator_loss`,
            `discriminator_loss` with its regularizers, the part of right
            answers `discriminator_accuracy`, `real_logits`, `fake_logits`,
            and the unweighted `lecam_penalty` where that is switched on.
        """
        loss = get_adversarial_loss(self.adversarial.loss)
        opposed = batch_mean(loss.discriminator(real_logits, fake_logits))
        terms = {
            "generator_loss": batch_mean(loss.generator(fake_logits)),
            "discriminator_accuracy": batch_mean(
                discriminator_accuracy(real_logits, fake_logits)
            ),
            "real_logits": batch_mean(_mean_logit(real_logits)),
            "fake_logits": batch_mean(_mean_logit(fake_logits)),
        }
        if self.discriminator.losses:
            opposed += sum(self.discriminator.losses)
        weight = self.adversarial.lecam_weight
        if weight:
            penalty = batch_mean(
                lecam_penalty(real_logits, fake_logits, self.logit_averages)
            )
            terms["lecam_penalty"] = penalty
            opposed += weight * penalty
        return {**terms, "discriminator_loss": opposed}

    def adversarial_weight(self):
        """Weight of the generator's adversarial loss in the present step."""
        options = self.adversarial
        if not options.warmup_steps:
            return options.weight
        # The step that is being taken has been counted already.
        done = ops.cast(self.steps - options.adversarial_start, "float32")
        return options.weight * ops.clip(done / options.warmup_steps, 0.0, 1.0)

    def update_from(self, statistics: dict):
        """Updates what learns from sums over the batch, once a step.

        Args:
            statistics: Dict of the summed statistics of `"quantizer"`, and of
                `"logits"`, the mean logits of real and of fake images.
        """
        super().update_from(statistics)
        if "logits" not in statistics:
            return
        self.discriminator.update()
        real, fake = ops.unstack(statistics["logits"], 2)
        self.logit_averages.assign(
            update_lecam_anchors(self.logit_averages, real, fake)
        )

    def evaluation_logs(self, logs: dict) -> dict:
        """Those of the metrics that evaluation has values for."""
        left_out = self._adversarial_terms
        return {name: v for name, v in logs.items() if name not in left_out}

    def _get_metrics_result_or_logs(self, logs):
        # Keras takes the results over all replicas only where the step logs
        # all of them, which evaluation does not; else the mean of the
        # replicas' own, wrong where their parts differ in size. It has no
        # public name for this.
        results = self.get_metrics_result()
        if isinstance(logs, dict) and set(logs) <= set(results):
            return {name: results[name] for name in logs}
        return super()._get_metrics_result_or_logs(logs)


def _checked_options(options):
    if options is None:
        return AdversarialTraining()
    if isinstance(options, AdversarialTraining):
        return options
    raise ValueError(
        "`adversarial` must be a keras_vq.losses.AdversarialTraining, or None "
        f"for its defaults. Received: {options!r}"
    )


def _pair(optimizer, discriminator_optimizer):
    if isinstance(optimizer, OptimizerPair):
        if discriminator_optimizer is not None:
            raise ValueError(
                "An OptimizerPair holds the discriminator's optimizer "
                "already. Leave `discriminator_optimizer` out. Received: "
                f"{discriminator_optimizer!r}"
            )
        return optimizer
    if discriminator_optimizer is None:
        raise ValueError(
            "A model with a discriminator needs two optimizers, such as "
            '`compile("adam", discriminator_optimizer="adam")`. To train '
            "without, make the model with `discriminator=None`. Received: "
            "discriminator_optimizer=None"
        )
    get = keras.optimizers.get
    return OptimizerPair(get(optimizer), get(discriminator_optimizer))


def _scaled(optimizer):
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)


def _mean_logit(logits):
    axes = tuple(range(1, len(logits.shape)))
    logits = ops.cast(logits, "float32")
    return ops.mean(logits, axis=axes) if axes else logits
