"""Model files made from others: from the safetensors of a checkpoint, or in other types from a GGUF file."""
