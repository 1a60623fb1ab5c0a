"""Sizes and rates as people read and write them."""

from __future__ import annotations

import pytest

from swarm.units import GIB, MIB, parse_size, part_text, rate_text, size_text, time_text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (98_362_432, "93.8 MiB"),
        (512 * MIB, "512 MiB"),
        (1023.4 * MIB, "1023 MiB"),
        (1023.6 * MIB, "1 GiB"),
        (60.4 * GIB, "60.4 GiB"),
        (2000 * GIB, "1.95 TiB"),
        (5000 * 1024 * GIB, "5000 TiB"),
    ],
)
def test_sizes_read_as_a_person_says_them(n_bytes: float, text: str) -> None:
    assert size_text(n_bytes) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(1.5 * GIB, 6.4 * GIB, "1.5/6.4 GiB"), (0, 0, "0/0 B"), (512 * MIB, 2 * GIB, "0.5/2 GiB")],
)
def test_a_part_is_told_in_the_unit_of_the_whole(part: float, whole: float, text: str) -> None:
    assert part_text(part, whole) == text


@pytest.mark.parametrize(("rate", "text"), [(0, "0 B/s"), (117.4e6, "117 MB/s"), (17.34e9, "17.3 GB/s")])
def test_rates_read_as_data_sheets_give_them(rate: float, text: str) -> None:
    assert rate_text(rate) == text


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("6GiB", 6 * GIB),
        (" 7.5 g ", 7.5 * GIB),
        ("800MB", 800_000_000),
        ("1kb", 1000),
        ("1KiB", 1024),
        ("64000000", 64_000_000),
        ("12b", 12),
    ],
)
def test_a_size_is_read_in_either_family(text: str, n_bytes: float) -> None:
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "lots", "8XB", "-1GiB", "1e9GiB", "6 Gi B", "٣GiB", "9" * 20])
def test_anything_else_is_no_size(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99.4, "99 s"), (100, "2 min"), (5000, "83 min"), (7800, "2 h 10 min")]
)
def test_a_time_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
