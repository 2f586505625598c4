"""A model keeps its values, whatever ends `fit`, `evaluate` or `predict`.

On JAX, Keras takes the values out of the variables while it loops. A compiled
step uses up those that it is given, and Keras puts the latest ones back at the
end of an epoch. An image that cannot be read, or Ctrl-C, in the wrong moment
would leave the variables empty: here the latest values are known at any time.
"""

import contextlib

import keras

from keras_vq.trainers.signals import finished_first

# What the steps of Keras' loops take and return, by the number of groups.
_GROUPS = {
    2: ("trainable_variables", "non_trainable_variables"),
    3: ("trainable_variables", "non_trainable_variables", "metrics_variables"),
    4: (
        "trainable_variables",
        "non_trainable_variables",
        "optimizer_variables",
        "metrics_variables",
    ),
}


def step_of(model, step):
    """A compiled step that says which values the model has after it.

    Args:
        model: A model of this package.
        step: Function of the state and a batch.

    Returns:
        Function like `step`. Ctrl-C waits for its end.
    """
    if keras.backend.backend() != "jax":
        return step

    def run(state, batch):
        with finished_first():
            outputs, after = step(state, batch)
            _note(model, after)
        return outputs, after

    return run


def steps_of(model, function):
    """What takes the steps, such that an error leaves the model its values.

    Args:
        model: A model of this package.
        function: Function of the state and an iterator over batches.

    Returns:
        Function like `function`.
    """
    if keras.backend.backend() != "jax":
        return function

    def run(state, iterator):
        _note(model, state)
        with kept(model):
            return function(state, iterator)

    return run


@contextlib.contextmanager
def kept(model):
    """Context after which the model has its values, if an error ends it.

    Args:
        model: A model of this package.
    """
    try:
        yield
    except BaseException as error:
        if keras.backend.backend() == "jax":
            _put_back(model, error)
        raise


def _put_back(model, error):
    state, model._jax_state = model._jax_state, None
    if not state or model._jax_state_synced:
        return
    values = keras.tree.flatten(state)
    if any(value.is_deleted() for value in values):
        error.add_note(
            "The step used up the values of the model before it failed. Make "
            "the model anew, and load its weights or its newest checkpoint."
        )
        return
    model._jax_state = state
    model.jax_state_sync()
    model._jax_state = None


def _note(model, state):
    # As Keras does after each step, which is too late.
    model._jax_state = dict(zip(_GROUPS[len(state)], state, strict=True))
    model._jax_state_synced = False
