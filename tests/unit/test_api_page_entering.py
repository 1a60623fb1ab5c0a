"""A code lets one browser in, once and for a minute."""

from __future__ import annotations

import pytest

from swarm.api.errors import BadRequest
from swarm.api.page.entering import CODE_S, MAX_CODES, Codes
from tests.helpers.api_client import CHANGES, TOKEN, api_of


def refused(codes: Codes, code: object) -> bool:
    try:
        codes.use(code)
    except BadRequest as error:
        assert error.status == 403
        return True
    return False


def test_a_code_is_good_once() -> None:
    codes = Codes(lambda: 0.0)
    code = codes.make()
    assert not refused(codes, code) and refused(codes, code)


def test_a_code_is_good_for_a_minute() -> None:
    now = 0.0
    codes = Codes(lambda: now)
    code = codes.make()
    now = CODE_S + 1
    assert refused(codes, code)


def test_only_some_are_good_at_the_same_time() -> None:
    codes = Codes(lambda: 0.0)
    made = [codes.make() for _ in range(MAX_CODES + 1)]
    assert [refused(codes, code) for code in made] == [True] + [False] * MAX_CODES


@pytest.mark.parametrize("code", ["", "guess", None, 7, [], "é"])
def test_a_guess_is_refused(code: object) -> None:
    codes = Codes(lambda: 0.0)
    codes.make()
    assert refused(codes, code)


def test_the_node_gives_its_key_for_a_code_of_its_user() -> None:
    api = api_of()
    assert api.post("/swarm/page").status_code == 403
    code = api.post("/swarm/page", headers=CHANGES).json()["code"]
    assert api.post("/swarm/page/enter", json={"code": "guess"}).status_code == 403
    reply = api.post("/swarm/page/enter", json={"code": code})
    assert reply.json() == {"key": TOKEN} and reply.headers["cache-control"] == "no-store"
    assert api.post("/swarm/page/enter", json={"code": code}).status_code == 403
    assert api.get("/swarm/page").status_code == 405
