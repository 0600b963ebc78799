"""What every workload and every file of conf/workload must do."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from dpbal.errors import ConfigError, WorkloadError
from dpbal.workloads import WORKLOADS, Requests, Workload
from dpbal.workloads.trace import FOLDER_VARIABLE, Trace

FILES = sorted((Path(__file__).parents[2] / "conf" / "workload").glob("*.yaml"))
NAMES = sorted(WORKLOADS)

CSV = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i},{i + 5},3\n" for i in range(40))
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{i:02d}.6805900,{i + 5},3\n" for i in range(40)
)
JSONL = "".join(
    f'{{"arrival_s": {i}, "prompt_tokens": {i + 600}, "output_tokens": 3, "block_hashes": [7]}}\n'
    for i in range(40)
)
MOONCAKE = "".join(
    f'{{"timestamp": {i // 4 * 3000}, "input_length": {i + 600}, "output_length": 3, '
    f'"hash_ids": [0, {i + 1}]}}\n'
    for i in range(40)
)
EXAMPLES = {
    "azure_code": AZURE,
    "azure_conv": AZURE,
    "mooncake_conversation": MOONCAKE,
    "trace_csv": CSV,
    "trace_jsonl": JSONL,
}


def params_in(file: Path) -> tuple[str, dict[str, Any]]:
    params = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(params, dict)
    return str(params["name"]), {str(k): v for k, v in params.items() if k != "name"}


@pytest.fixture(params=[file.stem for file in FILES])
def workload(request: pytest.FixtureRequest, tmp_path: Path) -> Workload:
    """Each file of conf/workload, a trace with a small file to read."""
    file = next(file for file in FILES if file.stem == request.param)
    name, params = params_in(file)
    if issubclass(WORKLOADS[name], Trace):
        path = tmp_path / "trace"
        path.write_text(EXAMPLES[name])
        params["path"] = str(path)
    return WORKLOADS.build(name, params)


def columns(requests: Requests) -> list[list[float]]:
    values = dataclasses.asdict(requests).values()
    return [column.tolist() for column in values if isinstance(column, np.ndarray)]


@pytest.mark.parametrize("name", NAMES)
def test_has_a_yaml_that_states_every_default(name: str) -> None:
    file = next((file for file in FILES if file.stem == name), None)
    assert file is not None, f"conf/workload/{name}.yaml is missing"
    assert params_in(file) == (name, dataclasses.asdict(WORKLOADS[name]()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_yaml_states_every_field(file: Path) -> None:
    name, params = params_in(file)
    fields = [field.name for field in dataclasses.fields(WORKLOADS[name])]
    assert list(params) == sorted(params, key=fields.index)
    assert set(params) == set(fields)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_runs_at_85_percent_load_unless_told(file: Path) -> None:
    assert (params_in(file)[1]["rate"], params_in(file)[1]["load"]) == (None, 0.85)


def test_requests_are_well_formed(workload: Workload) -> None:
    requests = workload.generate(seed=1)
    n = len(requests)
    assert requests.arrival_s[0] == 0
    assert (np.diff(requests.arrival_s) >= 0).all()
    assert requests.prompt_tokens.shape == requests.output_tokens.shape == (n,)
    assert requests.prompt_tokens.dtype == requests.output_tokens.dtype == np.int64
    assert requests.prompt_tokens.min() >= 1
    assert requests.output_tokens.min() >= 1
    if requests.hash_offsets is not None:
        assert requests.block_hashes.dtype == np.int64
        hashes = np.diff(requests.hash_offsets)
        assert len(hashes) == n
        assert (hashes >= 0).all()
        assert (hashes <= requests.prompt_tokens // requests.hash_block_tokens).all()
    else:
        assert not requests.has_hashes


def test_iterates_as_the_columns_say(workload: Workload) -> None:
    requests = workload.generate(seed=1)
    rows = list(requests)
    assert [row.id for row in rows] == list(range(len(requests)))
    assert [row.arrival_s for row in rows] == requests.arrival_s.tolist()
    assert [row.prompt_tokens for row in rows] == requests.prompt_tokens.tolist()
    assert {row.max_tokens for row in rows} == {None}, "a balancer must not see the true length"
    if requests.has_hashes:
        hashes = [row.block_hashes for row in rows if row.block_hashes is not None]
        assert len(hashes) == len(requests)
        assert np.concatenate(hashes).tolist() == requests.block_hashes.tolist()


def test_same_seed_same_requests(workload: Workload) -> None:
    assert columns(workload.generate(seed=3)) == columns(workload.generate(seed=3))


def test_other_seed_other_requests(workload: Workload) -> None:
    is_random = not isinstance(workload, Trace) or getattr(workload, "spread_bins", False)
    differs = columns(workload.generate(seed=3)) != columns(workload.generate(seed=4))
    assert differs == is_random


def test_takes_the_first_requests(workload: Workload) -> None:
    workload.requests = 7
    few = workload.generate(seed=2)
    workload.requests = 30
    many = workload.generate(seed=2)
    assert (len(few), len(many)) == (7, 30)
    assert few.prompt_tokens.tolist() == many.prompt_tokens[:7].tolist()
    assert few.output_tokens.tolist() == many.output_tokens[:7].tolist()


def test_rate_stretches_the_gaps_and_nothing_else(workload: Workload) -> None:
    requests = workload.generate(seed=2)
    fast = requests.at_rate(50.0)
    assert fast.rate == pytest.approx(50.0)
    assert fast.arrival_s[0] == 0
    np.testing.assert_allclose(
        np.diff(fast.arrival_s) * 50, np.diff(requests.arrival_s) * requests.rate, atol=1e-9
    )
    assert columns(fast)[1:] == columns(requests)[1:]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rate": -1.0, "load": None}, "rate must be positive, in requests a second, got -1.0"),
        ({"rate": 0.0, "load": None}, "rate must be positive, in requests a second, got 0.0"),
        ({"load": -0.5}, "load must be positive, got -0.5"),
        ({"load": 1.2}, "add workload.allow_overload=true"),
        ({"requests": 0}, "requests must be at least 1, got 0"),
        ({"requests": "many"}, "workload.requests"),
        ({"rates": 3.0}, "did you mean 'rate'?"),
    ],
)
def test_refuses_in_one_line(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        WORKLOADS.build(name, params)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_overload_is_possible_on_purpose(name: str) -> None:
    assert WORKLOADS.build(name, {"load": 1.2, "allow_overload": True}).load == 1.2


@pytest.mark.parametrize("name", [n for n in NAMES if issubclass(WORKLOADS[n], Trace)])
def test_trace_without_a_file_says_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(os.environ, FOLDER_VARIABLE, raising=False)
    trace = WORKLOADS.build(name, {})
    with pytest.raises(WorkloadError, match=r"workload\.path=FILE") as error:
        trace.generate(seed=0)
    file = getattr(trace, "published_file", "")
    assert file in str(error.value)
    assert (FOLDER_VARIABLE in str(error.value)) == bool(file)
