"""Metrics with state: image fidelity, codebook use, bits per dimension."""

from keras_vq.metrics.codes import CodebookPerplexity as CodebookPerplexity
from keras_vq.metrics.codes import CodesUsed as CodesUsed
