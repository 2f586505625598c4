"""Pretrained models: find, load, check and save them."""

from keras_vq.presets.errors import DamagedPresetError as DamagedPresetError
from keras_vq.presets.errors import PresetError as PresetError
from keras_vq.presets.errors import (
    PresetUnavailableError as PresetUnavailableError,
)
from keras_vq.presets.errors import UnknownPresetError as UnknownPresetError
from keras_vq.presets.errors import UnsafePresetError as UnsafePresetError
from keras_vq.presets.loading import load_preset as load_preset
from keras_vq.presets.registry import PresetEntry as PresetEntry
from keras_vq.presets.registry import list_presets as list_presets
from keras_vq.presets.registry import preset_info as preset_info
from keras_vq.presets.saving import add_metadata as add_metadata
from keras_vq.presets.saving import save_preset as save_preset
from keras_vq.presets.source import verify as verify
