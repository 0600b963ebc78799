"""What messages between processes do beside what every transport does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import psutil
import pytest

from dpbal.core import LoadTable
from dpbal.errors import ConfigError, DpbalError
from dpbal.transports import Zmq
from dpbal.transports.sockets import SocketError
from tests.transports.groups import Case, Group
from tests.transports.processes import Process

CASES = [
    Case("ipc", "zmq", is_at_once=False),
    Case("tcp", "zmq", {"hosts": ["127.0.0.1"]}, is_at_once=False),
    Case("two hosts", "zmq", {"hosts": ["127.0.0.1", "127.0.0.2"]}, is_at_once=False),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    made = Group(request.param)
    yield made
    made.close()


def restart(group: Group, rank: int, clock_ns: int | None = None) -> None:
    """A rank's process is killed, and another takes its place, whose clock says something."""
    group.processes[rank].end(signal.SIGKILL)
    clock = "" if clock_ns is None else f"import time; time.time_ns = lambda: {clock_ns}"
    group.processes[rank] = group.case.process(clock)
    group.join(rank)


def listening(process: Process) -> set[str]:
    """Addresses on which a process listens for connections from the network."""
    connections = psutil.Process(process.pid).net_connections("inet")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


def test_one_who_comes_late_has_the_report_of_a_rank_that_says_nothing_more(group: Group) -> None:
    group.publish(0, running=3)
    group.publish(1, running=4)
    group.until(group.has("running", 3, 4))
    table = LoadTable(2, 2)
    with closing(group.transport.subscriber(group.address, table)) as late:
        deadline_s = time.monotonic() + 30
        while table.reports["running"].tolist() != [3, 4]:
            assert time.monotonic() < deadline_s
            late.refresh()
    assert table.reports["version"].tolist() == [1, 1]


def test_what_is_said_again_is_no_news(group: Group) -> None:
    group.publish(0)
    group.publish(1)
    group.until(group.has("version", 1, 1))
    generation, start_s = group.table.generation.item(), time.monotonic()
    while time.monotonic() < start_s + 0.5:
        group.refresh()
    assert group.table.generation.item() == generation
    assert min(group.ages_s) > 0.4


def test_a_new_process_is_heard_though_its_clock_was_set_back(group: Group) -> None:
    group.publish(0)
    group.publish(1, running=5)
    group.until(group.has("running", 1, 5))
    epoch = group.table.reports["epoch"][1].item()
    restart(group, 1, clock_ns=1_000)
    group.publish(1, running=6)
    group.until(group.has("running", 1, 6))
    assert group.table.reports["version"].tolist() == [1, 1]
    after = group.table.reports["epoch"][1].item()
    assert after == (1_000 if group.case.settings else epoch + 1)  # a folder keeps the last one
    group.until(group.chooses(True, True))


def test_a_rank_that_is_stopped_is_not_chosen_until_it_goes_on(group: Group) -> None:
    group.publish(0)
    group.publish(1)
    group.until(group.has("version", 1, 1))
    group.stop(1)
    group.until(group.chooses(True, False))
    assert group.ages_s[1] > 2
    group.wake(1)
    group.until(group.chooses(True, True))
    assert group.table.reports["version"].tolist() == [1, 1]


READS = """
import numpy as np
from dpbal.core import LoadTable
table = LoadTable(2, 2)
s = t.subscriber({address!r}, table)
def seen():
    s.refresh()
    return table.reports["version"].tolist()
"""

KEEPS_ON = """
import psutil
def publish(n):
    for _ in range(n):
        p.publish()
    return psutil.Process().memory_info().rss
"""


def test_a_stopped_reader_makes_nobody_wait_and_then_sees_the_newest(group: Group) -> None:
    reader = group.other(READS.format(address=group.address))
    group.publish(0)
    group.publish(1)
    while reader.do("seen()") != [1, 1]:
        pass
    reader.send(signal.SIGSTOP)
    reader.until_stopped()
    publisher = group.processes[0]
    publisher.do(KEEPS_ON)
    before = publisher.do("publish(20000)")
    for _ in range(4):
        after = publisher.do("publish(20000)")  # 40 MB of messages
    assert after - before < 10 << 20
    reader.send(signal.SIGCONT)
    seen = [reader.do("seen()")]
    while seen[-1] != [100_001, 1]:
        seen.append(reader.do("seen()"))
    versions = [version for version, _ in seen]
    assert versions == sorted(versions)
    assert len(set(versions)) < 10_000  # all but few of them were not kept


def test_one_who_looks_is_not_kept_by_ranks_that_never_stop(group: Group) -> None:
    for process in group.processes:
        process.do("import threading; go = True")
        process.do("def run():\n    while go: p.publish()")
        process.do("x = threading.Thread(target=run); x.start()")
    group.until(lambda: bool((group.table.reports["version"] > 1000).all()))
    for process in group.processes:
        process.do("go = False")


def test_ranks_listen_where_they_were_told_to_and_nobody_else_listens(group: Group) -> None:
    hosts: list[str] = list(group.case.settings.get("hosts", ()))
    reader = group.other(READS.format(address=group.address))
    group.processes[0].do(f"v = t.vectors({group.address!r}, 0)")
    group.publish(0)
    group.publish(1)
    group.until(group.has("version", 1, 1))
    assert [listening(p) for p in group.processes] == [set(hosts[:1]), set(hosts[-1:])]
    assert listening(reader) == set()


def test_a_forked_child_says_nothing_and_ends_nothing(group: Group) -> None:
    group.publish(0)
    group.publish(1)
    group.until(group.has("version", 1, 1))
    process = group.processes[1]
    process.do(
        "import os\n"
        "def child():\n"
        "    try: p.publish()\n"
        "    except ValueError: p.close()\n"
        "    else: os._exit(7)\n"
        "child_id = os.fork()\n"
        "if not child_id: child(); os._exit(0)"
    )
    assert process.do("os.waitpid(child_id, 0)[1]") == 0
    group.publish(1, running=9)
    group.until(group.has("running", 1, 9))
    assert group.table.selectable.tolist() == [True, True]
    sleeper = process.fork_a_sleeper()
    try:
        restart(group, 1)  # nor is the place kept
        group.publish(1, running=10)
        group.until(group.has("running", 1, 10))
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_a_reader_of_another_process_is_one_clear_line() -> None:
    with closing(Zmq().create(1, 1)) as exchange:
        reader = Process(
            "import os; from dpbal.core import LoadTable; from dpbal.transports import Zmq\n"
            f"s = Zmq().subscriber({exchange.address!r}, LoadTable(1))"
        )
        reader.do(
            "def child():\n"
            "    try: s.refresh()\n"
            "    except ValueError as error: return 'another process' in str(error)\n"
            "pid = os.fork()\n"
            "if not pid: os._exit(3 if child() else 4)"
        )
        assert os.waitstatus_to_exitcode(reader.do("os.waitpid(pid, 0)[1]")) == 3
        reader.do("s.refresh()")
        reader.do("s.close() or s.close() or s.refresh()")
        reader.end()


def test_a_closed_publisher_publishes_no_more() -> None:
    with closing(Zmq().create(1, 1)) as exchange:
        publisher = Zmq().publisher(exchange.address, 0)
        publisher.close()
        publisher.close()
        with pytest.raises(ValueError, match="is closed"):
            publisher.publish()


def test_two_hosts_with_a_port_need_no_word_between_them() -> None:
    with closing(Zmq(hosts=["127.0.0.1"]).create(2, 1)) as free:
        port = int(free.address.partition("?")[0].rpartition(":")[2])
    transport = Zmq(hosts=["127.0.0.1", "127.0.0.2"], port=port)
    assert transport.reaches_hosts
    first, second = transport.create(4, 1), transport.create(4, 1)
    assert first.address == second.address
    publishers = [transport.publisher(first.address, rank) for rank in range(4)]
    table = LoadTable(4)
    subscriber = transport.subscriber(second.address, table)
    for rank, publisher in enumerate(publishers):
        publisher.report["running"] = rank
        publisher.publish()
    deadline_s = time.monotonic() + 30
    while table.reports["version"].min() == 0:
        assert time.monotonic() < deadline_s
        subscriber.refresh()
    assert table.reports["running"].tolist() == [0, 1, 2, 3]
    for publisher in publishers:
        publisher.close()
    for end in (subscriber, first, second):
        end.close()


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Zmq(hosts=["*"]), r"'\*', which is no address .*type transport.hosts="),
        (lambda: Zmq(hosts=["127.0.0.1"], port=70_000), "port is 1 to 65535.* got 70000"),
        (lambda: Zmq(port=29_600), "port=29600 is of no use without hosts"),
        (lambda: Zmq(hosts=["a", "b"]).create(3, 1), "3 ranks do not share 2 hosts equally"),
        (
            lambda: Zmq(hosts=["127.0.0.1"], port=65_530).create(4, 1),
            "4 ranks need ports 65530 to 65537, .* type transport.port=65528 or less",
        ),
        (
            lambda: Zmq(hosts=["192.0.2.1"]).create(2, 1),
            "192.0.2.1 is no address of this host; type transport.port=29600",
        ),
    ],
)
def test_settings_that_cannot_be_are_one_clear_line(build: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("dpbal-loads-1-2-3", "is not where a group exchanges messages"),
        ("tcp://nowhere.invalid:29600?ranks=1&dispatchers=1", "no host 'nowhere.invalid' is known"),
        ("tcp://192.0.2.1:29600?ranks=1&dispatchers=1", "rank 0 cannot listen on tcp://192.0.2.1:"),
        ("ipc:///nowhere?ranks=1&dispatchers=1", "exists as long as the process that made it"),
    ],
)
def test_addresses_that_cannot_be_are_one_clear_line(address: str, says: str) -> None:
    with pytest.raises(SocketError, match=says):
        Zmq().publisher(address, 0)


def test_a_folder_with_too_long_a_name_is_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path_factory.mktemp("x" * 90)
    monkeypatch.setattr("tempfile.tempdir", str(base))
    with pytest.raises(SocketError, match=r"may have 107; .* TMPDIR="):
        Zmq().create(2, 1)
    assert list(base.iterdir()) == []


@pytest.mark.parametrize("hosts", [[], ["127.0.0.1"]])
def test_ends_that_could_not_be_made_keep_nothing(hosts: list[str]) -> None:
    transport = Zmq(hosts=hosts)
    with closing(transport.create(2, 1)) as exchange:
        first = transport.vectors(exchange.address, 0)
        for _ in range(3):
            with pytest.raises(DpbalError, match="publishes budget vectors already"):
                transport.vectors(exchange.address, 0)
        first.close()
        again = transport.vectors(exchange.address, 0)
        assert not again.read(0, 0, np.zeros(2, again.own.dtype))
        again.close()
