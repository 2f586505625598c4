"""Losses by name, by configuration or from any callable."""

import inspect

import keras

from keras_vq.losses.likelihood import DiscretizedLogisticNLL, GaussianNLL
from keras_vq.losses.lpips import LPIPS
from keras_vq.losses.lpips_trunks import TRUNKS
from keras_vq.losses.reconstruction import (
    AbsoluteError,
    CallableLoss,
    ReconstructionLoss,
    SquaredError,
)

_LOSSES = {
    "mse": SquaredError,
    "l1": AbsoluteError,
    "gaussian": GaussianNLL,
    "discretized_logistic": DiscretizedLogisticNLL,
}


def get_reconstruction_loss(identifier) -> ReconstructionLoss:
    """Returns the reconstruction loss that `identifier` stands for.

    Args:
        identifier: One of `"mse"`, `"l1"`, `"gaussian"` (unit scale) and
            `"discretized_logistic"` (learned scale); a `ReconstructionLoss`,
            which is returned as it is; a `keras.losses.Loss` or any other
            callable of (images, reconstruction), see `CallableLoss`; or what
            `serialize_reconstruction_loss` returned.

    Returns:
        A `ReconstructionLoss`: a layer that maps images and reconstruction,
        both (B, H, W, C), to float32 values of shape (B,).

    Raises:
        ValueError: If nothing is known under that name, or if `identifier`
            is neither of these.

    Example:
    >>> loss = keras_vq.losses.get_reconstruction_loss("l1")
    >>> loss(images, reconstruction).shape
    (8,)
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, ReconstructionLoss):
        return identifier
    if isinstance(identifier, str) and identifier in _LOSSES:
        return _LOSSES[identifier]()
    if callable(identifier) and not inspect.isclass(identifier):
        return CallableLoss(identifier)
    names = ", ".join(repr(name) for name in _LOSSES)
    raise ValueError(
        f"Expected a reconstruction loss: one of {names}, a "
        "`keras.losses.Loss` object (not its class), or a callable of "
        f"(images, reconstruction). Received: {identifier!r}"
    )


def serialize_reconstruction_loss(loss: ReconstructionLoss):
    """Returns what `get_reconstruction_loss` turns into an equal loss.

    Args:
        loss: A `ReconstructionLoss`.

    Returns:
        The name of the loss where it has its default configuration, which
        keeps configuration files readable; otherwise a serializable dict.
        Functions need `keras.saving.register_keras_serializable`.
    """
    for name, cls in _LOSSES.items():
        if type(loss) is cls and _settings(loss) == _settings(cls()):
            return name
    return keras.saving.serialize_keras_object(loss)


def _settings(loss: ReconstructionLoss) -> dict:
    config = loss.get_config()
    return {key: value for key, value in config.items() if key != "name"}


def get_perceptual_loss(identifier):
    """Returns the perceptual loss that `identifier` stands for.

    Args:
        identifier: None, for none; `"vgg"` or `"squeeze"`, LPIPS of that
            trunk, whose files are opened by its `load` or at its first call; a
            `keras_vq.losses.LPIPS` or another callable of (images,
            reconstruction), which is returned as it is (a Keras layer or
            model is frozen first); a `keras.losses.Loss`, see `CallableLoss`;
            or what `serialize_perceptual_loss` returned.

    Returns:
        None, or a callable that maps images and reconstruction, both
        (B, H, W, C) in [-1, 1], to values of shape (B,).

    Raises:
        ValueError: If nothing is known under that name, or if `identifier`
            is neither of these.

    Example:
    >>> distance = keras_vq.losses.get_perceptual_loss("squeeze")
    >>> distance.load()
    >>> distance(images, reconstruction).shape
    (8,)
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if identifier is None:
        return None
    if isinstance(identifier, str) and identifier in TRUNKS:
        return LPIPS.from_config({"trunk": identifier})
    if isinstance(identifier, keras.losses.Loss):
        return CallableLoss(identifier)
    if isinstance(identifier, keras.Layer):
        # It judges, and must not learn to judge mildly.
        identifier.trainable = False
    if callable(identifier) and not inspect.isclass(identifier):
        return identifier
    names = " or ".join(repr(name) for name in TRUNKS)
    raise ValueError(
        f"Expected a perceptual loss: {names} (LPIPS of that trunk), a "
        "`keras_vq.losses.LPIPS` object, a callable of (images, "
        f"reconstruction), or None. Received: {identifier!r}"
    )


def serialize_perceptual_loss(loss):
    """Returns what `get_perceptual_loss` turns into an equal loss.

    Args:
        loss: What `get_perceptual_loss` returned.

    Returns:
        None for None; the trunk's name for an LPIPS whose files are found by
        their names; otherwise a serializable dict. Functions need
        `keras.saving.register_keras_serializable`.
    """
    if loss is None:
        return None
    if type(loss) is LPIPS:
        named = LPIPS.from_config({"trunk": loss.trunk})
        if named.get_config() == loss.get_config():
            return loss.trunk
    return keras.saving.serialize_keras_object(loss)
