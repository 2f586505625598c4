"""Speed and memory of keras_vq, measured beside its peers."""
