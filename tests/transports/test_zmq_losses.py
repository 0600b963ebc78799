"""Messages that are lost, come twice or late, or are not this group's, between real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from random import Random

import numpy as np
import pytest
import zmq

from dpbal.core import VECTOR, LoadTable
from dpbal.transports import Exchange, Subscriber, Zmq
from dpbal.transports.records import PUBLISHED_NS
from dpbal.transports.zmq.group import REPORTS, VECTORS, Group
from dpbal.transports.zmq.voice import BODY, CLOCK, HEAD, SENT_NS

PATIENCE_S = 30.0

Change = Callable[[bytes], bytes]


class Tap:
    """Stands between ranks that publish at one exchange and those who listen at another.

    Args:
        said: Where the ranks are.
        heard: Where they seem to be.
        kind: Of messages.
        ranks: Which of them.
        kind_out: Of the sockets that are listened to; an XPUB hears nobody whom it is not told of.
        change: What becomes of each message.

    Attributes:
        outs: These sockets.
    """

    def __init__(
        self,
        said: Exchange,
        heard: Exchange,
        kind: str,
        ranks: range,
        kind_out: int = zmq.PUB,
        change: Change = bytes,
    ) -> None:
        self._context = zmq.Context()
        self._change = change
        self._held: list[tuple[int, bytes]] = []
        self._in, self.outs = [], []
        for rank in ranks:
            self._in.append(self._context.socket(zmq.SUB))
            self._in[-1].subscribe(b"")
            self._in[-1].connect(Group.at(said.address).endpoint(kind, rank))
            self.outs.append(self._context.socket(kind_out))
            if kind_out == zmq.XPUB:
                self.outs[-1].setsockopt(zmq.XPUB_MANUAL, 1)
            self.outs[-1].bind(Group.at(heard.address).endpoint(kind, rank))

    def listen(self) -> None:
        """Hold what has been said."""
        for place, socket in enumerate(self._in):
            while socket.poll(0):
                self._held.append((place, self._change(socket.recv())))

    def pass_on(self) -> None:
        """Pass on what is held, as it is."""
        self.listen()
        for place, message in self._held:
            self.outs[place].send(message)
        self._held.clear()

    def garble(self, random: Random) -> None:
        """Pass on some of what is held, in any order, some of it again later, and lose some."""
        self.listen()
        for _ in range(random.randrange(4)):
            if self._held:
                place, message = self._held[random.randrange(len(self._held))]
                self.outs[place].send(message)
        while len(self._held) > 20 or (self._held and random.random() < 0.3):
            self._held.pop(random.randrange(len(self._held)))

    def close(self) -> None:
        self._context.destroy(0)


def until(happens: Callable[[], bool], do: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline_s
        do()
        time.sleep(0.002)


@pytest.fixture
def said() -> Iterator[Exchange]:
    with closing(Zmq().create(2, 1)) as made:
        yield made


@pytest.fixture
def heard() -> Iterator[Exchange]:
    with closing(Zmq().create(2, 1)) as made:
        yield made


@pytest.fixture
def table() -> LoadTable:
    return LoadTable(2)


@pytest.fixture
def subscriber(heard: Exchange, table: LoadTable) -> Iterator[Subscriber]:
    with closing(Zmq().subscriber(heard.address, table)) as made:
        yield made


def test_a_rank_that_was_not_told_who_listens_is_told_again(
    said: Exchange, heard: Exchange, table: LoadTable, subscriber: Subscriber
) -> None:
    with closing(Tap(said, heard, REPORTS, range(1), zmq.XPUB)) as tap:
        (out,) = tap.outs
        publisher = Zmq().publisher(said.address, 0)
        publisher.publish()
        for lost in (True, False):
            until(lambda: bool(out.poll(0)), subscriber.refresh)
            assert out.recv() == b"\x01"  # it listens to everything
            if not lost:
                out.subscribe(b"")  # for it

        def look() -> None:
            tap.pass_on()
            subscriber.refresh()

        until(lambda: table.reports["version"].tolist() == [1, 0], look)
        publisher.close()


@pytest.mark.parametrize("seed", range(3))
def test_reports_only_get_newer_and_the_newest_arrives(
    said: Exchange, heard: Exchange, table: LoadTable, subscriber: Subscriber, seed: int
) -> None:
    random = Random(seed)
    newest = [(0, 0), (0, 0)]
    with closing(Tap(said, heard, REPORTS, range(2))) as tap:
        publishers = [Zmq().publisher(said.address, rank) for rank in range(2)]
        for turn in range(400):
            rank = random.randrange(2)
            publishers[rank].report["running"] = turn
            publishers[rank].publish()
            if random.random() < 0.02:
                publishers[rank].close()
                publishers[rank] = Zmq().publisher(said.address, rank)
                publishers[rank].report["running"] = turn
                publishers[rank].publish()
            time.sleep(0.001)
            tap.garble(random)
            subscriber.refresh()
            for rank in range(2):
                report = table.reports[rank]
                known = (report["epoch"].item(), report["version"].item())
                assert known >= newest[rank]
                newest[rank] = known
        assert min(newest) > (0, 0)
        for rank in range(2):
            publishers[rank].report["running"] = 1000 + rank
            publishers[rank].publish()

        def look() -> None:
            tap.garble(random)
            subscriber.refresh()

        until(lambda: table.reports["running"].tolist() == [1000, 1001], look)
        for publisher in publishers:
            publisher.close()


@pytest.mark.parametrize("seed", range(3))
def test_vectors_are_whole_versions_and_the_newest_arrives(
    said: Exchange, heard: Exchange, seed: int
) -> None:
    random, vectors = Random(seed), np.zeros(2, VECTOR)
    other = Zmq().vectors(said.address, 1)
    own = Zmq().vectors(heard.address, 0)
    with closing(Tap(said, heard, VECTORS, range(1, 2))) as tap:
        found = 0
        for step in range(300):
            for rank, end in enumerate((own, other)):
                end.own["decode_seqs"] = end.own["done_tokens"] = 2 * step + rank
                end.publish(0, step)
            time.sleep(0.001)
            tap.garble(random)
            for asked in range(step - 9, step + 2):
                if own.read(0, asked, vectors):
                    assert step - 8 < asked <= step
                    for field in ("decode_seqs", "done_tokens"):
                        assert vectors[field].tolist() == [2 * asked, 2 * asked + 1]
                    found += 1
        assert found

        def garble() -> None:
            tap.garble(random)

        until(lambda: own.read(0, 299, vectors), garble)
    own.close()
    other.close()


@pytest.mark.parametrize("hours", [-1000, 1000])
def test_the_clock_of_another_host_may_say_anything(
    said: Exchange, heard: Exchange, table: LoadTable, subscriber: Subscriber, hours: int
) -> None:
    off_ns = hours * 3_600_000_000_000

    def elsewhere(message: bytes) -> bytes:
        words = np.frombuffer(message, np.int64).copy()
        words[[SENT_NS, BODY + PUBLISHED_NS]] += off_ns
        words[CLOCK] += 1
        return words.tobytes()

    publishers = [Zmq().publisher(said.address, rank) for rank in range(2)]
    before_s = time.monotonic()
    for publisher in publishers:
        publisher.publish()
    with closing(Tap(said, heard, REPORTS, range(2), change=elsewhere)) as tap:

        def look() -> None:
            tap.pass_on()
            subscriber.refresh()

        until(lambda: bool(table.reports["version"].all()), look)
        ages_s = subscriber.ages_s()
        late_s = time.monotonic() - before_s
        assert ((ages_s > 0) & (ages_s <= late_s)).all()
        publishers[0].publish()
        until(lambda: table.reports["version"][0] == 2, look)
        assert subscriber.ages_s()[0] < subscriber.ages_s()[1]
        publishers[1].close()
        until(lambda: table.selectable.tolist() == [True, False], look)
    # nothing arrives from here on: what comes last lies unread for longer than patience
    time.sleep(0.1)
    until(lambda: bool(subscriber.ages_s()[0] > 2.5), lambda: None)
    subscriber.refresh()
    assert subscriber.ages_s()[0] > 2.5
    assert table.selectable.tolist() == [True, True]  # nobody is left, so nobody is left out
    publishers[0].close()


def test_what_others_say_is_left_out_and_named_once(
    said: Exchange,
    heard: Exchange,
    table: LoadTable,
    subscriber: Subscriber,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def of_another_size(message: bytes) -> bytes:
        return HEAD.pack(HEAD.unpack_from(message)[0], 2, 7) + message[HEAD.size :]

    def of_another_version(message: bytes) -> bytes:
        return HEAD.pack(77, 2, 1) + message[HEAD.size :]

    publishers = [Zmq().publisher(said.address, rank) for rank in range(2)]
    turns: list[tuple[Change, list[str]]] = [
        (of_another_size, ["rank 0", "rank 1"]),
        (of_another_version, ["rank 0", "rank 1", "somebody"]),
        (lambda message: message[:5], ["rank 0", "rank 1", "somebody"]),
    ]
    for change, names in turns:
        with closing(Tap(said, heard, REPORTS, range(2), change=change)) as tap:
            end_s = time.monotonic() + 0.5  # longer than it takes to say it again
            while len(caplog.messages) < len(names) or time.monotonic() < end_s:
                assert time.monotonic() < end_s + PATIENCE_S
                tap.pass_on()
                subscriber.refresh()
                time.sleep(0.002)
        said_of = sorted(text.split(" at ")[0] for text in caplog.messages)
        assert said_of == [f"ignored what {name}" for name in names]
    assert all("one version and the same numbers of ranks" in text for text in caplog.messages)
    assert not table.reports["epoch"].any()
    for publisher in publishers:
        publisher.close()
