"""Killed trainings of a VQGAN, each life of which begins with long tracing."""

import pytest
from killed_runs import check_kills, check_terminations


@pytest.mark.parametrize("replicas", [1, 2])
def test_kill(replicas, tmp_path, figure):
    check_kills(replicas, "vqgan", tmp_path, figure)


def test_terminate(tmp_path, figure):
    check_terminations("vqgan", tmp_path, figure)
