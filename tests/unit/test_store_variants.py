"""The files of a repository as a person chooses among them."""

from __future__ import annotations

import pytest

from swarm.errors import ModelNotFound
from swarm.store.variants import RepoFile, by_preference, label_of, of_file, of_quant, variants


def files(*names: str, size: int = 1000) -> list[RepoFile]:
    return [RepoFile(name, size + number) for number, name in enumerate(names)]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("THUDM_GLM-4-9B-0414-Q4_K_M.gguf", "Q4_K_M"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("model.i1-Q4_K_M.gguf", "Q4_K_M"),
        ("smollm2-360m-instruct-q8_0.gguf", "Q8_0"),
        ("ggml-model-Q4_K_M.gguf", "Q4_K_M"),
        ("GLM-4.7-Flash-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("x-Q4_k_m.gguf", "Q4_K_M"),
        ("GLM-4.5-Air-Q4_K_M-00001-of-00002.gguf", "Q4_K_M"),
        ("Qwen3-30B-A3B-BF16-00002-of-00002.gguf", "BF16"),
        ("Llama-3.2-3B-Instruct-f16.gguf", "F16"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("Jan-v2-VL-low.gguf", ""),
        ("Q-model.gguf", ""),
    ],
)
def test_the_quant_is_told_from_a_files_name(name: str, label: str) -> None:
    assert label_of(name) == label


def test_a_split_model_is_one_variant_and_one_with_a_part_missing_is_none() -> None:
    found = variants(
        files(
            "Q4_K_M/x-Q4_K_M-00001-of-00002.gguf",
            "Q4_K_M/x-Q4_K_M-00002-of-00002.gguf",
            "x-Q8_0-00001-of-00003.gguf",
            "x-Q8_0-00003-of-00003.gguf",
            "mmproj-x-F16.gguf",
            "x-imatrix.gguf",
            "mtp-x-Q4_0.gguf",
            "x.gguf.part1of2",
            "README.md",
        )
    )
    assert [(variant.label, len(variant.files)) for variant in found] == [("Q4_K_M", 2)]
    assert found[0].total_bytes == 2001


def test_of_one_quant_the_whole_file_goes_before_the_split_one_and_the_root_before_a_folder() -> None:
    found = variants(
        files("q-q4_k_m-00001-of-00002.gguf", "q-q4_k_m-00002-of-00002.gguf", "sub/q-Q4_K_M.gguf", "q-Q4_K_M.gguf")
    )
    assert [variant.files[0].path for variant in found] == ["q-Q4_K_M.gguf"]


def test_a_quant_is_matched_whole_and_in_any_case() -> None:
    found = variants(files("x-Q4_K_M.gguf", "x-Q4_K_S.gguf", "x-UD-Q4_K_M.gguf", "x-Q8_0.gguf"))
    for text in ("Q4_K_M", "q4_k_m", "q4km", "Q4", "Q4_K"):
        assert of_quant(text, found, "u/r").files[0].path == "x-Q4_K_M.gguf", text
    assert of_quant("ud-q4_k_m", found, "u/r").files[0].path == "x-UD-Q4_K_M.gguf"
    assert of_quant("q80", found, "u/r").label == "Q8_0"
    with pytest.raises(ModelNotFound, match="u/r has no Q5_K_M; there is Q4_K_M 1000 B, Q4_K_S"):
        of_quant("Q5_K_M", found, "u/r")


def test_a_label_without_its_size_letter_is_the_medium_one() -> None:
    assert of_quant("Q4_K_M", variants(files("x.Q4_K.gguf")), "u/r").label == "Q4_K"


def test_a_file_is_named_by_its_path_or_its_name() -> None:
    found = variants(files("a/x-Q4_0.gguf", "y-Q8_0-00001-of-00002.gguf", "y-Q8_0-00002-of-00002.gguf"))
    assert of_file("X-Q4_0.gguf", found, "u/r").label == "Q4_0"
    assert len(of_file("y-Q8_0-00002-of-00002.gguf", found, "u/r").files) == 2
    with pytest.raises(ModelNotFound, match=r"u/r has no file z.gguf"):
        of_file("z.gguf", found, "u/r")


def test_what_is_taken_unasked_is_the_best_for_its_bytes_and_never_a_type_that_loses_much() -> None:
    names = ("Q2_K", "Q4_K_M", "Q8_0", "IQ4_XS", "Q6_K", "UD-Q4_K_XL", "IQ1_M", "Q3_K_M")
    found = variants([RepoFile(f"x-{name}.gguf", 5_000_000_000 + i) for i, name in enumerate(names)])
    labels = [variant.label for variant in by_preference(found)]
    assert labels == ["Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K", "Q6_K", "Q8_0"]


def test_a_small_model_is_taken_with_eight_bits() -> None:
    found = variants([RepoFile("x-Q8_0.gguf", 640_000_000), RepoFile("x-Q4_K_M.gguf", 400_000_000)])
    assert [variant.label for variant in by_preference(found)] == ["Q8_0", "Q4_K_M"]


def test_a_file_whose_name_tells_nothing_is_taken_when_it_is_the_only_one() -> None:
    assert len(by_preference(variants(files("model.gguf")))) == 1
    assert by_preference(variants(files("low.gguf", "high.gguf"))) == []
    assert len(by_preference(variants(files("gpt-oss-20b-MXFP4.gguf")))) == 1
