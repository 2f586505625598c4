"""How `fit` goes on in the middle of a run, with its `ResumableCheckpoint`."""

import warnings

import keras

from keras_vq.trainers import workers


def find_checkpoint(callbacks):
    """The `ResumableCheckpoint` among the callbacks of `fit`, or None."""
    from keras_vq.callbacks.resumable_checkpoint import ResumableCheckpoint

    for callback in _as_list(callbacks):
        if isinstance(callback, ResumableCheckpoint):
            return callback
    return None


def fit_from(checkpoint, fit, model, x, arguments: dict):
    """Calls Keras' `fit` so that it goes on where the checkpoint stands.

    Keras begins with a whole epoch. What is left of an interrupted one is
    therefore a call of its own; both share one list of callbacks, which sees
    a single run.

    Args:
        checkpoint: A restored `ResumableCheckpoint`.
        fit: Keras' `fit`, bound to the model.
        model: The model.
        x: The data, as at the first start.
        arguments: Further keyword arguments of `fit`.

    Returns:
        A `keras.callbacks.History`.
    """
    try:
        with checkpoint.signals.watching():
            return _fit_from(checkpoint, fit, model, x, dict(arguments))
    except Exception:
        # A worker that was told to end waits for the first one, which saves,
        # and loses the connection to it.
        if not workers.is_chief(model):
            checkpoint.signals.act()
        raise


def _fit_from(checkpoint, fit, model, x, arguments):
    if not checkpoint.batches:
        _begin_at_epoch(x, arguments.get("initial_epoch", 0))
        return fit(x, **arguments)
    epoch, done = checkpoint.epoch, checkpoint.step
    arguments |= {"initial_epoch": epoch, "epochs": arguments.get("epochs", 1)}
    start_at = _exact_start(x)
    if start_at is None:
        ours = _begin_at_epoch(x, epoch)
        if done or not ours or arguments.get("steps_per_epoch"):
            _warn_about_data(x, done)
        checkpoint.begin_epoch_anew()
        return fit(x, **arguments)
    if not done:
        return fit(start_at(checkpoint.batches), **arguments)
    steps = arguments.get("steps_per_epoch")
    if steps is None or steps <= done:
        raise ValueError(
            f"The checkpoint is {done} steps into an epoch. Give `fit` "
            "the `steps_per_epoch` of the interrupted run. Received: "
            f"steps_per_epoch={steps}"
        )
    callbacks = _OneRun(model, arguments, offset=done)
    arguments["callbacks"] = callbacks
    rest = {
        **arguments,
        "steps_per_epoch": steps - done,
        "epochs": epoch + 1,
    }
    following = start_at(checkpoint.batches + steps - done)
    fit(start_at(checkpoint.batches), **rest)
    if epoch + 1 < arguments["epochs"] and not model.stop_training:
        callbacks.offset = 0
        fit(following, **{**arguments, "initial_epoch": epoch + 1})
    callbacks.end()
    return model.history


class _OneRun(keras.callbacks.CallbackList):
    """Callbacks for which two calls of `fit` are one run."""

    def __init__(self, model, arguments, offset):
        verbose = arguments.get("verbose", "auto")
        super().__init__(
            _as_list(arguments.get("callbacks")),
            add_history=True,
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=arguments["epochs"],
            steps=arguments["steps_per_epoch"],
        )
        self.offset = offset
        self._begun = False
        self._last_logs = None

    def on_train_begin(self, logs=None):
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch + self.offset, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch + self.offset, logs)

    def on_train_end(self, logs=None):
        self._last_logs = logs

    def end(self):
        super().on_train_end(self._last_logs)


def _as_list(callbacks) -> list:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks.callbacks
    return keras.tree.flatten(callbacks) if callbacks else []


def _exact_start(x):
    """Function from batches seen to the data set after them, or None."""
    from keras_vq.data.pipeline import pipeline_of

    pipeline = pipeline_of(x)
    if pipeline is None or not pipeline.options.repeat:
        return None
    first = pipeline.options.start_step
    return lambda batches: pipeline.start_at(first + batches)


def _begin_at_epoch(x, epoch) -> bool:
    """Lets our own finite data be shuffled as in that epoch of the run.

    Who has looked at the data before, such as for the start of the codebook,
    has taken orders that a resumed run does not take.

    Returns:
        Whether the data is our own.
    """
    from keras_vq.data.pipeline import pipeline_of

    pipeline = pipeline_of(x)
    if pipeline is None:
        return False
    pipeline.begin_at_epoch(epoch)
    return True


def _warn_about_data(x, done):
    if done:
        warnings.warn(
            "Only the endless data sets of `keras_vq.data` (`repeat=True`) go "
            "on in the middle of an epoch. This one begins its epoch anew: "
            f"{done} of its steps are taken twice. Received: "
            f"{type(x).__name__}",
            stacklevel=4,
        )
    else:
        warnings.warn(
            "Only the data sets of `keras_vq.data` go on exactly: endless ones "
            "(`repeat=True`), and finite ones without `steps_per_epoch`. This "
            "one is read from its start, as in the first epoch. Received: "
            f"{type(x).__name__}",
            stacklevel=4,
        )
