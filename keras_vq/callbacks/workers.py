"""Which of several processes may write files."""

import keras


def is_chief(model: keras.Model) -> bool:
    """Tells whether this process is the one that writes.

    Args:
        model: the model in training.

    Returns:
        True in a training with one process, and in the first process of a
        training with several.
    """
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is not None:
        return bool(strategy.extended.should_checkpoint)
    if keras.backend.backend() == "jax":
        import jax

        return jax.process_index() == 0
    return True
