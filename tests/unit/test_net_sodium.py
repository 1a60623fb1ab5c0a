"""Where the ciphers come from."""

from __future__ import annotations

import pytest

from swarm.errors import NativeError
from swarm.kernels import _native
from swarm.net import sodium


def test_the_library_of_pyzmq_has_all_ciphers() -> None:
    addresses, has_aes = sodium.functions()
    assert len(addresses) == len(_native.SODIUM_FUNCTIONS)
    assert all(addresses[:2]) and all(addresses) == has_aes


def test_without_instructions_for_aes_its_functions_are_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sodium._library()

    class Plain:
        def __getattr__(self, name: str) -> object:
            return (lambda: 0) if name.endswith("is_available") else getattr(real, name)

    monkeypatch.setattr(sodium, "_library", Plain)
    addresses, has_aes = sodium.functions()
    assert not has_aes and all(addresses[:2]) and not any(addresses[2:])


def test_without_libsodium_a_person_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise OSError("no such library")

    monkeypatch.setattr(sodium, "_linked", missing)
    monkeypatch.setattr(sodium, "_systems", missing)
    with pytest.raises(NativeError, match="reinstall pyzmq"):
        sodium.functions()
