"""Rules that pick a rank; importing this package registers them all."""

from __future__ import annotations

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.balancers.decode_margin import DecodeMargin
from dpbal.balancers.least_load import LeastLoad, Ties
from dpbal.balancers.power_of_two import PowerOfTwo
from dpbal.balancers.random import Random
from dpbal.balancers.round_robin import RoundRobin
from dpbal.balancers.total_tokens import TotalTokens
from dpbal.balancers.vllm import Vllm
from dpbal.balancers.vllm_native import VllmNative

__all__ = [
    "BALANCERS",
    "Balancer",
    "DecodeMargin",
    "LeastLoad",
    "PowerOfTwo",
    "Random",
    "RoundRobin",
    "Ties",
    "TotalTokens",
    "Vllm",
    "VllmNative",
]
