from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dpbal
from dpbal.calibration.cli import main
from dpbal.calibration.fit import ALL, COMMON, LOCAL
from dpbal.calibration.samples import WORK, Samples
from dpbal.calibration.tables import LAUNCH_S, Tables
from dpbal.parts import build_step_time
from dpbal.step_time import StepTime
from tests.calibration import tables
from tests.calibration.steps import TRUE, samples, work

Run = Callable[..., tuple[str, str, int]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: str | Path) -> tuple[str, str, int]:
        code = 0
        try:
            main([str(part) for part in argv])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, error = capsys.readouterr()
        return out, error, code

    return call


def rows(measured: Samples) -> pl.DataFrame:
    """A row a step and rank, as engines write them: idle ranks have none."""
    steps, ranks = np.nonzero(measured.is_busy)
    columns = {"step": steps, "rank": ranks, "step_s": measured.step_s[steps]}
    columns |= {name: measured.work[steps, ranks, at] for at, name in enumerate(WORK)}
    if measured.local_s is not None:
        columns["local_s"] = measured.local_s[steps, ranks]
    return pl.DataFrame(columns)


def made(folder: Path) -> StepTime:
    """The profile ``mine`` below a folder of configs, as a run reads it."""
    return build_step_time(dpbal.compose("profile=mine", config_dir=folder).profile)


def near(step_time: StepTime, rel: float, names: tuple[str, ...] = ALL) -> bool:
    return all(
        getattr(step_time, name) == pytest.approx(getattr(TRUE, name), rel=rel) for name in names
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_run_uses_the_profile_that_a_group_s_steps_make(
    suffix: str, tmp_path: Path, run: Run
) -> None:
    file, profile = tmp_path / f"steps.{suffix}", tmp_path / "profile" / "mine.yaml"
    profile.parent.mkdir()
    table = rows(samples(work(800, 8), noise=0.03, has_local=True))
    table.write_csv(file) if suffix == "csv" else table.write_parquet(file)
    out, error, code = run(
        "steps", file, "--model", "Mine", "--device", "8 x X", "--output", profile
    )
    assert (error, code) == ("", 0)
    step_time = made(tmp_path)
    assert near(step_time, 0.1)
    assert (step_time.model, step_time.device) == ("Mine", "8 x X")
    assert {step_time.evidence[name] for name in ALL} == {"fitted"}
    assert step_time.evidence["kv_capacity_tokens"] == "kept from the default profile"
    assert "mixed steps" in step_time.error
    counts = [int(word) for word in out.split("Steps: ")[1].split() if word.isdigit()]
    assert sum(counts) == len(work(800, 8))


def test_what_whole_steps_do_not_tell_is_the_priors_and_says_so(tmp_path: Path, run: Run) -> None:
    file = tmp_path / "steps.csv"
    rows(samples(work(800, 8), noise=0.03)).write_csv(file)
    out, _, code = run("steps", file, "--prior", "lds_prototype")
    assert code == 0
    (kept,) = [name for name in ("fixed_s", "common_fixed_s") if f"# {name} is kept" in out]
    assert f'{kept}: "kept from lds_prototype: its work rises and falls with' in out
    value = {"fixed_s": "6.0e-3", "common_fixed_s": "20.0e-3"}[kept]
    assert f"\n{kept}: {value}\n" in out


def test_replicas_have_no_common_part(tmp_path: Path, run: Run) -> None:
    replica = StepTime(
        fixed_s=8e-3, prefill_s_per_token=50e-6, decode_s_per_seq=45e-6, kv_s_per_token=20e-9
    )
    file, profile = tmp_path / "steps.csv", tmp_path / "profile" / "mine.yaml"
    profile.parent.mkdir()
    table = rows(samples(work(800, 1), replica, noise=0.03)).drop("rank", "step")
    table.write_csv(file)
    _, error, _ = run("steps", file, "--kind", "independent", "--output", profile)
    assert not error
    step_time = made(tmp_path)
    assert (step_time.common_fixed_s, step_time.common_s_per_token) == (0, 0)
    for name in ("fixed_s", "prefill_s_per_token", "decode_s_per_seq", "kv_s_per_token"):
        assert getattr(step_time, name) == pytest.approx(getattr(replica, name), rel=0.1)


def test_the_clock_of_emulated_engines_is_set_right(tmp_path: Path, run: Run) -> None:
    file, profile = tmp_path / "steps.csv", tmp_path / "profile" / "mine.yaml"
    profile.parent.mkdir()
    table = rows(samples(work(600, 4), noise=0.02, has_local=True))
    table.with_columns(pl.col("step_s") * 3).write_csv(file)
    run("steps", file, "--dilation", "3", "--output", profile)
    assert near(made(tmp_path), 0.1)


def changed(**columns: pl.Expr) -> pl.DataFrame:
    return rows(samples(work(60, 2))).with_columns(**columns)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (changed().drop("pairs", "step_s"), "has no column pairs, step_s; columns: prefill_tokens"),
        (changed().drop("rank"), "has no column rank"),
        (changed(pairs=pl.lit("many")), "column pairs of FILE must hold a number in every row"),
        (changed(pairs=pl.lit(float("nan"))), "column pairs of FILE must hold a number"),
        (changed(step_s=pl.lit(-1.0)), "column step_s of FILE has a negative number, -1.0"),
        (changed(step_s=pl.lit(0.0)), "column step_s of FILE has a step that took no time"),
        (
            changed(local_s=pl.when(pl.col("step") == 7).then(0.0).otherwise(0.01)),
            "column local_s of FILE has a rank with tokens that took no time",
        ),
        (changed(rank=pl.lit(0), step=pl.lit(0)), "FILE has two rows of the same step and rank"),
        (changed().filter(pl.col("step") < 9), "steps are too few for a fit; give at least 20"),
        (
            changed(prefill_tokens=pl.lit(0), decode_seqs=pl.lit(0)),
            "FILE holds no step with tokens",
        ),
    ],
)
def test_a_table_that_will_not_do_is_one_line(
    table: pl.DataFrame, message: str, tmp_path: Path, run: Run
) -> None:
    file = tmp_path / "steps.csv"
    table.write_csv(file)
    out, error, code = run("steps", file)
    assert (out, code, error.count("\n")) == ("", 2, 1)
    assert error.startswith("dpbal-calibrate: ")
    assert message in error.replace(str(file), "FILE")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["steps", "nowhere.csv"], "nowhere.csv does not exist; give a csv or parquet file"),
        (["steps", "."], "no steps of engines in .; expected steps.0, steps.1"),
        (["steps", "bad.parquet"], "cannot read bad.parquet as csv or parquet"),
        (["steps", "x.csv", "--prior", "lds"], "unknown profile 'lds'. Known: deepseek"),
        (["steps", "x.csv", "--output", "no/x.yaml"], "the folder of no/x.yaml does not exist"),
        (["steps", "x.csv", "--dilation", "0"], "expected a number above 0, got '0'"),
        (["steps", "x.csv", "--kind", "loose"], "invalid choice: 'loose' (choose from"),
        (["tables", "nowhere"], "nowhere does not exist; give the folder of aiconfigurator_core"),
        (["tables", "aic", "--system", "h20"], "no tables of system h20 in aic; known: h200_sxm"),
        (["tables", "aic", "--engine", "sglang"], "no table mla_context_module_perf of sglang"),
        (["tables", "aic", "--ranks", "16"], "no row with moe_dtype=fp8_block"),
        (["tables", "aic", "--cache", "fp8"], "no row with num_heads=128"),
        (["tables", "aic", "--architecture", "gpt"], "invalid choice: 'gpt' (choose from"),
        (
            ["tables", "aic", "--architecture", "llama31_70b", "--devices", "3"],
            "3 devices cannot share 8 KV heads evenly",
        ),
        (["tables", "."], "no tables of system h200_sxm in .; give the folder of"),
        (
            ["tables", "aic", "--weights", "fp7"],
            "unknown type of weights 'fp7'; did you mean 'fp8'",
        ),
        (["tables", "aic", "--devices", "2"], "deepseek_v3 has no --devices; leave it out"),
        (
            ["tables", "aic", "--architecture", "llama31_8b", "--exchange-ranks", "4"],
            "llama31_8b has no --exchange-ranks; leave it out",
        ),
        (
            ["tables", "aic", "--max-prefill-tokens", "1", "--kv-capacity-tokens", "1"],
            "0 steps are",
        ),
        ([], "required: COMMAND; type dpbal-calibrate --help"),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str], message: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tables.write(tmp_path / "aic")
    Path("bad.parquet").write_text("not parquet")
    out, error, code = run(*argv)
    assert (out, code, error.count("\n")) == ("", 2, 1)
    assert message in error


def test_operators_add_up_to_local_and_common_constants(tmp_path: Path, run: Run) -> None:
    (tmp_path / "profile").mkdir()
    output = tmp_path / "profile" / "mine.yaml"
    _, error, code = run("tables", tables.write(tmp_path / "aic"), "--output", output)
    assert (error, code) == ("", 0)
    step_time = made(tmp_path)
    ms = {name: 1e3 * getattr(step_time, name) for name in (*LOCAL, *COMMON)}
    # a product of widths n and k takes n k 1e-12 ms a row; layers: 58 with experts, 3 without
    shared, dense, logits = 3 * 2048 * 7168e-12, 3 * 18_432 * 7168e-12, 129_280 * 7168e-12
    feed_forward = 58 * (shared + 256 * 7168e-12) + 3 * dense
    token = 61 * tables.TOKEN_MS + feed_forward
    assert ms["prefill_s_per_token"] == pytest.approx(token, rel=0.1)
    assert ms["attention_s_per_pair"] == pytest.approx(61 * tables.PAIR_MS, rel=0.1)
    assert ms["kv_s_per_token"] == pytest.approx(61 * tables.KV_MS, rel=0.1)
    decode = token + 61 * (tables.SEQ_MS - tables.TOKEN_MS) + logits
    assert ms["decode_s_per_seq"] == pytest.approx(decode, rel=0.1)
    assert ms["common_fixed_s"] == pytest.approx(58 * tables.EXPERT_FIXED_MS, rel=0.05)
    common = 8 * 58 * (tables.EXPERT_TOKEN_MS + 2 * 7168e-9)
    assert ms["common_s_per_token"] == pytest.approx(common, rel=0.05)


def test_a_replica_pays_for_its_own_operators_alone(tmp_path: Path, run: Run) -> None:
    (tmp_path / "profile").mkdir()
    output = tmp_path / "profile" / "mine.yaml"
    folder = tables.write(tmp_path / "aic")
    argv = ["tables", folder, "--architecture", "llama31_70b", "--devices", "4"]
    assert run(*argv, "--output", output)[1:] == ("", 0)
    step_time = made(tmp_path)
    assert (step_time.common_fixed_s, step_time.common_s_per_token) == (0, 0)
    assert step_time.evidence["common_fixed_s"].startswith("guessed: no common part")
    assert 1e3 * step_time.attention_s_per_pair == pytest.approx(80 * tables.PAIR_MS, rel=0.05)
    assert 1e3 * step_time.kv_s_per_token == pytest.approx(80 * tables.KV_MS, rel=0.05)
    widths = (2560 * 8192, 8192 * 2048, 14_336 * 8192, 8192 * 7168)  # of a device
    token = 80 * (sum(widths) * 1e-12 + 2e-9 * 8192)
    assert 1e3 * step_time.prefill_s_per_token == pytest.approx(token, rel=0.05)


ATTENTION, GEMM = "attention/vllm/0.24.0/context_attention_perf", "gemm/vllm/0.24.0/gemm_perf"


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        (ATTENTION, {"num_heads": pl.lit("many")}, "column num_heads of table context_attention"),
        (ATTENTION, {"isl": pl.lit("long")}, "column isl of table context_attention_perf below"),
        (ATTENTION, {"latency": pl.lit("?")}, "column latency of table context_attention_perf"),
        (ATTENTION, {"latency": pl.lit(0.0)}, "has a time that is not above 0"),
        (GEMM, {"gemm_dtype": pl.lit(16)}, "column gemm_dtype of table gemm_perf below"),
        (GEMM, {"n": pl.lit(4096)}, "has no two widths n with gemm_dtype=bfloat16, m=8192"),
        (GEMM, {"m": pl.lit(1)}, "has no two widths n with gemm_dtype=bfloat16, m=8192"),
    ],
)
def test_an_operator_table_that_will_not_do_is_one_line(
    name: str, columns: dict[str, pl.Expr], message: str, tmp_path: Path, run: Run
) -> None:
    folder = tables.write(tmp_path / "aic")
    path = folder / "systems" / "data" / "h200_sxm" / f"{name}.parquet"
    pl.read_parquet(path).with_columns(**columns).write_parquet(path)
    out, error, code = run("tables", folder, "--architecture", "llama31_70b", "--devices", "4")
    assert (out, code, error.count("\n")) == ("", 2, 1)
    assert message in error


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            f"data/h200_sxm/{GEMM}.parquet",
            "version https://git-lfs.github.com/",
            "type git lfs pull",
        ),
        (f"data/h200_sxm/{GEMM}.parquet", "none", "as csv or parquet"),
        ("h200_sxm.yaml", "gpu: {mem: 3}", "must give gpu.mem_bw"),
        ("h200_sxm.yaml", "gpu: {mem_bw: fast}", "must give gpu.mem_bw"),
        ("h200_sxm.yaml", "gpu: [", "must give gpu.mem_bw"),
        ("h200_sxm.yaml", "", "must give gpu.mem_bw"),
    ],
)
def test_an_operator_file_that_cannot_be_read_is_one_line(
    name: str, text: str, message: str, tmp_path: Path, run: Run
) -> None:
    folder = tables.write(tmp_path / "aic")
    (folder / "systems" / name).write_text(text)
    out, error, code = run("tables", folder)
    assert (out, code, error.count("\n")) == ("", 2, 1)
    assert message in error


def test_weights_of_four_bits_are_read_faster(tmp_path: Path) -> None:
    folder = tables.write(tmp_path / "aic")
    (folder / "systems" / "h200_sxm.yaml").write_text("gpu: {mem_bw: 1.0e12}\n")
    data = folder / "systems" / "data" / "h200_sxm"
    path = data / f"{GEMM}.parquet"
    gemm = pl.read_parquet(path).filter(gemm_dtype="bfloat16")
    kinds = ("bfloat16", "fp8", "int4_wo", "nvfp4")
    pl.concat([gemm.with_columns(gemm_dtype=pl.lit(kind)) for kind in kinds]).write_parquet(path)
    products = [Tables(data, "vllm").product(kind, 8192, 8192) for kind in kinds]
    seconds = [product.weights_s - LAUNCH_S for product in products]
    assert seconds == pytest.approx([seconds[1] * size for size in (2, 1, 0.5, 0.5625)])


def test_a_fit_that_does_not_settle_says_so(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "steps.csv"
    rows(samples(work(300, 8), noise=0.03)).write_csv(file)
    remark = "# The fit was stopped while its constants still moved"
    assert remark not in run("steps", file)[0]
    monkeypatch.setattr("dpbal.calibration.fit.ROUNDS", 1)
    assert remark in run("steps", file)[0]


def test_the_newest_version_of_a_table_counts(tmp_path: Path, run: Run) -> None:
    folder = tables.write(tmp_path / "aic", "0.9.0", slower=100)
    tables.write(tmp_path / "aic", "0.24.0")
    out, _, code = run("tables", folder)
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("attention_s_per_pair")]
    assert float(line.split()[1]) == pytest.approx(61e-3 * tables.PAIR_MS, rel=0.1)
