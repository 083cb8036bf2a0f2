"""Logs and whole runs on S3: against a real S3 API on loopback, and the same as on a disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.schema import Run
from tests.support.click_log import synthetic_lines, write_log
from tests.support.commands import run_python, run_torchrun
from tests.support.runs import SMALL_PATH, small_run
from tests.support.s3 import needs_s3, s3_api
from tests.support.training import score_run, train_run
from tests.unit.trainer.ranks import one_rank
from tools.prepare_criteo import main as prepare
from trainer.failures import guard
from trainer.main import main

pytestmark = needs_s3

RUN = "s3://models/team/run"
TRAIN = ("trainer/main.py", "--config", str(SMALL_PATH), '--run.device="cpu"')


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An S3 API, and the environment that leads to it."""
    with s3_api(tmp_path_factory.mktemp("cache")) as client:
        for bucket in ("clicks", "models"):
            client.create_bucket(Bucket=bucket)
        yield client


def keys(client: Any, prefix: str) -> list[str]:
    """What lies below a prefix of the bucket of models."""
    found = client.list_objects_v2(Bucket="models", Prefix=prefix).get("Contents", [])
    return [entry["Key"].removeprefix(prefix) for entry in found]


def body(client: Any, key: str) -> bytes:
    return bytes(client.get_object(Bucket="models", Key=key)["Body"].read())


@pytest.mark.parametrize("packed", [False, True])
def test_a_log_on_s3_is_prepared_as_a_local_one(client: Any, packed: bool, tmp_path: Path) -> None:
    name = "day_0.gz" if packed else "day_0.tsv"
    local = write_log(tmp_path / "logs" / name, synthetic_lines(3_000))
    client.upload_file(local, "clicks", f"logs/{name}")
    remote = f"s3://clicks/logs/{name}"
    for source, output in ((local, "from_disk"), (remote, "from_s3")):
        assert prepare(["--input", source, "--output", str(tmp_path / output)]) == 0
    for file in (tmp_path / "from_disk").glob("*.npy"):
        assert file.read_bytes() == (tmp_path / "from_s3" / file.name).read_bytes(), file.name


def test_the_program_prepares_from_s3(client: Any, tmp_path: Path) -> None:
    client.upload_file(write_log(tmp_path / "day_0.tsv", synthetic_lines(300)), "clicks", "small/day_0.tsv")
    words = ("--input", "s3://clicks/small/day_0.tsv", "--output", str(tmp_path / "out"))
    done = run_python("tools/prepare_criteo.py", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "manifest.json").exists()


def test_an_object_that_is_not_there(client: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert prepare(["--input", "s3://nowhere/day_0.tsv", "--output", str(tmp_path / "out")]) == 2
    said = capfd.readouterr().err
    assert "s3://nowhere/day_0.tsv" in said and "Traceback" not in said


@pytest.fixture(scope="module")
def trained(client: Any) -> str:
    """A run of 2 ranks on S3, 6 steps, a checkpoint after every second; gives what it said."""
    done = run_torchrun(*TRAIN, f"--run.folder={RUN}", "--checkpoint.every.steps=2", ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_on_s3_leaves_all_that_a_local_one_does(client: Any, trained: str) -> None:
    below = keys(client, "team/run/")
    assert {"run.toml", "plan.json", "outcome.json", "metrics.jsonl"} <= set(below)
    assert json.loads(body(client, "team/run/outcome.json"))["exit_code"] == 0
    lines = [json.loads(line) for line in body(client, "team/run/metrics.jsonl").decode().splitlines()]
    assert [line["step"] for line in lines] == [4, 6, 6]
    assert any(key.startswith("tensorboard/events.out.tfevents.") for key in below)
    assert f"run folder: {RUN}" in trained
    checkpoints = {key.split("/")[1] for key in below if key.startswith("checkpoints/")}
    assert checkpoints == {"step_0000000004", "step_0000000006"}, "keep_last is 2"
    assert [line.split()[1] for line in trained.splitlines() if line.startswith("checkpoint: ")] == [
        f"{RUN}/checkpoints/step_{step:010d}" for step in (2, 4, 6)
    ]


def test_a_run_on_s3_goes_on_past_a_damaged_checkpoint(
    client: Any, trained: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for entry in client.list_objects_v2(Bucket="models", Prefix="team/run/")["Contents"]:
        copied = entry["Key"].replace("team/run/", "team/second/")
        client.copy_object(Bucket="models", Key=copied, CopySource={"Bucket": "models", "Key": entry["Key"]})
    newest = "team/second/checkpoints/step_0000000006/"
    damaged = f"{newest}state/rank_1_0.safetensors"
    content = bytearray(body(client, damaged))
    content[len(content) // 2] ^= 1
    client.put_object(Bucket="models", Key=damaged, Body=bytes(content))
    second = "s3://models/team/second"
    assert guard(main, [*TRAIN[1:], f"--run.folder={second}", "--train.until={steps = 8}"]) == 0
    said = capfd.readouterr().out
    assert f"passing over a checkpoint: s3://models/{damaged} is damaged: its bytes are not those written;" in said
    resuming = f"resuming from {second}/checkpoints/step_0000000004: step 4, "
    assert any(line.startswith(resuming) for line in said.splitlines())
    left = {key.split("/")[0] for key in keys(client, "team/second/checkpoints/")}
    assert left == {"step_0000000004", "step_0000000008"}
    lines = [json.loads(line) for line in body(client, "team/second/metrics.jsonl").decode().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 8]


def test_a_local_run_starts_from_a_checkpoint_on_s3(
    client: Any, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = f"{RUN}/checkpoints/step_0000000006"
    words = (f"--checkpoint.start_from={checkpoint}", f"--members.dot.weights_from={checkpoint}#dot")
    with one_rank(Run(device="cpu")) as runtime:
        state, progress = train_run(runtime, small_run(*words, "--train.until={steps = 1}"), str(tmp_path / "run"))
    assert progress["step"] == 1 and state
    said = capsys.readouterr().out
    assert f"started from {checkpoint} (step 6): members deep, cross, dot, factor and " in said
    assert f"members.dot: weights and 26 tables from {checkpoint}#dot (step 6)" in said


def test_a_checkpoint_on_s3_scores_to_s3(client: Any, trained: str) -> None:
    with one_rank(Run(device="cpu")) as runtime:
        score_run(runtime, small_run(), f"{RUN}/checkpoints/step_0000000006", "s3://models/team/scores")
    manifest = json.loads(body(client, "team/scores/manifest.json"))
    assert manifest["num_rows"] == 50
    files = [file["path"] for file in manifest["files"]]
    assert sorted(keys(client, "team/scores/")) == sorted(["manifest.json", *files])


def test_a_bucket_that_is_not_there_is_a_sentence(client: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code = guard(main, [*TRAIN[1:], "--run.folder=s3://nowhere/run"])
    assert (code, capfd.readouterr().err) == (1, "error: s3://nowhere/run: Not Found (S3: 404)\n")
