"""The line of waiting requests is in the order of admission, however often it is moved."""

from __future__ import annotations

from random import Random

import pytest

from dpbal.backends.vllm.rank import line
from dpbal.backends.vllm.rank.line import Admissible, Line, Waiting

BLOCK = 16
NOW_S = 1000.0

Queue = dict[str, tuple[Waiting, float | None]]
"""Each request and its arrival, in order."""


def walked(waiting: Queue, slots: int, free_blocks: int) -> Admissible:
    """What could be admitted, found request by request."""
    admitted: list[tuple[Waiting, float | None]] = []
    for one, arrival_s in waiting.values():
        free_blocks -= -(-one.tokens // BLOCK)  # those of the cache are needed too
        if free_blocks < 0 or len(admitted) == slots:
            break
        admitted.append((one, arrival_s))
    arrivals_s = [at_s for _, at_s in waiting.values() if at_s is not None]
    return Admissible(
        len(admitted),
        sum(one.tokens - one.cached for one, _ in admitted),
        sum(one.tokens**2 - one.cached**2 for one, _ in admitted),
        sum(NOW_S - at_s for _, at_s in admitted if at_s is not None),
        NOW_S - arrivals_s[0] if arrivals_s else 0.0,
    )


@pytest.mark.parametrize("seed", range(5))
def test_it_admits_what_a_walk_over_the_requests_admits(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(line, "FIRST_ROOM", 8)
    random, made, waiting = Random(seed), Line(), Queue()
    for number in range(2000):
        arrival_s = random.choice([None, float(number) / 10])
        tokens = random.randint(1, 100)
        action = random.random()
        some = random.choice([*waiting, "unknown"])
        if action < 0.4:
            made.join(str(number), tokens, arrival_s)
            waiting[str(number)] = Waiting(tokens), arrival_s
        elif action < 0.5:
            assert made.come_back(str(number), tokens, arrival_s) is None
            waiting = {str(number): (Waiting(tokens), arrival_s), **waiting}
        elif action < 0.55 and some in waiting:
            assert made.come_back(some, tokens, arrival_s) == waiting[some][0]
            waiting[some] = Waiting(tokens), arrival_s
        elif action < 0.6 and some in waiting:
            size = waiting[some][0].tokens
            cached = random.randrange(size)
            made.expect(some, cached)
            waiting[some] = Waiting(size, cached), waiting[some][1]
        elif action < 0.8 and waiting:
            first = next(iter(waiting))
            assert made.leave(first) == waiting.pop(first)[0]
        else:
            assert made.leave(some) == waiting.pop(some, (None, None))[0]
        slots, free_blocks = random.randint(0, 12), random.randint(0, 40)
        found = made.admissible(slots, free_blocks, BLOCK, NOW_S)
        assert found == pytest.approx(walked(waiting, slots, free_blocks)), number
