"""A model trains under the strategy that all of it was made for."""

import functools
import sys
import warnings

import keras

from keras_vq.trainers import devices

_HOW_TO = (
    "Make the model, with its encoder and decoder, and the optimizer inside "
    "of `with strategy.scope():`, and call `compile` and `fit` under the same "
    "strategy or under none."
)


def in_own_scope(method):
    """Decorator of `compile`: runs it in the scope that the model was made in.

    What is made outside of it, such as the slots of the optimizer, would not
    be copied to the replicas.
    """

    @functools.wraps(method)
    def wrapper(model, optimizer="adam", *args, **kwargs):
        strategy = getattr(model, "_distribute_strategy", None)
        check_scope(model)
        if strategy is None:
            return method(model, optimizer, *args, **kwargs)
        _check_kind(strategy)
        _check_variables(model.variables, strategy)
        _check_variables(getattr(optimizer, "variables", ()), strategy)
        with strategy.scope():
            return method(model, optimizer, *args, **kwargs)

    return wrapper


def check_scope(model) -> None:
    """Refuses a strategy in scope that the model was not made under.

    Args:
        model: The model that is compiled or fit.

    Raises:
        ValueError: If it was made under another strategy, or under none.
    """
    if keras.backend.backend() == "jax":
        devices.check_variables(model.variables)
    if keras.backend.backend() != "tensorflow":
        _refuse_strategies()
        return
    import tensorflow as tf

    if not tf.distribute.has_strategy():
        return
    current = tf.distribute.get_strategy()
    own = getattr(model, "_distribute_strategy", None)
    if own is not current:
        made = "none" if own is None else f"another {type(own).__name__}"
        raise ValueError(
            "The model was not made under the strategy in scope. "
            f"{_HOW_TO} Received: a model made under {made}, and "
            f"{type(current).__name__} in scope"
        )


def _refuse_strategies():
    """On other backends they would do nothing, without a word."""
    tf = sys.modules.get("tensorflow")
    if tf is None or not tf.distribute.has_strategy():
        return
    raise ValueError(
        "`tf.distribute` has no effect on the "
        f"{keras.backend.backend()} backend: training would run on one device "
        "only. On JAX call `keras.distribution.set_distribution("
        "keras.distribution.DataParallel())` before the model is made. "
        f"Received: {type(tf.distribute.get_strategy()).__name__} in scope"
    )


def _check_kind(strategy):
    import tensorflow as tf

    names = [kind.__name__ for kind in type(strategy).__mro__]
    if any(name.startswith("TPUStrategy") for name in names):
        warnings.warn(
            f"keras_vq was never tried under {type(strategy).__name__}. Tried "
            "and tested: MirroredStrategy and MultiWorkerMirroredStrategy.",
            stacklevel=4,
        )
        return
    supported = (
        tf.distribute.MirroredStrategy,
        tf.distribute.MultiWorkerMirroredStrategy,
        tf.distribute.OneDeviceStrategy,
    )
    if isinstance(strategy, supported):
        return
    raise ValueError(
        "keras_vq models train under `tf.distribute.MirroredStrategy` (all "
        "GPUs of one machine) or `tf.distribute.MultiWorkerMirroredStrategy` "
        "(several machines). Use one of them instead. Received: "
        f"{type(strategy).__name__}"
    )


def _check_variables(variables, strategy):
    for variable in variables:
        if not strategy.extended.variable_created_in_scope(variable.value):
            raise ValueError(
                "All variables must be made in the scope of the strategy, or "
                f"the replicas would not share them. {_HOW_TO} Received: "
                f"`{variable.path}`, made outside of the scope of the "
                f"{type(strategy).__name__}"
            )
