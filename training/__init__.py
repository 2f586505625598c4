"""The launcher of the recipes, installed as `keras_vq.training`."""
