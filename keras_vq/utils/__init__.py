"""Small helpers shared by the callbacks, the command line and the demo."""

from keras_vq.utils.files import atomic_path as atomic_path
from keras_vq.utils.images import comparison_grid as comparison_grid
from keras_vq.utils.images import encode_png as encode_png
from keras_vq.utils.images import first_images as first_images
from keras_vq.utils.images import image_grid as image_grid
from keras_vq.utils.images import to_uint8 as to_uint8
from keras_vq.utils.images import write_png as write_png
