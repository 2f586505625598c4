"""Which of several processes may write files."""

from keras_vq.trainers.workers import is_chief as is_chief
