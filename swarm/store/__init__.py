"""Bytes on disk: GGUF files, and models as verified chunks that devices give each other."""
