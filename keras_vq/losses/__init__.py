"""Losses, each giving one float32 value per image."""

from keras_vq.losses.adversarial import (
    get_adversarial_loss as get_adversarial_loss,
)
from keras_vq.losses.adversarial_training import (
    AdversarialTraining as AdversarialTraining,
)
from keras_vq.losses.get import get_perceptual_loss as get_perceptual_loss
from keras_vq.losses.get import (
    get_reconstruction_loss as get_reconstruction_loss,
)
from keras_vq.losses.get import (
    serialize_perceptual_loss as serialize_perceptual_loss,
)
from keras_vq.losses.get import (
    serialize_reconstruction_loss as serialize_reconstruction_loss,
)
from keras_vq.losses.likelihood import (
    DiscretizedLogisticNLL as DiscretizedLogisticNLL,
)
from keras_vq.losses.likelihood import GaussianNLL as GaussianNLL
from keras_vq.losses.likelihood import Likelihood as Likelihood
from keras_vq.losses.lpips import LPIPS as LPIPS
from keras_vq.losses.reconstruction import AbsoluteError as AbsoluteError
from keras_vq.losses.reconstruction import CallableLoss as CallableLoss
from keras_vq.losses.reconstruction import (
    ReconstructionLoss as ReconstructionLoss,
)
from keras_vq.losses.reconstruction import SquaredError as SquaredError
