"""Ranks that meet wait once for one that does not come, say who it was, and go on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dpbal.sharedmem import sweep
from tests.transports.gathering import HURRIED, Group
from tests.transports.processes import Process

pytest.importorskip("torch")


@pytest.fixture
def group(start: Callable[..., Process]) -> Iterator[Group]:
    with closing(Group(start, ranks=3)) as made:
        yield made


@pytest.fixture
def hurried(start: Callable[..., Process]) -> Iterator[Group]:
    """One whose ranks do not wait long for one that does not come."""
    with closing(Group(start, 3, HURRIED)) as made:
        yield made


def test_a_rank_that_never_comes_is_waited_for_once_and_named(hurried: Group) -> None:
    hurried.publish(running=1)
    assert max(hurried.step(*range(100), ranks=hurried.ranks[:2])) <= 1
    for rank, process in enumerate(hurried.ranks[:2]):
        assert process.output.count("gathers reports no more") == 1
        assert f"rank {rank} gathers reports no more: at step 0, rank 2 did not come" in (
            process.output
        )
        assert "start all ranks of the group anew on a new exchange" in process.output
    assert hurried.step(0, ranks=hurried.ranks[2:]) == [0]
    assert "ranks 0, 1 met no more" in hurried.ranks[2].output


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_is_named_by_the_others_which_go_on(group: Group, victim: int) -> None:
    group.publish(running=1)
    group.step(0)
    group.ranks[victim].end(signal.SIGKILL)
    others = [process for rank, process in enumerate(group.ranks) if rank != victim]
    assert max(group.step(*range(1, 100), ranks=others)) <= 1
    for process in others:
        assert process.output.count(f"rank {victim} closed or ended") == 1
        process.do("p.publish()")
    assert group.running == [1, 2, 3]


@pytest.mark.parametrize("victim", [0, 2])
def test_a_stopped_rank_is_waited_for_once_by_others_and_itself_goes_on_then(
    hurried: Group, victim: int
) -> None:
    hurried.publish(running=1)
    hurried.step(0)
    hurried.ranks[victim].send(signal.SIGSTOP)
    hurried.ranks[victim].until_stopped()
    others = [process for rank, process in enumerate(hurried.ranks) if rank != victim]
    assert max(hurried.step(*range(1, 100), ranks=others)) <= 1
    for process in others:
        assert process.output.count("gathers reports no more") == 1
        process.do("p.publish()")
    assert hurried.running == [1, 2, 3]
    hurried.ranks[victim].send(signal.SIGCONT)
    assert max(hurried.step(*range(1, 100), ranks=[hurried.ranks[victim]])) <= 1
    assert hurried.ranks[victim].output.count("gathers reports no more") == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_first_meeting_without_the_owner_is_given_up_in_time(
    start: Callable[..., Process], how: signal.Signals
) -> None:
    code = f"from dpbal.transports import Gather; t = Gather(**{HURRIED})\n"
    owner = start(code + "x = t.create(2, 1)", modules=["torch.distributed"])
    code += f"p = t.publisher({owner.do('x.address')!r}, "
    ranks = [start(f"{code}{rank})", modules=["torch.distributed"]) for rank in range(2)]
    owner.send(how)
    for process in ranks:
        process.tell("p.step(0)")
    for process in ranks:
        process.answer()
        assert process.output.count("gathers reports no more: at step 0") == 1
    owner.end(signal.SIGKILL)
    sweep()


def test_a_process_that_starts_after_the_ranks_have_met_is_told_what_to_do(group: Group) -> None:
    group.step(0)
    group.ranks[1].end(signal.SIGKILL)
    with pytest.raises(AssertionError, match=r"rank 1 at .* is too late: .* on a new exchange"):
        group.process(1)


def test_a_rank_may_start_again_before_the_ranks_have_met(group: Group) -> None:
    group.ranks[1].end(signal.SIGKILL)
    group.ranks[1] = group.process(1)
    group.ranks[2].do("p.close()")
    group.ranks[2].end()
    group.ranks[2] = group.process(2)
    group.publish(running=1)
    group.step(0)
    assert group.running == [1, 2, 3]


def test_a_rank_that_closes_after_rank_0_has_died_says_so_itself(group: Group) -> None:
    group.publish(running=1)
    group.step(0)
    group.ranks[0].end(signal.SIGKILL)
    group.ranks[1].do("p.close()")
    group.subscriber.refresh()
    assert not group.table.selectable[1]


def test_a_report_gathered_just_before_its_rank_closed_does_not_bring_it_back(
    group: Group, tmp_path: Path
) -> None:
    group.publish(running=1)
    group.step(0)
    group.publish(running=5)
    root, *others = group.ranks
    closed = tmp_path / "closed"
    root.do(
        f"from pathlib import Path; closed = Path({str(closed)!r}); hand_on = p._hand_on\n"
        "def hand_on_late(records):\n"
        "    while not closed.exists(): time.sleep(0.001)\n"
        "    hand_on(records)\n"
        "p._hand_on = hand_on_late"
    )
    for process in group.ranks:
        process.tell("p.step(10)")
    for process in others:
        process.answer()
    others[0].do("p.close()")
    closed.touch()
    root.answer()
    assert group.running == [5, 6, 7]
    assert group.table.selectable.tolist() == [True, False, True]
