"""Layouts of published weights, one module a family of programs."""

from keras_vq.convert.layouts import (
    diffusers,
    flax_vqgan,
    kumar,
    llamagen,
    rosinality,
    swasun,
    taming,
)
from keras_vq.convert.layouts.base import Layout as Layout
from keras_vq.convert.layouts.base import Plan as Plan

LAYOUTS = (
    swasun.LAYOUT,
    kumar.LAYOUT,
    rosinality.LAYOUT,
    taming.LAYOUT,
    flax_vqgan.LAYOUT,
    diffusers.LAYOUT,
    llamagen.LAYOUT,
)
