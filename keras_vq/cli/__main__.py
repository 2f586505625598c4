"""`python -m keras_vq.cli` is the same as `keras-vq`."""

import sys

from keras_vq.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
