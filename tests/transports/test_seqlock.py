from __future__ import annotations

import re
from typing import Any

import numba
import pytest
from llvmlite import binding

from dpbal.bench import torn
from dpbal.transports.shm import seqlock


def test_no_read_is_torn_beside_writers_that_never_pause() -> None:
    found = torn.count(reads=1_000_000, writers=2, seqlock=True)
    assert (found.reads, found.torn) == (1_000_000, 0)
    assert found.writes > 0


def test_the_same_check_finds_torn_reads_where_the_seqlock_is_taken_out() -> None:
    found = torn.count(reads=1_000_000_000, writers=2, seqlock=False, until_torn=True)
    assert found.torn > 0


WORD = numba.types.int64
RECORD = numba.types.Array(WORD, 1, "C")


def on_arm64(function: Any, *argument_types: Any) -> list[str]:
    """Loads, stores and barriers that LLVM makes of a function for ARM64, in their order."""
    compiled = numba.njit(_nrt=False)(function.py_func)
    compiled.compile(argument_types)
    (code,) = compiled.inspect_llvm().values()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple("aarch64-unknown-linux-gnu")
    machine = target.create_target_machine(opt=2)
    module = binding.parse_assembly(re.sub(r"(?m)^target .*$", "", code))
    module.triple, module.data_layout = target.triple, str(machine.target_data)
    assembly = machine.emit_assembly(module)
    body = re.search(r"(?s)^_ZN5dpbal\w+:\n(.*?)^\.Lfunc_end", assembly, re.MULTILINE)
    assert body, assembly
    lines = [" ".join(line.split()) for line in body[1].splitlines()]
    return [line for line in lines if re.match(r"(ld|st|dmb|cas|swp)", line)]


def barriers(lines: list[str]) -> list[str]:
    return [line for line in lines if not re.match(r"(ldr|ldp|str|stp) ", line)]


@pytest.mark.parametrize(
    ("function", "argument_types"),
    [
        (seqlock.write, (WORD, RECORD)),
        (seqlock.write_state, (WORD, WORD)),
        (seqlock.publish, (WORD, RECORD, WORD, WORD, WORD)),
    ],
)
def test_on_arm64_a_write_is_between_an_odd_sequence_and_an_even_one(
    function: Any, argument_types: Any
) -> None:
    lines = on_arm64(function, *argument_types)
    fence, closing = barriers(lines)
    assert fence == "dmb ish"  # what is stored below is seen after what was stored above
    closed = re.fullmatch(r"stlr x\d+, \[(x\d+)\]", closing)  # and this after all of it
    assert closed
    opening = re.compile(rf"str x\d+, \[{closed[1]}\]")
    assert any(opening.fullmatch(line) for line in lines[: lines.index(fence)])
    payload = lines[lines.index(fence) + 1 : lines.index(closing)]
    assert any(line.startswith("str ") for line in payload)


def test_on_arm64_a_copy_is_between_two_looks_at_the_sequence() -> None:
    lines = on_arm64(seqlock.read, WORD, RECORD, WORD)
    first, *_ = barriers(lines)
    assert set(barriers(lines)) == {first, "dmb ishld"}
    looked = re.fullmatch(r"(?:ldar|ldapr) x\d+, \[(x\d+)\]", first)
    assert looked
    fence = lines.index("dmb ishld")
    copied = lines[lines.index(first) + 1 : fence]
    assert any(line.startswith("ldr ") for line in copied)
    for k, line in enumerate(lines):
        if line == "dmb ishld":  # the loads of the copy are done before the second look
            assert re.fullmatch(rf"ldr x\d+, \[{looked[1]}\]", lines[k + 1])
