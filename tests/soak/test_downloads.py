"""Downloads that are killed at random moments."""

from tests.convert.download_kills import killed_downloads

KILLS = 50


def test_kills_leave_nothing_that_looks_good(tmp_path, figure):
    clean, begun, first = killed_downloads(tmp_path, KILLS)
    figure(
        "downloads killed that left no file or the whole one",
        f"{clean}/{KILLS} ({begun} with a part of it, which went on)",
    )
    # Most were killed in the middle, or this says nothing.
    assert clean == KILLS and begun >= KILLS // 2 and first
