"""The ciphers of libsodium, in the library that pyzmq has loaded for its own encryption."""

from __future__ import annotations

import ctypes

from swarm.errors import NativeError
from swarm.kernels import _native

AES = ("aes256gcm_beforenm", "aes256gcm_encrypt_afternm", "aes256gcm_decrypt_afternm")


def functions() -> tuple[list[int], bool]:
    """Addresses of `_native.SODIUM_FUNCTIONS`, and whether this CPU has instructions for AES; NativeError without any.

    ChaCha20-Poly1305 is always there; functions of AES are 0 where the CPU lacks them, for libsodium has no other code.
    """
    library = _library()
    has_aes = bool(library.crypto_aead_aes256gcm_is_available())
    skipped = () if has_aes else AES
    return [0 if name in skipped else _address(library, name) for name in _native.SODIUM_FUNCTIONS], has_aes


def _library() -> ctypes.CDLL:
    """libsodium, found through the module of pyzmq that is linked with it, else as the system's own."""
    for find in (_linked, _systems):
        try:
            library = find()
            if library.sodium_init() >= 0:
                return library
        except (ImportError, OSError, AttributeError):
            continue
    raise NativeError(
        "libsodium was not found, so this device cannot share layers with others; "
        "reinstall pyzmq as a wheel (pip install --force-reinstall --only-binary :all: pyzmq) "
        "or install the system's (sudo apt install libsodium23)"
    )


def _linked() -> ctypes.CDLL:
    from zmq.backend.cython import _zmq

    return ctypes.CDLL(_zmq.__file__)  # a name is looked up in what it is linked with, too


def _systems() -> ctypes.CDLL:
    return ctypes.CDLL("libsodium.so.23")


def _address(library: ctypes.CDLL, name: str) -> int:
    address = ctypes.cast(getattr(library, f"crypto_aead_{name}"), ctypes.c_void_p).value
    assert address
    return address
