"""Ranks and dispatchers in networks of their own, as on several hosts, joined by a cable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# run as its user's root, in a network of its own that nothing else is in
TWO_HOSTS = r"""
import subprocess, sys, time
from dpbal.core import LoadTable
from dpbal.transports import Zmq

def run(command):
    subprocess.run(command.split(), check=True)

transport = Zmq(hosts=["10.77.0.1", "10.77.0.2"], port=29600)
exchange = transport.create(4, 1)
RANK = f'''
import sys
print("ready", flush=True)
sys.stdin.readline()
from dpbal.transports import Zmq
transport = Zmq(hosts=["10.77.0.1", "10.77.0.2"], port=29600)
address = transport.create(4, 1).address
ends = []
for rank in map(int, sys.argv[1:]):
    ends.append((transport.publisher(address, rank), transport.vectors(address, rank)))
    publisher, vectors = ends[-1]
    publisher.report["running"] = vectors.own["decode_seqs"] = 10 + rank
    publisher.publish()
print("up", flush=True)
sys.stdin.readline()
for _, vectors in ends:
    vectors.publish(0, 0)
print("said", flush=True)
sys.stdin.readline()
for publisher, vectors in ends:
    publisher.close()
    vectors.close()
sys.stdin.readline()
'''

class Host:
    def __init__(self, number, ranks):
        prefix = ["unshare", "-n"] if number == 2 else []
        command = [*prefix, sys.executable, "-c", RANK, *map(str, ranks)]
        self.popen = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
        self.says("ready")
    def says(self, what):
        assert self.popen.stdout.readline() == what + "\n"
    def go(self):
        print(file=self.popen.stdin, flush=True)

first, second = Host(1, [1]), Host(2, [2, 3])
run("ip link set lo up")
run(f"ip link add cable type veth peer name plug netns {second.popen.pid}")
run("ip addr add 10.77.0.1/24 dev cable")
run("ip link set cable up")
there = f"nsenter -t {second.popen.pid} -n ip"
run(f"{there} addr add 10.77.0.2/24 dev plug")
run(f"{there} link set lo up")
run(f"{there} link set plug up")
first.go(); second.go(); first.says("up"); second.says("up")

table = LoadTable(4)
subscriber = transport.subscriber(exchange.address, table)
publisher = transport.publisher(exchange.address, 0)
publisher.publish()
vectors = transport.vectors(exchange.address, 0)
others = vectors.own.repeat(4)

def until(happens):
    deadline_s = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline_s, (table.reports, table.selectable)
        time.sleep(0.01)
        subscriber.refresh()

until(lambda: table.reports["running"].tolist() == [0, 11, 12, 13])
first.go(); second.go(); first.says("said"); second.says("said")
vectors.own["decode_seqs"] = 10
vectors.publish(0, 0)
until(lambda: vectors.read(0, 0, others))
assert others["decode_seqs"].tolist() == [10, 11, 12, 13]
until(lambda: table.selectable.all())
run("ip link set cable down")
until(lambda: table.selectable.tolist() == [True, True, False, False])
run("ip link set cable up")
until(lambda: table.selectable.all())
second.go()
until(lambda: table.selectable.tolist() == [True, True, False, False])
assert not vectors.read(0, 0, others)
first.go()
until(lambda: table.selectable.tolist() == [True, False, False, False])
for host in (first, second):
    host.go()
    host.popen.wait()
for end in (publisher, vectors, subscriber, exchange):
    end.close()
print("done")
"""


def why_not() -> str | None:
    """Why there can be no two networks here."""
    tried = "ip link add cable type veth peer name plug && unshare -n true && nsenter -t $$ -n true"
    try:
        made = subprocess.run(
            ["unshare", "-Urn", "sh", "-c", tried], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if made.returncode == 0 else made.stderr.strip() or f"exit {made.returncode}"


def test_ranks_of_two_networks_are_heard_while_a_cable_joins_them() -> None:
    if reason := why_not():
        pytest.skip(f"no networks of one's own here: {reason}")
    command = ["unshare", "-Urn", sys.executable, "-c", TWO_HOSTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "done\n", done.stderr
    assert done.stderr == ""
