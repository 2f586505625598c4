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
    if keras.backend.backend() == "tensorflow":
        from keras_vq.trainers import tensorflow

        return tensorflow
    raise NotImplementedError(
        "keras_vq trains and evaluates on the TensorFlow backend. Set "
        'KERAS_BACKEND="tensorflow" before importing keras. Received: backend '
        f'"{keras.backend.backend()}", which can encode and decode.'
    )
