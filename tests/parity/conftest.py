"""Prints the figures of the comparisons at the end."""

from tests.soak.conftest import (
    figure as figure,
)
from tests.soak.conftest import (
    pytest_terminal_summary as pytest_terminal_summary,
)
