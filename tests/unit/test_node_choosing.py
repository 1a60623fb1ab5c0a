"""A node measures what its models need when nobody wants anything, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.engine import ways
from swarm.engine.ways import Choice, Choices, Product, Way
from swarm.node import choosing

NEEDED, LATER = Product("Q4_K"), Product("Q6_K", True)
CHOICE = Choice(Way("scalar"), 1e9, 1.0)


class Story:
    """Waits are over at once; what each moment is like is said before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, moments: list[tuple[bool, bool]]) -> None:
        self.moments, self.waits, self.measured = iter(moments), list[float](), list[list[Product]]()
        self.told = list[Choices]()
        self.products = [NEEDED]
        self.fails = False
        self.idle = self.quiet = False
        monkeypatch.setattr(asyncio, "sleep", self.sleep)
        monkeypatch.setattr(ways, "kept", lambda *_: {})
        monkeypatch.setattr(ways, "renewed", self.renewed)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        moment = next(self.moments, None)
        if moment is None:
            raise asyncio.CancelledError
        self.idle, self.quiet = moment

    def renewed(
        self, folder: Path, products: list[Product], isa: str, threads: int, go_on: Callable[[], bool]
    ) -> Choices:
        assert go_on()
        self.measured.append(list(products))
        have = [product for choices in self.told for product in choices]
        return {} if self.fails else dict.fromkeys([*have, *products], CHOICE)

    def play(self) -> None:
        async def story() -> None:
            await choosing.choose_when_quiet(
                Path("/nowhere"),
                "scalar",
                1,
                products=lambda: self.products,
                is_quiet=lambda: self.quiet,
                is_idle=lambda: self.idle,
                chosen=self.take,
            )

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(story())

    def take(self, choices: Choices) -> None:
        self.told.append(choices)
        self.products.append(LATER)  # another model is loaded


def test_it_waits_longer_and_longer_for_a_quiet_moment_and_begins_anew_for_another_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Story(monkeypatch, [(False, True), (True, False), (True, True), (True, True), (True, True)])
    story.play()
    assert story.measured == [[NEEDED], [LATER]]
    assert [set(choices) for choices in story.told] == [{NEEDED}, {NEEDED, LATER}]
    first = choosing.FIRST_S
    assert story.waits == [first, 2 * first, 4 * first, first, first, first]


def test_a_measurement_that_was_disturbed_is_made_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(monkeypatch, [(True, True)] * 3)
    story.fails = True
    story.play()
    assert story.measured == [[NEEDED]] * 3 and story.told == []
    assert story.waits == [choosing.FIRST_S * 2**n for n in range(4)]


def test_a_device_without_a_model_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(monkeypatch, [(True, True)] * 3)
    story.products = []
    story.play()
    assert story.measured == [] and story.waits == [choosing.FIRST_S] * 4
