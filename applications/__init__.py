"""Recipes and bundled presets, installed as `keras_vq.applications`."""
