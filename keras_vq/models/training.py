"""What makes the models trainable: compile, fit, adapt, state and logs."""

import contextlib
import functools

import keras
from keras import ops

from keras_vq import trainers
from keras_vq.callbacks.non_finite import watched
from keras_vq.data import named_errors
from keras_vq.metrics import bind_likelihood
from keras_vq.models import codes as code_maps
from keras_vq.models.adaptation import AdaptationMixin
from keras_vq.models.counting import CountingMixin
from keras_vq.models.saving import SavingMixin
from keras_vq.trainers import (
    checks,
    continuing,
    devices,
    kept_state,
    scope,
    worker_data,
    workers,
)
from keras_vq.trainers.phases import Phase
from keras_vq.trainers.weight_average import next_average


class TrainingMixin(CountingMixin, AdaptationMixin, SavingMixin):
    """Training of a model that says what its losses are.

    The model defines `generator_losses`, `total_loss`, `update_from`,
    `quantizer_weights`, `_create_trackers` and `_collect_latents`;
    `keras_vq.trainers` takes the steps.
    """

    weight_average = None
    accumulation_steps = 1
    clipnorm = None
    # Which networks the next step concerns: here there are no others.
    phase = Phase.AUTOENCODER
    # Whether somebody was told of a codebook without start values.
    _codebook_looked_at = False
    # See `keras_vq.models.compiled`.
    _compiled_functions = None

    @property
    def gate_terms(self) -> tuple:
        """What a step is skipped for if it is not finite, by name."""
        return (
            "images",
            *self._loss_names,
            "loss",
            *self.optimizer_groups,
            "batch_statistics",
            "codebook_statistics",
            "learning_rate",
            "loss_scale",
        )

    @property
    def optimizer_groups(self) -> dict:
        """Optimizers and what each of them trains, by their gradients' name."""
        return {"gradients": (self.optimizer, self.trainable_variables)}

    # compile

    @scope.in_own_scope
    def compile(
        self,
        optimizer="adam",
        loss=None,
        metrics=None,
        weight_ema: float | None = None,
        accumulation_steps: int = 1,
        clipnorm: float | None = None,
        **kwargs,
    ):
        """Sets up training.

        Args:
            optimizer: Keras optimizer or its name. Its variables are created
                here, so compile after changing `trainable` of a layer.
            loss: Not taken: the losses belong to the model. See
                `reconstruction_loss`, `commitment_weight`, `codebook_weight`.
            metrics: List of Keras metrics, which get images and
                reconstruction, such as `[keras_vq.metrics.PSNR()]`.
            weight_ema: Float in (0, 1), such as 0.999: keep a moving average
                of all weights with this momentum. `evaluate`, the validation
                in `fit` and `save_to_preset` use the averages; see
                `averaged_weights`. Compiling again with the same one goes on
                with them.
            accumulation_steps: Integer. Each batch is split into so many
                micro-batches, whose gradients are summed before one update:
                less memory, same step, but for what each micro-batch has of
                its own: batch normalization, and VQGAN's adaptive weight.
                (Keras' `gradient_accumulation_steps` is the opposite: it makes
                one update of several batches.)
            clipnorm: Float. Gradients of the whole batch are scaled down to
                this global norm, after they were summed over the replicas.
            **kwargs: `run_eagerly`, `jit_compile`, `steps_per_execution`,
                `auto_scale_loss`, `weighted_metrics` of `keras.Model.compile`.

        Raises:
            ValueError: If `loss` is given, a value is out of its range, or
                an option would go wrong under the strategy in scope.
        """
        if loss is not None or kwargs.pop("loss_weights", None) is not None:
            raise ValueError(
                "`loss` and `loss_weights` are not taken by `compile`: the "
                "losses belong to the model. Give `reconstruction_loss`, "
                "`commitment_weight` and `codebook_weight` to its constructor. "
                f"Received: loss={loss!r}"
            )
        if weight_ema is not None and not 0 < weight_ema < 1:
            raise ValueError(
                "`weight_ema` is a momentum in (0, 1), such as 0.999. "
                f"Received: weight_ema={weight_ema}"
            )
        if not isinstance(accumulation_steps, int) or accumulation_steps < 1:
            raise ValueError(
                "`accumulation_steps` must be a positive integer. "
                f"Received: accumulation_steps={accumulation_steps!r}"
            )
        if clipnorm is not None and clipnorm <= 0:
            raise ValueError(
                f"`clipnorm` must be positive. Received: clipnorm={clipnorm}"
            )
        strategy = getattr(self, "_distribute_strategy", None)
        checks.check_distribution()
        checks.check_steps_per_execution(
            kwargs.get("steps_per_execution", 1), strategy
        )
        super().compile(optimizer=optimizer, metrics=metrics, **kwargs)
        self._compiled_functions = None
        self._build_metrics(metrics)
        checks.check_optimizer(self.optimizer, strategy)
        # An optimizer that is not built when a file is loaded would start
        # over without its slots, and without an error.
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        self.accumulation_steps = accumulation_steps
        self.clipnorm = clipnorm
        self.weight_average = next_average(
            self.weight_average, self._averaged(), weight_ema
        )

    @property
    def non_trainable_variables(self) -> list:
        """Those of the layers; on JAX the averages of `weight_ema`, too.

        There a step changes only what Keras hands to it, which are these.
        """
        own, average = super().non_trainable_variables, self.weight_average
        if average is None or keras.backend.backend() != "jax":
            return own
        return [*own, *average.variables]

    def _averaged(self) -> list:
        """Weights that `weight_ema` is about."""
        return self.weights

    def _build_metrics(self, metrics):
        bind_likelihood(metrics, self.reconstruction_loss)
        # Under a strategy, Keras would build them with the targets of `fit`,
        # which are labels or nothing, while they get images.
        if self._compile_metrics is not None:
            shape = (None,) * (self._image_rank - 1) + (self.channels,)
            image = keras.KerasTensor(shape)
            self._compile_metrics.build(image, image)

    def get_compile_config(self):
        config = super().get_compile_config()
        if not config:
            return config
        for name in ("loss", "loss_weights"):
            config.pop(name, None)
        average = self.weight_average
        return {
            **config,
            "weight_ema": average.momentum if average else None,
            "accumulation_steps": self.accumulation_steps,
            "clipnorm": self.clipnorm,
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    # fit

    @workers.names_lost_workers
    @named_errors()
    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Trains the model; the arguments are those of `keras.Model.fit`.

        Args:
            x: Images in [-1, 1] as an array, or a `tf.data.Dataset` or
                `keras.utils.PyDataset` of image batches, or of pairs of image
                batches and anything (such as labels, which are not used).
            y: Not used.
            batch_size: Integer, for arrays.
            epochs: See `keras.Model.fit`, as for all that follow.
            verbose: See there.
            callbacks: See there.
            validation_split: See there.
            validation_data: Images, or a data set as `x`.
            shuffle: See there. Data sets shuffle by themselves.
            class_weight: Not taken: every image counts alike.
            sample_weight: Not taken: every image counts alike.
            initial_epoch: See there.
            steps_per_epoch: See there.
            validation_steps: See there.
            validation_batch_size: See there.
            validation_freq: See there.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If there are no images, they are not float images of
                the model's number of channels, or are to be weighted.
        """
        scope.check_scope(self)
        self._open_files()
        checks.check_weights(
            "fit",
            x,
            validation_data,
            class_weight=class_weight,
            sample_weight=sample_weight,
        )
        checkpoint = continuing.find_checkpoint(callbacks)
        if checkpoint is not None and self.compiled:
            checkpoint.restore(self)
        batch = checks.first_batch(x, batch_size)
        if batch is not None:
            self._check_images(batch)
            self._check_sizes(batch)
            checks.warn_about_range(batch)
        devices.check_batch(x, batch, batch_size, steps_per_epoch)
        if self.compiled and not workers.chief_says(self._is_ready(), self):
            if batch is None and x is not None:
                raise ValueError(
                    "The codebook has no start values yet, and this kind of "
                    "data can be read only once. Call `model.adapt(images)` "
                    f"before `fit`. Received: {type(x).__name__}"
                )
            self._adapt_what_is_new(x)
        arguments = {
            "epochs": epochs,
            "verbose": verbose,
            "callbacks": self._with_own_callbacks(callbacks),
            "validation_split": validation_split,
            "validation_data": validation_data,
            # Keras warns at its own default, because it cannot shuffle them.
            "shuffle": shuffle and not checks.is_dataset(x),
            "initial_epoch": initial_epoch,
            "steps_per_epoch": steps_per_epoch,
            "validation_steps": validation_steps,
            "validation_batch_size": validation_batch_size,
            "validation_freq": validation_freq,
        }
        fit = functools.partial(worker_data.fit, self, super().fit)
        fit = functools.partial(fit, y=y, batch_size=batch_size)
        with devices.named_uneven_batches():
            if checkpoint is None:
                return fit(x, **arguments)
            return continuing.fit_from(checkpoint, fit, self, x, arguments)

    def _open_files(self):
        """Opens what the losses need, before a step is traced."""

    def _with_own_callbacks(self, callbacks):
        return watched(callbacks)

    @workers.names_lost_workers
    @named_errors()
    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        """Evaluates, with the averaged weights if there are any.

        Args:
            x: Images in [-1, 1], or a data set as `fit` takes it.
            y: Not used.
            batch_size: Integer, for arrays.
            verbose: See `keras.Model.evaluate`.
            sample_weight: Not taken: every image counts alike.
            steps: See there.
            callbacks: See there.
            return_dict: See there.
            **kwargs: What Keras' own `fit` passes on.
        """
        checks.check_weights("evaluate", x, sample_weight=sample_weight)
        self._open_files()
        checks.warn_unless_adapted(self, "evaluate")
        kwargs |= {"verbose": verbose, "steps": steps}
        kwargs |= {"callbacks": callbacks, "return_dict": return_dict}
        context = devices.any_batch_size()
        with self.averaged_weights(), context, kept_state.kept(self):
            return worker_data.evaluate(
                self, super().evaluate, x, y, batch_size, **kwargs
            )

    @workers.names_lost_workers
    @named_errors()
    def predict(self, *args, **kwargs):
        with devices.any_batch_size(), kept_state.kept(self):
            return super().predict(*args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        """Takes one step; `adapt` must have been called before."""
        checks.check_adapted(self)
        return super().train_on_batch(*args, **kwargs)

    def _make_function(self, step_function, **kwargs):
        step = kept_state.step_of(self, step_function)
        function = super()._make_function(step, **kwargs)
        return kept_state.steps_of(self, function)

    def train_step(self, *args):
        checks.check_batch(args[-1])
        return trainers.backend_step().train_step(self, *args)

    def test_step(self, *args):
        checks.check_batch(args[-1])
        return trainers.backend_step().test_step(self, *args)

    def _check_sizes(self, images):
        """Refuses images that only training cannot take."""

    @contextlib.contextmanager
    def averaged_weights(self):
        """Context in which the model has its averaged weights.

        Does nothing unless the model was compiled with `weight_ema`. The
        weights in training are back afterwards, whatever happens.
        """
        average = self.weight_average
        if average is not None:
            average.swap()
        try:
            yield self
        finally:
            if average is not None:
                average.swap()

    # Logs

    def evaluation_logs(self, logs: dict) -> dict:
        """Those of the metrics that evaluation has values for."""
        return logs

    def update_metrics(self, images, losses: dict, result: dict):
        """Takes one batch into all metrics.

        Args:
            images: Float tensor of shape `(batch, height, width, channels)`.
            losses: Dict of float32 scalars, means over the batch.
            result: Dict of the `reconstruction` and the `indices` of the
                batch.
        """
        count = ops.shape(images)[0]
        self.update_trackers(losses, result["indices"], batch_size=count)
        self.compute_metrics(
            x=images,
            y=images,
            y_pred=result["reconstruction"],
            sample_weight=None,
        )

    def update_trackers(self, losses: dict, indices, batch_size):
        """Takes one batch into the epoch's losses and codebook metrics."""
        trackers = {"loss": self._loss_tracker, **self._trackers}
        for name, value in losses.items():
            trackers[name].update_state(value, sample_weight=batch_size)
        levels = code_maps.as_levels(indices)
        for name in ("perplexity", "codes_used"):
            names = code_maps.level_names(name, len(levels))
            for own, level in zip(names, levels, strict=True):
                self._trackers[own].update_state(level)
