"""Clipping of the whole batch's gradients by their global norm."""

import keras
from keras import ops

from keras_vq.trainers.gate import present, total


def clip(model, gradients: dict, replicas: int = 1) -> dict:
    """Clips the gradients of each network by their norm.

    Args:
        model: A compiled model with `clipnorm`.
        gradients: Dict of lists of gradients or None, summed over micro-batches
            and replicas, by the name of their group.
        replicas: Integer. The optimizers of so many sum what is returned.

    Returns:
        A dict like `gradients`.
    """
    if model.clipnorm is None:
        return gradients
    return {
        name: _clipped(model, model.optimizer_groups[name][0], group, replicas)
        for name, group in gradients.items()
    }


def _clipped(model, optimizer, gradients, replicas):
    if not present(gradients):
        return gradients  # Everything is frozen.
    squares = [ops.sum(ops.square(g)) for g in present(gradients)]
    norm = ops.sqrt(total(squares))
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        norm = norm / optimizer.dynamic_scale.value
    factor = model.clipnorm / ops.maximum(norm, model.clipnorm) / replicas
    return [None if g is None else g * factor for g in gradients]
