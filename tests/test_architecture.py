"""The folders' arrows and the layout's rules, read from the sources; each rule is shown to catch a bad tree."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400

# Folder -> what of ours it may import besides itself. tests/ may import anything.
ARROWS = {
    "configs": (),
    "modules": ("configs.section",),
    "sharding": ("configs",),
    "trainer": ("configs", "modules", "sharding"),
    "tools": ("configs", "modules", "sharding", "trainer"),
    "torchx_components": (),
}
OURS = (*ARROWS, "tests")
FOLDERS = (*OURS, "docs")
# Package -> the only files and folders whose sources may name it.
ONLY_IN = {
    "torchrec.distributed": ("sharding/", "trainer/"),
    "torch.distributed": (
        "sharding/",
        "trainer/runtime.py",
        "trainer/votes.py",
        "trainer/job_store.py",
        "trainer/checkpoints/",
    ),
    "pydantic": ("configs/loader.py", "configs/problems.py"),
}
VAGUE_NAMES = ("utils", "helpers", "common", "misc")


@dataclass(frozen=True)
class Source:
    """One Python file.

    Attributes:
        path: relative to the tree's root, with forward slashes.
        text: the content.
        names: each module or attribute it imports or spells with dots, such as configs.schema.RunConfig.
        imports: those of `names` that come from imports.
    """

    path: str
    text: str
    tree: ast.Module
    imports: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def folder(self) -> str:
        return self.path.split("/")[0] if "/" in self.path else ""


def read_source(root: Path, path: Path) -> Source:
    text = path.read_text()
    tree = ast.parse(text)
    imports = tuple(name for node in ast.walk(tree) for name in imported_by(node))
    spelled = tuple(name for node in ast.walk(tree) if (name := dotted(node)) is not None)
    return Source(path.relative_to(root).as_posix(), text, tree, imports, imports + spelled)


def imported_by(node: ast.AST) -> Iterator[str]:
    """Yields full dotted names: `from a import b` is a.b, whether b is a module or not."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and (dotted(node.func) or "").endswith(("import_module", "__import__")):
        yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def dotted(node: ast.AST) -> str | None:
    """Returns a name or a chain of attributes as written, None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)) is not None:
        return f"{before}.{node.attr}"
    return None


def under(name: str, package: str) -> bool:
    """Whether a dotted name is a package or lies in it."""
    return name == package or name.startswith(package + ".")


def ignored_folders(root: Path) -> set[str]:
    """Returns the root folders that .gitignore names as outputs."""
    ignore = root / ".gitignore"
    lines = ignore.read_text().splitlines() if ignore.exists() else []
    return {line.strip("/") for line in lines if line.startswith("/") and line.endswith("/")}


def root_folders(root: Path) -> list[Path]:
    """Returns the folders of the root that belong to the project."""
    skipped = ignored_folders(root) | {"__pycache__"}
    found = (path for path in sorted(root.iterdir()) if path.is_dir())
    return [p for p in found if not p.name.startswith(".") and p.name not in skipped and p.suffix != ".egg-info"]


@functools.cache  # a tree stays as it is while its test runs
def sources(root: Path) -> list[Source]:
    files = [*root.glob("*.py"), *(file for folder in root_folders(root) for file in folder.rglob("*.py"))]
    return [read_source(root, file) for file in sorted(files)]


def arrows_hold(root: Path) -> list[str]:
    return [
        f"{source.path} imports {name}"
        for source in sources(root)
        if source.folder in ARROWS
        for name in source.imports
        if name.split(".")[0] in OURS
        if not any(under(name, allowed) for allowed in (source.folder, *ARROWS[source.folder]))
    ]


def packages_stay_where_they_belong(root: Path) -> list[str]:
    return [
        f"{source.path} names {package}"
        for source in sources(root)
        if source.folder != "tests"
        for package, places in ONLY_IN.items()
        if any(under(name, package) for name in source.names)
        if not source.path.startswith(places)
    ]


def configs_know_no_torch(root: Path) -> list[str]:
    return [
        f"{source.path} imports {name}"
        for source in sources(root)
        if source.folder == "configs"
        for name in source.imports
        if name.split(".")[0] in ("torch", "torchrec", "fbgemm_gpu")
    ]


def components_know_torchx_only(root: Path) -> list[str]:
    allowed = {"torchx", "torchx_components", *sys.stdlib_module_names}
    return [
        f"{source.path} imports {name}"
        for source in sources(root)
        if source.folder == "torchx_components"
        for name in source.imports
        if name.split(".")[0] not in allowed
    ]


def imports_are_absolute(root: Path) -> list[str]:
    return [f"{s.path} imports {name}" for s in sources(root) for name in s.imports if name.startswith(".")]


def files_are_short(root: Path) -> list[str]:
    lengths = {source.path: len(source.text.splitlines()) for source in sources(root)}
    return [f"{path} has {lines} lines" for path, lines in lengths.items() if lines > MAX_LINES]


def modules_say_what_they_are_for(root: Path) -> list[str]:
    return [
        f"{source.path} has no docstring"
        for source in sources(root)
        if not ast.get_docstring(source.tree)
        # The packages of tests mirror those of the sources and say nothing more.
        if not (source.folder == "tests" and source.path.endswith("/__init__.py"))
    ]


def names_are_free(root: Path) -> list[str]:
    """No file is named like a module of the standard library: it would hide it from the programs beside it."""
    taken = sys.stdlib_module_names - {"__init__"}
    return [f"{source.path} hides a standard module" for source in sources(root) if Path(source.path).stem in taken]


def names_are_clear(root: Path) -> list[str]:
    return [
        f"{source.path} is named {part}"
        for source in sources(root)
        for part in Path(source.path).with_suffix("").parts
        if part in VAGUE_NAMES
    ]


def folders_are_the_seven(root: Path) -> list[str]:
    loose = [f"{source.path} lies in the root" for source in sources(root) if not source.folder]
    return loose + [f"{p.name}/ is a new folder" for p in root_folders(root) if p.name not in FOLDERS]


RULES: tuple[Callable[[Path], list[str]], ...] = (
    arrows_hold,
    packages_stay_where_they_belong,
    configs_know_no_torch,
    components_know_torchx_only,
    imports_are_absolute,
    files_are_short,
    modules_say_what_they_are_for,
    names_are_free,
    names_are_clear,
    folders_are_the_seven,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps(rule):
    problems = rule(ROOT)
    assert not problems, "\n" + "\n".join(problems)


def test_the_rules_see_the_project():
    """A walk that finds no file would keep every rule."""
    seen = {source.folder for source in sources(ROOT)}
    assert seen == set(OURS)
    assert len(sources(ROOT)) > 20


# Rule, file, content. Every one alone must break its rule.
BAD = [
    (arrows_hold, "configs/schema.py", "import modules.merge"),
    (arrows_hold, "configs/schema.py", "from trainer import storage"),
    (arrows_hold, "modules/tables.py", "from configs.schema import RunConfig"),
    (arrows_hold, "modules/tables.py", "from configs import schema"),
    (arrows_hold, "modules/layers/mlp.py", "import configs"),
    (arrows_hold, "modules/ensemble.py", "from sharding.planner import plan_tables"),
    (arrows_hold, "modules/ensemble.py", "def f():\n    from trainer.storage import Storage"),
    (arrows_hold, "modules/members/__init__.py", "import importlib\nimportlib.import_module('trainer.storage')"),
    (arrows_hold, "sharding/planner.py", "from modules.ensemble import Ensemble"),
    (arrows_hold, "sharding/planner.py", "import trainer.runtime"),
    (arrows_hold, "trainer/data/reading/batch.py", "from tools.plan import main"),
    (arrows_hold, "trainer/loop.py", "import torchx_components.dist"),
    (arrows_hold, "trainer/loop.py", "from tests.support import tiny"),
    (arrows_hold, "tools/plan.py", "import torchx_components.dist"),
    (arrows_hold, "torchx_components/dist.py", "from configs.loader import load_run"),
    (packages_stay_where_they_belong, "modules/ensemble.py", "from torchrec.distributed.types import ShardingPlan"),
    (packages_stay_where_they_belong, "tools/plan.py", "import torchrec.distributed.planner"),
    (packages_stay_where_they_belong, "tools/plan.py", "from torchrec import distributed"),
    (packages_stay_where_they_belong, "trainer/loop.py", "import torch.distributed as dist"),
    (packages_stay_where_they_belong, "trainer/loop.py", "from torch import distributed"),
    (packages_stay_where_they_belong, "trainer/loop.py", "import torch\nprint(torch.distributed.get_rank())"),
    (packages_stay_where_they_belong, "trainer/data/runtime.py", "from torch.distributed import get_rank"),
    (packages_stay_where_they_belong, "configs/schema.py", "from pydantic import BaseModel"),
    (packages_stay_where_they_belong, "trainer/assembly.py", "import pydantic"),
    (configs_know_no_torch, "configs/schema.py", "import torch"),
    (configs_know_no_torch, "configs/schema.py", "from torchrec.modules import embedding_configs"),
    (components_know_torchx_only, "torchx_components/dist.py", "import numpy"),
    (components_know_torchx_only, "torchx_components/dist.py", "from trainer import main"),
    (imports_are_absolute, "modules/ensemble.py", "from . import tables"),
    (imports_are_absolute, "modules/layers/mlp.py", "from ..tables import groups"),
    (files_are_short, "trainer/loop.py", "x = 1\n" * MAX_LINES),
    (names_are_free, "trainer/logging.py", ""),
    (names_are_free, "trainer/data/json.py", ""),
    (names_are_clear, "modules/utils.py", ""),
    (names_are_clear, "trainer/common/batch.py", ""),
    (folders_are_the_seven, "serving/server.py", ""),
    (folders_are_the_seven, "setup.py", ""),
]
GOOD = [
    ("configs/loader.py", "import pydantic\nfrom configs.schema import RunConfig"),
    ("modules/members/deep.py", "from configs.section import Section\nfrom modules.layers.mlp import MLP"),
    ("modules/tables.py", "import configs.section\nfrom torchrec.modules.embedding_configs import PoolingType"),
    ("sharding/apply.py", "import torch.distributed\nfrom torchrec.distributed import model_parallel"),
    ("trainer/runtime.py", "import torch.distributed\nfrom sharding.apply import shard_model"),
    ("trainer/loop.py", "from torchrec.distributed.train_pipeline import TrainPipelineBase"),
    ("trainer/distributed.py", "import torch\nprint(torch.distributions)"),
    ("tools/plan.py", "from configs import schema\nfrom modules import merge\nfrom trainer import assembly"),
    ("torchx_components/dist.py", "import os\nfrom torchx import specs\nfrom torchx_components import batch"),
    ("tests/unit/test_loop.py", "import torch.distributed\nimport pydantic\nfrom trainer import loop"),
    ("tests/unit/__init__.py", None),
    (".venv/lib/thing.py", "from . import x"),
    ("runs/demo/utils.py", "import torch.distributed"),
]


def write(root: Path, path: str, content: str | None) -> None:
    """Writes a file with a docstring in front, without one where the content is None."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("" if content is None else f'"""What it is for."""\n{content}\n')


@pytest.mark.parametrize(("rule", "path", "content"), BAD)
def test_a_rule_catches(rule, path, content, tmp_path):
    write(tmp_path, path, content)
    (problem, *_) = rule(tmp_path)
    assert problem.startswith(path.split("/")[0])


def test_a_missing_docstring_is_caught(tmp_path):
    write(tmp_path, "trainer/loop.py", None)
    write(tmp_path, "tests/unit/test_loop.py", None)
    assert modules_say_what_they_are_for(tmp_path) == [
        "tests/unit/test_loop.py has no docstring",
        "trainer/loop.py has no docstring",
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_tree_keeps(rule, tmp_path):
    (tmp_path / ".gitignore").write_text("/runs/\n__pycache__/\n")
    for path, content in GOOD:
        write(tmp_path, path, content)
    assert rule(tmp_path) == []


def test_every_rule_is_shown_to_catch_something():
    shown = {rule for rule, _, _ in BAD} | {modules_say_what_they_are_for}
    assert shown == set(RULES)
