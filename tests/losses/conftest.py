"""No test finds or fetches weights of LPIPS that it did not make."""

import dataclasses

import pytest

from keras_vq.losses import lpips_files


@pytest.fixture(autouse=True)
def lpips_home(tmp_path, monkeypatch):
    """An empty cache folder, and servers that refuse every connection."""
    monkeypatch.delenv(lpips_files.FOLDERS_VARIABLE, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras_home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    refusing = {
        trunk: {
            argument: dataclasses.replace(
                file, url=f"http://127.0.0.1:9/{file.name}"
            )
            for argument, file in files.items()
        }
        for trunk, files in lpips_files.PUBLISHED.items()
    }
    monkeypatch.setattr(lpips_files, "PUBLISHED", refusing)
    return tmp_path / "keras_home" / "keras_vq" / "lpips"
