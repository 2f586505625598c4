"""A process ends although its pipelines were still reading."""

import subprocess
import sys

from pictures import encode, noise

PROGRAM = """
import sys, time
import keras
from keras_vq.data import from_folder, sources

read = sources.EncodedSource.read

def slow_read(*arguments):
    time.sleep(0.1)
    return read(*arguments)

sources.EncodedSource.read = slow_read
options = dict(image_size=8, batch_size=4, repeat=True, on_error="skip")

def take_all():
    for batch in from_folder(sys.argv[1], **options):
        pass

take_all()
"""


def test_process_ends_with_its_error(tmp_path):
    """Its traceback holds an iterator that reads the next batches."""
    for i in range(20):
        data = b"" if i in (3, 7) else encode(noise(8, 8, seed=i), "PNG")
        (tmp_path / f"{i:02}.png").write_bytes(data)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "TooManyBadImagesError" in ended.stderr
