"""The GGUF reader on good files: what it gives is what the gguf package wrote, without copying."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from swarm.errors import BadModelFile, ModelNotFound, UnsupportedQuant
from swarm.kernels.quants import QUANTS, dequantize
from swarm.store.gguf import open_gguf
from swarm.store.gguf_header import parse_header
from tests.helpers.gguf_writer import write_gguf, write_split_gguf
from tests.helpers.quantize import quantize

METADATA = {"general.architecture": "llama", "llama.block_count": 2}


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_metadata_comes_back_with_its_types(tmp_path: Path) -> None:
    written = {
        "general.architecture": "glm4",
        "text": "Grüße, 你好\n\0",
        "yes": True,
        "no": False,
        "count": 7,
        "below": -7,
        "u8": np.uint8(255),
        "i8": np.int8(-128),
        "u16": np.uint16(65535),
        "i16": np.int16(-3),
        "u64": np.uint64(2**63),
        "i64": np.int64(-(2**63)),
        "f32": np.float32(1.5),
        "f64": np.float64(1e300),
        "tokens": ["a", "", "ж"],
        "types": np.array([1, 2, 3], dtype=np.int32),
        "flags": np.array([True, False]),
        "scores": np.array([0.5, -1], dtype=np.float32),
    }
    with open_gguf(write_gguf(tmp_path / "a.gguf", written, {})) as file:
        assert list(file.metadata) == list(written)
        for key, value in written.items():
            read = file.metadata[key]
            if isinstance(value, np.ndarray):
                assert isinstance(read, np.ndarray) and read.dtype == value.dtype
                np.testing.assert_array_equal(read, value)
            else:
                expected = value.item() if isinstance(value, np.generic) else value
                assert read == expected and type(read) is type(expected), key
        with pytest.raises(KeyError):
            file.metadata["absent"]


@pytest.mark.parametrize("quant", QUANTS.values(), ids=[quant.name for quant in QUANTS.values()])
def test_tensors_of_every_quant_are_read_bit_for_bit(tmp_path: Path, quant) -> None:
    tensors = {"a": values(5, 512), "b": values(3, 4, 256, seed=1)}
    path = write_gguf(tmp_path / "a.gguf", METADATA, {name: (x, quant.name) for name, x in tensors.items()})
    with open_gguf(path) as file:
        assert list(file.tensors) == ["a", "b"]
        for name, x in tensors.items():
            assert file.tensors[name].shape == x.shape and file.tensors[name].quant is quant
            raw = file.raw(name)
            np.testing.assert_array_equal(raw, quantize(quant, x))
            assert dequantize(quant, raw).shape == x.shape
            del raw


def test_views_are_read_only_and_outlive_the_file(tmp_path: Path) -> None:
    x = values(4, 64)
    file = open_gguf(write_gguf(tmp_path / "a.gguf", METADATA, {"a": (x, "F32")}))
    raw = file.raw("a")
    assert not raw.flags.writeable and raw.base is not None
    file.drop("a")
    file.close()
    np.testing.assert_array_equal(raw.view(np.float32), x)


def test_dropping_a_tensor_gives_its_memory_back(tmp_path: Path) -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    size = 64 << 20
    path = write_gguf(tmp_path / "a.gguf", METADATA, {"a": (np.zeros((size // 4096, 1024), np.float32), "F32")})
    with open_gguf(path) as file:
        raw = file.raw("a")
        before = resident_bytes()
        assert raw.max() == 0
        assert resident_bytes() - before > size // 2
        file.drop("a")
        assert resident_bytes() - before < size // 8
        del raw


def test_version_2_and_an_alignment_of_its_own_are_read(tmp_path: Path) -> None:
    x = values(3, 7)
    metadata = {**METADATA, "general.alignment": 128}
    path = write_gguf(tmp_path / "a.gguf", metadata, {"a": (x, "F32"), "b": (x, "F32")})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 4, 2)
    header = parse_header(bytes(data), "a")
    assert header.version == 2 and header.alignment == 128
    for tensor in header.tensors:
        assert tensor.offset % 128 == 0
        stored = np.frombuffer(data, np.float32, x.size, tensor.offset).reshape(x.shape)
        np.testing.assert_array_equal(stored, x)


def test_the_last_tensor_may_end_without_padding(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", METADATA, {"a": (values(3), "F32")})
    data = path.read_bytes()
    end = parse_header(data, "a").tensors[0].offset + 12
    assert end < len(data)
    parse_header(data[:end], "a")
    with pytest.raises(BadModelFile, match="data of tensor 'a'"):
        parse_header(data[: end - 1], "a")


# ---- split files


TENSORS = {f"t{i}": (values(2, 32, seed=i), "Q8_0") for i in range(5)}


@pytest.mark.parametrize("given", [0, 1, 2])
def test_a_split_model_opens_by_any_of_its_files(tmp_path: Path, given: int) -> None:
    paths = write_split_gguf(tmp_path / "m", METADATA, TENSORS, 3)
    with open_gguf(paths[given]) as file:
        assert list(file.split_files) == paths and file.path == paths[0]
        assert file.size_bytes == sum(path.stat().st_size for path in paths)
        assert file.metadata["llama.block_count"] == 2
        assert list(file.tensors) == list(TENSORS)
        for name, (x, quant) in TENSORS.items():
            np.testing.assert_array_equal(file.raw(name), quantize(quant, x))


def test_a_missing_split_file_is_named(tmp_path: Path) -> None:
    paths = write_split_gguf(tmp_path / "m", METADATA, TENSORS, 3)
    paths[1].unlink()
    with pytest.raises(ModelNotFound, match=r"m-00002-of-00003.gguf: there is no such file; .* fetch all"):
        open_gguf(paths[2])


def test_a_split_file_under_the_name_of_another_is_found_out(tmp_path: Path) -> None:
    paths = write_split_gguf(tmp_path / "m", METADATA, TENSORS, 3)
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(BadModelFile, match=r"m-00002-of-00003.gguf: split.no"):
        open_gguf(paths[0])


def test_a_renamed_split_file_is_not_taken_for_a_whole_model(tmp_path: Path) -> None:
    first, second, third = write_split_gguf(tmp_path / "m", METADATA, TENSORS, 3)
    alone = [(first, "split.count is 3"), (second, "split.no is 1"), (third, "split.no is 2")]
    for number, (path, message) in enumerate(alone):
        renamed = path.rename(tmp_path / f"renamed{number}.gguf")
        with pytest.raises(BadModelFile, match=f"{message}: it is one file of a split model"):
            open_gguf(renamed)


@pytest.mark.parametrize(("key", "value"), [("split.count", np.uint16(4)), ("split.tensors.count", np.int32(9))])
def test_split_counts_that_disagree_are_named(tmp_path: Path, key: str, value: np.generic) -> None:
    paths = write_split_gguf(tmp_path / "m", METADATA, TENSORS, 2)
    keys = {"split.no": np.uint16(0), "split.count": np.uint16(2), "split.tensors.count": np.int32(5), key: value}
    write_gguf(paths[0], {**METADATA, **keys}, {name: TENSORS[name] for name in ("t0", "t1", "t2")})
    with pytest.raises(BadModelFile, match=key):
        open_gguf(paths[0])


def test_a_tensor_in_two_split_files_is_named(tmp_path: Path) -> None:
    paths = write_split_gguf(tmp_path / "m", METADATA, TENSORS, 2)
    keys = {"split.no": np.uint16(1), "split.count": np.uint16(2), "split.tensors.count": np.int32(5)}
    write_gguf(paths[1], keys, {name: TENSORS[name] for name in ("t0", "t4")})
    with pytest.raises(BadModelFile, match=r"00002-of-00002.gguf: tensor 't0' is in m-00001-of-00002.gguf too"):
        open_gguf(paths[0])


def test_a_split_of_one_is_a_whole_model(tmp_path: Path) -> None:
    (path,) = write_split_gguf(tmp_path / "m", METADATA, TENSORS, 1)
    open_gguf(path).close()
    open_gguf(path.rename(tmp_path / "whole.gguf")).close()


# ---- not models


def test_a_missing_file_is_told_with_what_lies_beside_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", METADATA, {})
    with pytest.raises(ModelNotFound, match=r"there is no such file; there is other.gguf"):
        open_gguf(tmp_path / "absent.gguf")


def test_a_directory_is_told_with_what_lies_in_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", METADATA, {})
    with pytest.raises(BadModelFile, match=r"it is a directory; give a .gguf file; there is other.gguf"):
        open_gguf(tmp_path)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(BadModelFile, match="not a regular file"):
        open_gguf(tmp_path / "pipe.gguf")


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "a.gguf", METADATA, {})

    def refuse(*args: object, **kwargs: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BadModelFile, match=r"a.gguf: cannot be opened \(Permission denied\)"):
        open_gguf(path)


def test_a_name_that_no_file_can_have_is_an_error_of_ours() -> None:
    for path in ("a\0b.gguf", "x" * 5000 + ".gguf"):
        with pytest.raises((BadModelFile, ModelNotFound)):
            open_gguf(path)


def test_an_unsupported_quant_names_tensor_type_and_what_is_supported(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", METADATA, {"blk.0.x": (values(2, 256), "Q8_0")})
    data = bytearray(path.read_bytes())
    at = data.index(b"blk.0.x") + 7 + 4 + 16
    assert struct.unpack_from("<I", data, at) == (8,)
    for type_id, name in ((15, "Q8_K"), (26, "I32"), (9, "Q8_1"), (1000, "unknown type 1000")):
        struct.pack_into("<I", data, at, type_id)
        with pytest.raises(UnsupportedQuant, match=rf"tensor blk.0.x is stored as {name}; supported are F32, .*Q4_K"):
            parse_header(bytes(data), "a")


# ---- size


def test_a_header_of_150000_tokens_is_read_in_a_third_of_a_second(tmp_path: Path) -> None:
    tokens = [f"token{i}" for i in range(151_552)]
    merges = [f"tok en{i}" for i in range(321_649)]
    types = np.ones(len(tokens), np.int32)
    metadata = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges, "tokenizer.ggml.token_type": types}
    path = write_gguf(tmp_path / "a.gguf", metadata, {})
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        file = open_gguf(path)
        durations.append(time.perf_counter() - start)
        file.close()
    assert min(durations) < 0.3, durations
    with open_gguf(path) as file:
        assert file.metadata["tokenizer.ggml.merges"] == merges


def test_a_name_that_is_no_text_is_shown_escaped_and_a_token_keeps_its_number(tmp_path: Path) -> None:
    said = {"general.name": "tiny", "tokenizer.ggml.tokens": ["ab", "cXd", "e"]}
    path = write_gguf(tmp_path / "a.gguf", METADATA | said, {})
    path.write_bytes(path.read_bytes().replace(b"cXd", b"c\xffd").replace(b"tiny", b"t\xfeny"))
    with open_gguf(path) as model:
        assert model.metadata["general.name"] == r"t\xfeny"
        assert model.metadata["tokenizer.ggml.tokens"] == ["ab", r"c\xffd", "e"]
