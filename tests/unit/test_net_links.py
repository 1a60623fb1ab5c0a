"""Which of several links to a device is used."""

from __future__ import annotations

from swarm import limits
from swarm.net.links import Links, PeerLink
from swarm.wire.messages import Lane
from tests.helpers.link_ends import HERE, OTHER, PEER, caller, connection


def proven(number: int, lane: Lane = Lane.FAST, now: float = 0.0) -> PeerLink:
    link = caller(number, lane, now)
    link.connection = connection(PEER, lane, now)
    return link


def test_the_first_link_stays_in_use_while_it_lives() -> None:
    links, first, second = Links(), proven(1), proven(2)
    links.add(first, 0.0)
    links.add(second, 2 * limits.HEARTBEAT_INTERVAL_S - 0.1)
    assert links.best(PEER, Lane.FAST) is first


def test_a_link_that_is_not_heard_of_gives_way_to_a_new_one() -> None:
    links, first, second = Links(), proven(1), proven(2)
    links.add(first, 0.0)
    links.add(second, 2 * limits.HEARTBEAT_INTERVAL_S)
    assert links.best(PEER, Lane.FAST) is second
    links.remove(second)
    assert links.best(PEER, Lane.FAST) is first


def test_too_many_links_of_one_lane_are_named() -> None:
    links = Links()
    made = [proven(number) for number in range(limits.MAX_LINKS_PER_LANE + 1)]
    assert [links.add(link, 0.0) for link in made] == [None] * limits.MAX_LINKS_PER_LANE + [made[-1]]


def test_only_the_last_fast_link_takes_its_device_with_it() -> None:
    links, one, other, bulk = Links(), proven(1), proven(2), proven(3, Lane.BULK)
    for link in (one, other, bulk):
        links.add(link, 0.0)
    assert [links.remove(link) for link in (bulk, one, other, other)] == [False, False, True, False]


def test_a_caller_is_found_by_its_routing_id_and_by_its_file_descriptor() -> None:
    links, link = Links(), proven(7)
    links.add(link, 0.0)
    assert links.incoming[Lane.FAST] == {b"7": link}
    assert links.by_fd(Lane.FAST, 7) is link and links.by_fd(Lane.BULK, 7) is None
    links.remove(link)
    assert links.incoming[Lane.FAST] == {} and links.by_fd(Lane.FAST, 7) is None


def test_nothing_is_known_of_a_device_without_links() -> None:
    links = Links()
    assert links.best(OTHER, Lane.FAST) is None and links.infos() == () and [*links.all()] == []


def test_what_status_shows_of_a_device() -> None:
    links = Links()
    call = PeerLink(Lane.FAST, HERE, 0.0, PEER)
    call.connection = connection()
    call.connection.unknown = {99: 2, 100: 1}
    links.add(call, 0.0)
    (info,) = links.infos()
    assert (info.peer, info.address, info.we_called, info.has_bulk, info.n_unknown) == (PEER, HERE, True, False, 3)
    links.add(proven(1, Lane.BULK), 0.0)
    assert links.infos()[0].has_bulk
