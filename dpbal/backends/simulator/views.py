"""Hands all arrays to the compiled core as one argument, and opens them there as plain views.

A call with two dozen arrays spends microseconds on unpacking them and on their reference counts,
more than a step takes. The core gets their addresses instead; the caller keeps them alive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from dpbal.backends.base import STEP_RECORD
from dpbal.backends.simulator.layout import (
    BLOCK,
    CACHE_EVENT,
    CLOCK,
    RANK,
    REQUEST,
    SPEC,
    State,
)
from dpbal.core import REPORT
from dpbal.jit import njit_making_arrays
from dpbal.step_time import COSTS


def addresses(state: State) -> np.ndarray:
    """``int64[fields, 4]``: address and up to three dimensions of each array of ``state``.

    The arrays must be contiguous, and outlive every use of the result.
    """
    table = np.zeros((len(state), 4), np.int64)
    for row, (name, array) in zip(table, state._asdict().items(), strict=True):
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} is not contiguous")
        row[0] = array.ctypes.data
        row[1 : 1 + array.ndim] = array.shape
    return table


@intrinsic
def _pointer(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@njit_making_arrays
def open_views(t: np.ndarray) -> State:
    """The arrays behind ``addresses``, in the order of ``State``."""
    return State(
        carray(_pointer(t[0, 0]), (t[0, 1],), SPEC),
        carray(_pointer(t[1, 0]), (t[1, 1],), COSTS),
        carray(_pointer(t[2, 0]), (t[2, 1],), COSTS),
        carray(_pointer(t[3, 0]), (t[3, 1],), CLOCK),
        carray(_pointer(t[4, 0]), (t[4, 1],), REQUEST),
        carray(_pointer(t[5, 0]), (t[5, 1],), RANK),
        carray(_pointer(t[6, 0]), (t[6, 1], t[6, 2]), np.int64),
        carray(_pointer(t[7, 0]), (t[7, 1],), STEP_RECORD),
        carray(_pointer(t[8, 0]), (t[8, 1],), np.float64),
        carray(_pointer(t[9, 0]), (t[9, 1],), np.int64),
        carray(_pointer(t[10, 0]), (t[10, 1],), np.int64),
        carray(_pointer(t[11, 0]), (t[11, 1],), np.float64),
        carray(_pointer(t[12, 0]), (t[12, 1], t[12, 2]), np.int64),
        carray(_pointer(t[13, 0]), (t[13, 1],), REPORT),
        carray(_pointer(t[14, 0]), (t[14, 1], t[14, 2]), np.int64),
        carray(_pointer(t[15, 0]), (t[15, 1],), np.int64),
        carray(_pointer(t[16, 0]), (t[16, 1], t[16, 2]), np.float64),
        carray(_pointer(t[17, 0]), (t[17, 1], t[17, 2]), REPORT),
        carray(_pointer(t[18, 0]), (t[18, 1], t[18, 2], t[18, 3]), np.int64),
        carray(_pointer(t[19, 0]), (t[19, 1],), np.int64),
        carray(_pointer(t[20, 0]), (t[20, 1], t[20, 2]), BLOCK),
        carray(_pointer(t[21, 0]), (t[21, 1], t[21, 2]), np.int64),
        carray(_pointer(t[22, 0]), (t[22, 1], t[22, 2]), np.int64),
        carray(_pointer(t[23, 0]), (t[23, 1],), np.bool_),
        carray(_pointer(t[24, 0]), (t[24, 1],), np.int64),
        carray(_pointer(t[25, 0]), (t[25, 1],), CACHE_EVENT),
        carray(_pointer(t[26, 0]), (t[26, 1],), np.float64),
    )
