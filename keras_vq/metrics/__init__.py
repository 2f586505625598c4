"""Metrics with state: image fidelity, codebook use, bits per dimension."""

from keras_vq.metrics.bits import BitsPerDim as BitsPerDim
from keras_vq.metrics.bits import bind_likelihood as bind_likelihood
from keras_vq.metrics.codes import CodebookPerplexity as CodebookPerplexity
from keras_vq.metrics.codes import CodeCounts as CodeCounts
from keras_vq.metrics.codes import CodesUsed as CodesUsed
from keras_vq.metrics.frechet import FrechetDistance as FrechetDistance
from keras_vq.metrics.frechet import SqueezeNetFeatures as SqueezeNetFeatures
from keras_vq.metrics.images import PSNR as PSNR
from keras_vq.metrics.images import SSIM as SSIM
from keras_vq.metrics.images import ImageMetric as ImageMetric
from keras_vq.metrics.perceptual import LPIPS as LPIPS
from keras_vq.metrics.quantization import (
    QuantizationError as QuantizationError,
)
