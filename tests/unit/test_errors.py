"""The text of every error is what a person reads."""

from __future__ import annotations

import inspect

import pytest

from swarm import errors
from swarm.errors import BadModelFile, SwarmError

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SwarmError)]


@pytest.mark.parametrize("kind", ALL)
def test_no_error_carries_control_characters_to_a_terminal_or_a_log(kind: type[SwarmError]) -> None:
    """Whatever a library or the system says of a file that somebody else wrote is put into such texts."""
    error = kind.__new__(kind)
    Exception.__init__(error, "tensor \x1b]0;PWNED\x07\n\tis\u2028broken")
    assert str(error) == r"tensor \x1b]0;PWNED\x07 is broken"


def test_an_error_that_names_a_file_says_what_it_is_called() -> None:
    assert str(BadModelFile("/tmp/grüß/a  b.gguf: broken")) == "/tmp/grüß/a  b.gguf: broken"
