"""How one training step is taken, whatever the model.

The step of each backend is a module of its own, imported when it is needed.
"""

import keras

from keras_vq.trainers.lost_workers import WorkerLostError as WorkerLostError
from keras_vq.trainers.optimizer_pair import OptimizerPair as OptimizerPair


def backend_step():
    """Module with `train_step` and `test_step` of the running backend.

    Raises:
        NotImplementedError: If training is not supported on it.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from keras_vq.trainers import tensorflow

        return tensorflow
    if backend == "jax":
        from keras_vq.trainers import jax

        return jax
    raise NotImplementedError(
        "keras_vq trains and evaluates on the backends TensorFlow and JAX. "
        'Set KERAS_BACKEND="tensorflow" or KERAS_BACKEND="jax" before '
        f'importing keras. Received: backend "{backend}", which can encode '
        "and decode."
    )
