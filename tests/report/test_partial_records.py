"""The pages, with their own values, while only a part of the records is published: they draw, and train nothing."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from aligned.report import results
from aligned.report.parameters import NOTEBOOKS, parameters, preset
from aligned.report.published import REAL
from aligned.spec import RunSpec
from aligned.store import runs
from tests.drawn import drawn

PAGES = [p.stem for p in sorted(NOTEBOOKS.glob("*.ipynb")) if "use_published" in parameters(p)]


@pytest.mark.parametrize("third", range(3))
@pytest.mark.parametrize("name", PAGES)
def test_a_page_draws_what_there_is(name: str, third: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another third of the SAEs missing each time, whatever the seed or the arm."""
    lines = [line for place in results.RESULTS.glob("*.jsonl") for line in place.read_text().splitlines()]
    kept = [line for line in lines if zlib.crc32(RunSpec(**json.loads(line)["spec"]).name.encode()) % 3 != third]
    assert 0 < len(kept) < len(lines)
    (tmp_path / "some.jsonl").write_text("".join(line + "\n" for line in kept))
    for record in results.RESULTS.glob("*.json"):
        (tmp_path / record.name).symlink_to(record)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(runs, "_train", None)  # to train would be an error
    names, _ = drawn(NOTEBOOKS / f"{name}.ipynb", {}, monkeypatch)
    held = [t for name in names.values() for t in (name if isinstance(name, list) else [name])]
    tables = [t for t in held if hasattr(t, "attrs") and "made" in t.attrs]
    assert any("SAEs are published so far" in results.setting(table) for table in tables)


@pytest.mark.parametrize("name", ["bimodality", "recovered_ce", "dead_features", "stability", "is_it_the_constraint"])
@pytest.mark.parametrize("model", REAL)
def test_a_real_models_page_is_drawn_from_records(
    model: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its wheels are not needed, and nothing is trained."""
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(runs, "_train", None)
    monkeypatch.setattr(runs, "language_model", None)
    page = NOTEBOOKS / f"{name}.ipynb"
    names, _ = drawn(page, preset(model, page), monkeypatch)
    assert {spec["spec"]["model"] for spec in names["table"].attrs["made"]} == {model}
