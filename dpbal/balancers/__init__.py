"""Rules that pick a rank; importing this package registers them all."""

from __future__ import annotations

from dpbal.balancers.base import BALANCERS, Balancer
from dpbal.balancers.cache_aware import CacheAware, OnMiss
from dpbal.balancers.consistent_hash import ConsistentHash
from dpbal.balancers.decode_margin import DecodeMargin
from dpbal.balancers.dynamo import Dynamo
from dpbal.balancers.least_load import LeastLoad
from dpbal.balancers.llm_d import LlmD
from dpbal.balancers.lmetric import LMetric
from dpbal.balancers.marginal_prefill import MarginalPrefill
from dpbal.balancers.power_of_two import PowerOfTwo
from dpbal.balancers.random import Random
from dpbal.balancers.round_robin import RoundRobin
from dpbal.balancers.session_affinity import SessionAffinity
from dpbal.balancers.smallest import Smallest, Ties
from dpbal.balancers.tensorrt_llm import TensorrtLlm
from dpbal.balancers.total_tokens import TotalTokens
from dpbal.balancers.vllm import Vllm
from dpbal.balancers.vllm_native import VllmNative

__all__ = [
    "BALANCERS",
    "Balancer",
    "CacheAware",
    "ConsistentHash",
    "DecodeMargin",
    "Dynamo",
    "LMetric",
    "LeastLoad",
    "LlmD",
    "MarginalPrefill",
    "OnMiss",
    "PowerOfTwo",
    "Random",
    "RoundRobin",
    "SessionAffinity",
    "Smallest",
    "TensorrtLlm",
    "Ties",
    "TotalTokens",
    "Vllm",
    "VllmNative",
]
