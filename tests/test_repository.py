"""The repository keeps its word: pins agree, code is clean, committed notebooks are whole."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from aligned.report import cost
from benchmarks import speed

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROSE = [ROOT / "book" / f"{name}.md" for name in ("method", "model", "real_models", "runs")]


def pins(lines: list[str]) -> dict[str, str]:
    return dict(line.split("==") for line in lines if "==" in line)


def test_conda_pip_and_constraints_pin_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    models = extras.pop("real")  # which nobody needs who doesn't want them
    stated = [*project["dependencies"], *(p for extra in extras.values() for p in extra)]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    in_conda = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert all("==" in p for p in [*stated, *models])
    assert pins(stated) == pins(in_conda)
    locked = {
        k.lower().replace("_", "-"): v for k, v in pins((ROOT / "constraints.txt").read_text().splitlines()).items()
    }
    for name, version in pins(stated).items():
        assert locked[name.lower().replace("_", "-")] == version, name


def test_how_to_cite_can_be_read_and_names_the_paper_that_the_readme_names() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what the format asks for
    (paper,) = cited["references"]
    readme = (ROOT / "README.md").read_text()
    assert paper["url"] in readme
    assert all(author["family-names"] in readme for author in paper["authors"])


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda p: p.name)
def test_links_to_files_of_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_notebooks_were_run_and_hold_no_error(notebook: Path) -> None:
    code = [c for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]
    assert all(c.execution_count is not None for c in code)
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    for cell in code:
        if "figure" in cell.metadata.get("mystnb", {}):
            assert any("image/svg+xml" in o.get("data", {}) for o in cell.outputs)


def test_committed_notebooks_were_run_with_the_values_that_stand_in_them() -> None:
    for notebook in NOTEBOOKS:
        assert not any("injected-parameters" in c.metadata.get("tags", ()) for c in nbformat.read(notebook, 4).cells)


@pytest.mark.parametrize("page", [*NOTEBOOKS, *PROSE], ids=lambda p: p.stem)
def test_a_page_opens_with_its_goal_what_it_assumes_and_how_long_it_takes(page: Path) -> None:
    opening = nbformat.read(page, 4).cells[0].source if page.suffix == ".ipynb" else page.read_text()
    for words in ("{doc}`glossary", "**After this page you can**", "**It assumes**", "**It takes**"):
        assert words in opening


def test_no_text_holds_the_two_sides_of_a_merge() -> None:
    kinds = (".py", ".md", ".ipynb", ".css", ".yml", ".toml", ".txt", ".cff")
    folders = ("aligned", "benchmarks", "book", "notebooks", "tests")
    texts = [*ROOT.glob("*"), *(file for folder in folders for file in (ROOT / folder).rglob("*"))]
    texts = [text for text in texts if text.suffix in kinds]
    assert len(texts) > 100
    assert not [text for text in texts if re.search("^(<{7}|>{7}) ", text.read_text(), re.MULTILINE)]


def test_every_page_links_to_the_code_that_it_uses() -> None:
    for page in [*NOTEBOOKS, *PROSE]:
        links = re.findall(r"{download}`[^<`]+ <([^>]+)>`", page.read_text())
        assert links, page.name
        assert all((page.parent / link).exists() for link in links), page.name


def test_import_is_light() -> None:
    heavy = ["sae_lens", "transformer_lens", "transformers", "datasets", "matplotlib", "pandas", "scipy"]
    script = f"import sys, aligned; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_code_is_clean(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


FEW = ("aligned+standard+floor", "aligned", "SAELens", "dictionary_learning", "dictionary_learning, autocast")


@pytest.mark.parametrize("arms", [FEW, pytest.param(speed.ARMS["topk"], marks=pytest.mark.all)], ids=["few", "all"])
def test_the_benchmark_runs_and_its_record_can_be_read(
    arms: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speed.main(["--shapes", "S", "--activations", "topk", "--arms", *arms, "--out", str(tmp_path / "cost.json")])
    printed = capsys.readouterr().out
    assert "failed" not in printed
    assert printed.count("tokens/s") == len(arms)
    table = cost.speed_ups(cost.record(str(tmp_path / "cost.json")))
    assert (table.notna() & (table > 0)).all(axis=None)
    assert len(cost.in_turns(cost.record(str(tmp_path / "cost.json")), "standard")) == 1
