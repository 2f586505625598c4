"""Readers of files that other programs wrote. They execute nothing."""

from keras_vq.convert.errors import ConversionError as ConversionError
from keras_vq.convert.errors import DamagedFileError as DamagedFileError
from keras_vq.convert.errors import LayoutError as LayoutError
from keras_vq.convert.errors import UnavailableFileError as UnavailableFileError
from keras_vq.convert.errors import UnsafeFileError as UnsafeFileError
from keras_vq.convert.torch_file import read_torch_file as read_torch_file
