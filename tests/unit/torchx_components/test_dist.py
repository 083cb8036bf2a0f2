"""The launch lines: what `torchx run` makes of them, up to torchrun's command."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from torchx import specs
from torchx.components import dist as stock
from torchx.runner import get_runner
from torchx.specs.finder import ComponentValidationException, ModuleComponentsFinder, get_components

from torchx_components import dist

ROOT = Path(__file__).resolve().parents[3]
TORCHX = Path(sys.executable).absolute().parent / "torchx"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of an activated .venv, whatever the tests were started with."""
    monkeypatch.setenv("PATH", f"{TORCHX.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def dry_run(component: str, *arguments: str) -> specs.Role:
    """Returns the single role of a job as a scheduler starts it, TorchX's macros replaced."""
    with get_runner() as runner:
        info = runner.dryrun_component(component, list(arguments), scheduler="local_cwd")
    assert info._app is not None
    (role,) = info._app.roles
    return specs.macros.Values(img_root="", app_id="app", replica_id="0", rank0_env="RANK0").apply(role)


def torchrun_command(role: specs.Role) -> list[str]:
    """Returns the words of torchrun's command."""
    assert role.entrypoint == "bash"
    flag, command = role.args
    assert flag == "-c"
    return shlex.split(command)


def test_the_literal_line():
    role = dry_run("dist.ddp", "-j", "1x8", "trainer/main.py")
    words = torchrun_command(role)
    assert words[0] == "torchrun"
    assert words[words.index("--nnodes") + 1] == "1"
    assert words[words.index("--nproc_per_node") + 1] == "8"
    assert words[words.index("--rdzv_endpoint") + 1] == "localhost:0"
    assert words[-3:] == ["--role", "", "trainer/main.py"]
    assert role.num_replicas == 1


@pytest.mark.parametrize(
    "given",
    [
        ["trainer/main.py", "--config", "configs/demo.toml", "--train.batch_size=64"],
        ["trainer/main.py", "--", "--config", "configs/demo.toml", "--train.batch_size=64"],
        ["--", "trainer/main.py", "--config", "configs/demo.toml", "--train.batch_size=64"],
        ["--script", "trainer/main.py", "--", "--config", "configs/demo.toml", "--train.batch_size=64"],
    ],
)
def test_config_and_overrides_reach_the_script_whichever_way_it_is_named(given):
    words = torchrun_command(dry_run("dist.ddp", "-j", "1x2", *given))
    assert words[words.index("--nproc_per_node") + 1] == "2"
    assert words[words.index("trainer/main.py") - 1] == ""
    assert words[words.index("trainer/main.py") :] == [
        "trainer/main.py",
        "--config",
        "configs/demo.toml",
        "--train.batch_size=64",
    ]


def test_values_with_spaces_and_quotes_stay_one_word():
    value = "--members.deep.arch={ kind = 'mlp', hidden = [8, 4] }"
    assert torchrun_command(dry_run("dist.ddp", "-j", "1x1", "trainer/main.py", value))[-1] == value


def test_only_the_first_dashes_are_dropped():
    words = torchrun_command(dry_run("dist.ddp", "trainer/main.py", "--", "a", "--", "b"))
    assert words[words.index("trainer/main.py") :] == ["trainer/main.py", "a", "--", "b"]


def test_a_module():
    words = torchrun_command(dry_run("dist.ddp", "-j", "1x2", "-m", "trainer.main", "--", "--config", "x.toml"))
    assert words[words.index("-m") :] == ["-m", "trainer.main", "--config", "x.toml"]


def test_two_nodes():
    role = dry_run("dist.ddp", "-j", "2x4", "trainer/main.py")
    words = torchrun_command(role)
    assert role.num_replicas == 2
    assert words[words.index("--nnodes") + 1] == "2"
    assert words[words.index("--nproc_per_node") + 1] == "4"
    assert words[words.index("--rdzv_endpoint") + 1] == "${RANK0:=localhost}:29500"


def test_the_job_is_stock_torchx_s_but_for_threads_and_restarts():
    """Nothing of the stock job is lost: the same call, script by position against script by keyword."""
    ours = dist.ddp("trainer/main.py", "--a=b", j="2x4", name="x/y", env={"A": "1"}, max_retries=2, rdzv_port=1234)
    theirs = stock.ddp(
        "--a=b", script="trainer/main.py", j="2x4", name="x/y", env={"A": "1"}, max_retries=2, rdzv_port=1234
    )
    assert ours.roles[0].env.pop("OMP_NUM_THREADS") == "1"
    assert ours.roles[0].env.pop("PET_MAX_RESTARTS") == "2"
    assert ours == theirs


def test_retries_are_torchruns_restarts_too_unless_given():
    assert "PET_MAX_RESTARTS" not in dry_run("dist.ddp", "a.py").env
    for words in (("dist.ddp", "a.py"), ("dist.spmd", "-h", "l4_24gb_1", "a.py")):
        role = dry_run(words[0], "--max_retries", "4", *words[1:])
        assert (role.env["PET_MAX_RESTARTS"], role.max_retries) == ("4", 4)
    role = dry_run("dist.ddp", "--max_retries", "4", "--env", "PET_MAX_RESTARTS=0", "a.py")
    assert (role.env["PET_MAX_RESTARTS"], role.max_retries) == ("0", 4)


def test_a_lost_rank_is_restarted_with_nobody_watching(tmp_path):
    """The local scheduler retries nothing: torchrun does, as often as --max_retries says."""
    (tmp_path / "program.py").write_text(
        "import os, pathlib, signal\n"
        "attempt, rank = os.environ['TORCHELASTIC_RESTART_COUNT'], os.environ['RANK']\n"
        "if attempt == '0' and rank == '1':\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "pathlib.Path(f'attempt_{attempt}_rank_{rank}').touch()\n"
    )
    line = f"{TORCHX} run -s local_cwd dist.ddp -j 1x2 --max_retries 1 program.py"
    done = subprocess.run(line.split(), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("attempt_1_*")} == {"attempt_1_rank_0", "attempt_1_rank_1"}


@pytest.mark.parametrize("component", ["ddp", "spmd"])
def test_parameters_and_defaults_are_stock_torchx_s(component):
    def described(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert described(getattr(dist, component)) == described(getattr(stock, component))


@pytest.mark.parametrize("arguments", [[], ["main"], ["--config", "configs/demo.toml"]])
def test_without_a_script_one_sentence_shows_the_line(arguments):
    with pytest.raises(ComponentValidationException) as caught:
        dist.ddp(*arguments)
    sentence = str(caught.value)
    assert dist.LINE in sentence and "\n" not in sentence


def test_script_and_module_exclude_each_other():
    with pytest.raises(ComponentValidationException, match="exclude each other"):
        dist.ddp(script="trainer/main.py", m="trainer.main")


def test_one_thread_per_rank_unless_given(monkeypatch):
    assert dry_run("dist.ddp", "a.py").env["OMP_NUM_THREADS"] == "1"
    assert dry_run("dist.ddp", "--env", "OMP_NUM_THREADS=3", "a.py").env["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert dry_run("dist.ddp", "a.py").env["OMP_NUM_THREADS"] == "2"


def test_torchrun_beside_python_is_found_without_an_activated_environment(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    role = dry_run("dist.ddp", "-j", "1x2", "trainer/main.py")
    assert role.args[1].startswith(f'export PATH={TORCHX.parent}:"$PATH"; torchrun ')
    # In the role's environment a remote scheduler would take it as the whole of PATH.
    assert "PATH" not in dist.ddp("trainer/main.py").roles[0].env


def test_path_is_left_alone_where_torchrun_is_not_beside_python(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert dist.ddp("trainer/main.py").roles[0].args[1].startswith("torchrun ")


def test_a_folder_with_a_dollar_and_a_space_is_quoted(monkeypatch, tmp_path):
    """The command is run by bash, after TorchX has replaced its macros: torchrun here only prints where it lies."""
    folder = tmp_path / "a $HOME b"
    folder.mkdir()
    (folder / "torchrun").write_text('#!/bin/sh\nprintf "%s" "$0"\n')
    (folder / "torchrun").chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    role = dry_run("dist.ddp", "trainer/main.py")
    done = subprocess.run(["bash", *role.args], capture_output=True, text=True, check=True)
    assert done.stdout == str(folder / "torchrun")


def test_a_real_run_without_an_activated_environment(tmp_path):
    """The command line program, the local scheduler, torchrun and two ranks; PATH knows nothing of .venv."""
    (tmp_path / "program.py").write_text(
        "import os, pathlib, sys\n"
        "text = os.environ['WORLD_SIZE'] + ' ' + os.environ['OMP_NUM_THREADS'] + ' ' + ' '.join(sys.argv[1:])\n"
        "pathlib.Path('rank_' + os.environ['RANK']).write_text(text)\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    line = f"{TORCHX} run -s local_cwd dist.ddp -j 1x2 program.py --config a.toml --train.batch_size=64"
    done = subprocess.run(line.split(), capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        assert (tmp_path / f"rank_{rank}").read_text() == "2 1 --config a.toml --train.batch_size=64"


def test_the_command_line_answers_a_missing_script_with_the_line_and_no_traceback(tmp_path):
    done = subprocess.run(
        [str(TORCHX), "run", "-s", "local_cwd", "dist.ddp", "-j", "1x2"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert dist.LINE in done.stderr and "Traceback" not in done.stderr


def test_builtins_stay_reachable():
    """Every builtin that TorchX would list if nothing were registered, and ours."""
    found = ModuleComponentsFinder("torchx.components", "").find()
    ours = {"batch.score", "batch.prepare"}
    expected = {component.name for component in found if not component.validation_errors} | ours
    assert {"dist.ddp", "dist.spmd", "utils.echo", "utils.sh", "utils.python"} < expected
    assert set(get_components()) == expected
    assert get_components()["dist.ddp"].fn is dist.ddp
    done = subprocess.run([str(TORCHX), "builtins"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert expected <= set(done.stdout.split())


def test_utils_and_spmd_run_dry():
    assert dry_run("utils.echo", "--msg", "hello").args == ["hello"]
    role = dry_run("dist.spmd", "-j", "1", "-h", "aws_p4d.24xlarge", "trainer/main.py", "--", "--config", "a.toml")
    words = torchrun_command(role)
    assert words[words.index("--nproc_per_node") + 1] == "8"  # the host's number of GPUs
    assert words[words.index("trainer/main.py") :] == ["trainer/main.py", "--config", "a.toml"]


def test_batch_score():
    role = dry_run(
        "batch.score", "-j", "1x4", "--checkpoint", "runs/a/last", "--output", "out", "--", "--data.root=data/day_1"
    )
    words = torchrun_command(role)
    assert words[words.index("--nproc_per_node") + 1] == "4"
    assert words[words.index("trainer/score.py") + 1 :] == [
        "--checkpoint",
        "runs/a/last",
        "--output",
        "out",
        "--data.root=data/day_1",
    ]
    assert role.env["OMP_NUM_THREADS"] == "1"


def test_batch_score_takes_several_checkpoints():
    role = dry_run("batch.score", "--checkpoint", "a=runs/a,b,b_2=s3://runs/b=1", "--output", "out")
    words = torchrun_command(role)
    assert words[words.index("trainer/score.py") + 1 : words.index("--output")] == [
        "--checkpoint",
        "a=runs/a,b",
        "--checkpoint",
        "b_2=s3://runs/b=1",
    ]


def test_batch_prepare():
    role = dry_run("batch.prepare", "--output", "a folder", "--tasks", "3", "--", "--input", "logs/day_*.gz")
    assert role.num_replicas == 3
    words = shlex.split(role.args[1].split(";")[-1])
    assert words[:2] == ["python", "tools/prepare_criteo.py"]
    assert words[2:6] == ["--output", "a folder", "--input", "logs/day_*.gz"]
    assert words[6:8] == ["--memory-gb", "3.60"]  # of the 4 GiB that a task is given
    assert words[8] == "--shard" and words[9].endswith("/3")
    assert role.env["OMP_NUM_THREADS"] == "1"
