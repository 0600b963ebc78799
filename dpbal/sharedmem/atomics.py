"""Atomic loads, stores, additions and fences on int64 words, for functions under ``njit``.

The orders are those of C11; LLVM makes of them what the processor needs: plain moves on x86-64,
``ldar``, ``stlr`` and ``dmb`` on ARM64, and for an addition one locked instruction or a loop. An
address must be a multiple of 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dpbal.sharedmem.segment import WORD_BYTES

_WORD = ir.IntType(64)


def _load(ordering: str) -> Callable[[int], int]:
    def load(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], _WORD.as_pointer())
            return builder.load_atomic(pointer, ordering, WORD_BYTES)

        return types.int64(types.int64), generate

    compiled: Callable[[int], int] = intrinsic(load)
    return compiled


def _store(ordering: str) -> Callable[[int, int], None]:
    def store(context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], _WORD.as_pointer())
            builder.store_atomic(args[1], pointer, ordering, WORD_BYTES)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    compiled: Callable[[int, int], None] = intrinsic(store)
    return compiled


def _add(ordering: str) -> Callable[[int, int], int]:
    def add(context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], _WORD.as_pointer())
            return builder.atomic_rmw("add", pointer, args[1], ordering)

        return types.int64(types.int64, types.int64), generate

    compiled: Callable[[int, int], int] = intrinsic(add)
    return compiled


def _fence(ordering: str) -> Callable[[], None]:
    def fence(context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.fence(ordering)
            return context.get_dummy_value()

        return types.void(), generate

    compiled: Callable[[], None] = intrinsic(fence)
    return compiled


load_acquire = _load("acquire")
"""The word at an address; nothing after it in the program is done before."""

load_relaxed = _load("monotonic")
"""The word at an address, whole, in no particular order with others."""

store_release = _store("release")
"""Put a word at an address; everything before it in the program is done by then."""

store_relaxed = _store("monotonic")
"""Put a word at an address, whole, in no particular order with others."""

add = _add("seq_cst")
"""Add to the word at an address whatever others add to it meanwhile; the word before."""

fence_acquire = _fence("acquire")
"""Loads before it are done before any load or store after it."""

fence_release = _fence("release")
"""Loads and stores before it are done before any store after it."""
