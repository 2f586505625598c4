"""Callbacks that watch over a training and keep it."""

from keras_vq.callbacks.codebook_health import CodebookHealth as CodebookHealth
from keras_vq.callbacks.discriminator_health import (
    DiscriminatorHealth as DiscriminatorHealth,
)
from keras_vq.callbacks.non_finite import NonFiniteSteps as NonFiniteSteps
from keras_vq.callbacks.non_finite import (
    NonFiniteTrainingError as NonFiniteTrainingError,
)
from keras_vq.callbacks.reconstruction_grid import (
    ReconstructionGrid as ReconstructionGrid,
)
from keras_vq.callbacks.resumable_checkpoint import (
    ResumableCheckpoint as ResumableCheckpoint,
)
