"""The command line: `keras-vq list | info | reconstruct | encode | ...`.

The modules of this package import the standard library alone; Keras is loaded
inside a command, after TensorFlow has been told to keep its log to itself.
"""

from keras_vq.cli.app import main as main
