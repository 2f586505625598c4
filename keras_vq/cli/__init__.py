"""The command line: `keras-vq list | info | reconstruct | encode | ...`.

The modules of this package import the standard library alone; Keras is loaded
inside a command, after the variables that TensorFlow reads have been set.
"""

from keras_vq.cli.app import main as main
