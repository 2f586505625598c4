"""Speed and memory of keras_vq, measured beside its peers."""

import os

# Before TensorFlow is loaded, and for the processes that measure: as the
# program `keras-vq` sets them, or as the caller did.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
