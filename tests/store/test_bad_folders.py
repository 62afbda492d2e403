"""Folders that are not what they were: each is refused by name, or set aside; nothing stale is used without a word.

A row a case: what is done, and what is then said.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import aligned
from aligned import files
from aligned.cli import main
from aligned.language import activations, contents, text
from aligned.language.activations import Pool, Stream, collect
from aligned.language.model import LanguageModel
from aligned.precision import precision
from aligned.report import results
from aligned.spec import RunSpec
from aligned.store import runs, sweeps
from aligned.store.runs import Damaged, Run
from tests import folders
from tests.conftest import SMALL
from tests.store.test_faults import flip


def own() -> Pool:
    pool = runs.activations(*runs.pool_of(SMALL))
    assert isinstance(pool, Pool)
    return pool


# What a run is asked for with the pool of SMALL, and what is said of it.
POOLS: dict[str, tuple[dict[str, Any], Callable[[], object], str]] = {
    "layer": ({"layer": 2}, own, r"of hook blocks\.3\.hook_resid_post, not blocks\.2"),
    "context": ({"context": 32}, own, "context 64, not 32"),
    "tokens": ({"tokens": 8192}, own, "tokens 4096, not 8192"),
    "text": ({"text": "installed-english"}, own, "text installed-python, not installed-english"),
    "model": ({"model": "smollm2-135m"}, own, "model embedded, not smollm2-135m"),
    "outliers": ({}, lambda: own().without_outliers(1.2), "leaves out norms of more than 1.2 times"),
    "no pool": ({}, lambda: "x", "pool is 'x'; it is what"),
}


@pytest.mark.parametrize("case", POOLS)
def test_a_pool_of_something_else(case: str, place: Path) -> None:
    change, pool, says = POOLS[case]
    with pytest.raises((ValueError, TypeError), match=says):
        runs.run(replace(SMALL, **change), pool=pool())  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked", "says"), [((None,), "takes a RunSpec"), ((SMALL, 3), "progress is 3; it is a func")])
def test_what_is_no_run(asked: tuple[Any, ...], says: str, place: Path) -> None:
    with pytest.raises(TypeError, match=says):
        aligned.run(*asked)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A spec of a text and a model in folders beside each other, by relative paths; in a store of its own."""
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    folders.make("gpt_neox", tmp_path / "model")
    (tmp_path / "text").mkdir()
    write(tmp_path / "text")
    return replace(SMALL, model="model", text="text", layer=1, tokens=1024, batch=256)


def write(folder: Path, word: str = "x") -> None:
    lines = [json.dumps({"text": f"{word} = {i}\n" * 20}) for i in range(200)]
    (folder / "a.jsonl").write_text("\n".join(lines))


def change_text(spec: RunSpec) -> None:
    write(Path(spec.text), "y")


def change_weights(spec: RunSpec) -> None:
    folders.make("gpt_neox", Path(spec.model), seed=1)


def change_shape(spec: RunSpec) -> None:
    place = Path(spec.model) / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"layer_norm_eps": 0.1}))


@pytest.mark.parametrize(
    ("change", "says"), [(change_text, "text"), (change_weights, "model"), (change_shape, "model")]
)
def test_what_changed_under_its_name_is_never_used_for_what_it_was(
    local: RunSpec, change: Callable[[RunSpec], None], says: str
) -> None:
    there, again = aligned.run(local, print_nothing), replace(local, seed=1)
    pool = runs.activations(*runs.pool_of(local))
    change(local)
    with pytest.raises(ValueError, match=rf"{local.name} was trained on what the {says} '{says}' held then, and"):
        aligned.run(local)
    with pytest.raises(ValueError, match=r"aligned runs remove"):
        aligned.sweep([local])
    with pytest.raises(ValueError, match="this pool is of"):
        aligned.run(again, print_nothing, pool=pool)
    other = aligned.run(again, print_nothing)
    both = ("model_fingerprint", "text_fingerprint", "activation_scale")
    assert [other.provenance[key] for key in both] != [there.provenance[key] for key in both]
    assert main(["runs", "remove", "--yes", local.name]) == 0
    assert aligned.run(local, print_nothing).provenance["contents"] == other.provenance["contents"]


def print_nothing(_: int) -> None:
    pass


def test_a_path_is_resolved_and_a_run_outlives_its_text(
    local: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = aligned.run(local, print_nothing)
    absolute = replace(local, text=str(tmp_path / "text"), model=str(tmp_path / "model"))
    aligned.run(absolute, print_nothing, pool=runs.activations(*runs.pool_of(local)))
    assert len(list((tmp_path / "store" / "pools").glob("*/pool.json"))) == 1
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # no text and no model there
    assert torch.equal(aligned.run(local).sae.W_enc, run.sae.W_enc)


@pytest.mark.parametrize("train", [aligned.run, lambda spec: aligned.sweep([spec])])
def test_a_text_with_nothing_held_out_is_refused_before_training(
    train: Callable[[RunSpec], object], local: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path("text") / "a.jsonl").write_text(json.dumps({"text": "x = 1"}))
    monkeypatch.setattr(runs, "activations", None)
    with pytest.raises(ValueError, match="text has no text in its held_out part, into which one document"):
        train(local)


def test_files_are_read_again_only_when_they_changed(local: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_SETTLED", -1.0)
    before = contents.of_text("text")
    with monkeypatch.context() as patched:
        patched.setattr(contents.hashlib, "file_digest", None)
        assert contents.of_text("text") == before
    os.utime("text/a.jsonl", ns=(0, 0))
    assert contents.of_text("text") == before  # touched, and the same
    change_text(local)
    os.utime("text/a.jsonl", ns=(0, 0))  # of the same size and time
    assert contents.of_text("text") != before
    assert contents.of_text(text.INSTALLED) == contents.of_model("owner/name") == ""


def test_pools_of_before_keep_their_names(model: LanguageModel, place: Path) -> None:
    """Those of installed text and of a model that has a name here: of what their digests are made."""
    for name in ("embedded", "gemma-3-270m", "smollm2-135m"):
        asked = activations.asked_of(name, text.INSTALLED, "train", 100, 64)
        assert asked == {"model": name, "text": text.INSTALLED, "split": "train", "tokens": 100, "context": 64}


def no_sum(folder: Path) -> None:
    facts = json.loads((folder / "pool.json").read_text())
    (folder / "pool.json").write_text(json.dumps({k: v for k, v in facts.items() if "crc32" not in k}))


def another_scale(folder: Path) -> None:
    facts = json.loads((folder / "pool.json").read_text())
    (folder / "pool.json").write_text(json.dumps(facts | {"scale": 2 * facts["scale"]}))


def another_name(folder: Path) -> None:
    no_sum(folder)
    facts = json.loads((folder / "pool.json").read_text())
    (folder / "pool.json").write_text(json.dumps(facts | {"text": "another"}))


POOL_FILES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "as of before": (no_sum, True),
    "a bit of the rows": (lambda folder: flip(folder / "activations.bf16"), False),
    "its scale": (another_scale, False),
    "another pool's": (another_name, False),
    "no object": (lambda folder: (folder / "pool.json").write_text("[]") and None, False),
    "no facts": (lambda folder: (folder / "pool.json").write_text("{}") and None, False),
}


@pytest.mark.parametrize("case", POOL_FILES)
def test_a_pool_that_is_not_as_it_was_written(
    case: str, model: LanguageModel, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    damage, whole = POOL_FILES[case]
    made = collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path)
    assert isinstance(made, Pool)
    rows = made.rows.clone()
    damage(made.folder)
    again = collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path)
    assert isinstance(again, Pool)
    assert torch.equal(again.rows, rows)
    assert again.scale == made.scale
    assert any("is not as it was written" in str(w.message) for w in recwarn) != whole


def test_a_pool_that_does_not_fit_says_so_in_a_line(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(activations.shutil, "disk_usage", lambda _: SimpleNamespace(free=200_000))
    stream = collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path, spare=100_000)
    assert isinstance(stream, Stream)
    assert stream.window == 500  # and so no more is read than was asked for
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "no pool: 0.1 MB of activations do not fit" in said
    assert isinstance(collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path, spare=10_000), Pool)


def test_a_run_that_has_no_room_is_refused_before_it_begins(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda _: SimpleNamespace(free=400_000))
    monkeypatch.setattr(runs, "activations", None)
    big = replace(SMALL, d_sae=2048)
    for train in (aligned.run, lambda spec: aligned.sweep([spec])):
        with pytest.raises(OSError, match=f"{big.name} needs 15 MB for weights and checkpoints.*ALIGNED_STORE"):
            train(big)


KNOWN = "recovery, 1,024 tokens of held-out text"
METRICS = {"a list": [], "no numbers": {KNOWN: {}}, "a string": {KNOWN: "x"}}


@pytest.mark.parametrize("case", METRICS)
def test_metrics_that_are_none_are_made_again(case: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = aligned.run(SMALL)
    (run.path / "metrics.json").write_text(json.dumps(METRICS[case]))
    assert main(["runs", "list"]) == 0
    assert "metrics.json holds no" in capsys.readouterr().out
    assert (run.path / "metrics.json").exists()  # to list changes nothing
    with pytest.warns(UserWarning, match="It is set aside as metrics.json.0; evaluations are made again"):
        assert run.metrics == {}


def test_metrics_of_another_version_are_listed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = aligned.run(SMALL)
    (run.path / "metrics.json").write_text(json.dumps({KNOWN: {"other": 1}}))
    assert main(["runs", "list"]) == 0
    assert "holds no evaluation of this version" in capsys.readouterr().out


def test_an_open_run_whose_weights_changed_is_not_used(place: Path) -> None:
    run = aligned.run(SMALL)
    flip(run.path / "sae_weights.safetensors")
    with pytest.raises(Damaged, match="is not what was written"):
        run.sae  # noqa: B018


def test_a_spec_that_is_another_runs_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    spec = aligned.run(SMALL).path / "spec.json"
    spec.write_text(json.dumps({k: v for k, v in json.loads(spec.read_text()).items() if k != "d_sae"}))
    assert main(["runs", "list"]) == 0
    assert "spec.json is that of embedded-l3-2048" in capsys.readouterr().out
    assert results.publish() == 0
    assert "left out: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["sae_weights.safetensors", "provenance.json", "metrics.json"])
def test_a_folder_where_a_file_belongs_is_set_aside(name: str, place: Path) -> None:
    run = aligned.run(SMALL)
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).mkdir()
    with pytest.warns(UserWarning, match=f"holds no (file )?{name}.*set aside"):
        assert aligned.run(SMALL).metrics == {}


@pytest.mark.parametrize("name", runs.FACTS)
def test_provenance_that_lacks_what_pages_need_is_damaged(name: str, place: Path) -> None:
    path = aligned.run(SMALL).path
    made = json.loads((path / "provenance.json").read_text())
    (path / "provenance.json").write_text(json.dumps({k: v for k, v in made.items() if k != name}))
    with pytest.raises(Damaged, match=f"provenance.json holds no {name}$"):
        runs.check(path)


@pytest.mark.parametrize("asked", [SMALL, [], None, 3, "embedded", [SMALL, 3]])
def test_records_of_no_list(asked: Any, place: Path) -> None:
    with pytest.raises(ValueError, match=r"records are of a list of runs or specs, one at least"):
        aligned.records(asked, 1024)


def test_a_table_that_is_not_as_it_was_returned(place: Path) -> None:
    table = aligned.records([SMALL], 1024)
    for show, other in product((results.provenance, results.setting), (table.to_dict(), {})):
        with pytest.raises(ValueError, match="not as `records` returned it"):
            show(type(table)(other))


def test_a_file_where_a_run_belongs_is_set_aside(place: Path) -> None:
    (place / SMALL.name).write_text("mine")
    with pytest.warns(UserWarning, match="is no folder. It is set aside"):
        aligned.run(SMALL)
    assert (place / "damaged" / f"{SMALL.name}.0").read_text() == "mine"


def facts() -> dict[str, Any]:
    pool = own()
    identity = {"model": pool.model_fingerprint, "text": pool.text_fingerprint, "scale": pool.scale}
    return {**identity, "spec": SMALL.hash, "precision": precision(), "step": 2, "log": [], "seconds": 1.0}


CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda place: place.mkdir(), "is no file"),
    "empty": (lambda place: place.write_bytes(b""), "is damaged"),
    "other tensors": (lambda place: files.save(place, {"sae.x": torch.zeros(3)}, facts()), "holds no sae.*shape"),
    "facts are a list": (lambda place: files.save(place, {}, []), "is no checkpoint of this version"),  # type: ignore[arg-type]
    "no step": (lambda place: files.save(place, {}, {"spec": SMALL.hash}), "is no checkpoint of this version"),
    "a later step": (lambda place: files.save(place, {}, facts() | {"step": 99}), "of step 99, and there are 8"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_that_will_not_do_is_set_aside(case: str, place: Path) -> None:
    make, says = CHECKPOINTS[case]
    expected = (runs.store() / "pools").resolve().parent / SMALL.name  # the tests' own run
    work = place / "training" / SMALL.name
    work.mkdir(parents=True)
    make(work / "checkpoint.safetensors")
    with pytest.warns(UserWarning, match=f"{says}.*set aside as checkpoint.safetensors.0; training starts over"):
        run = aligned.run(SMALL)
    assert torch.equal(run.sae.W_enc, Run(SMALL, expected).sae.W_enc)


def test_a_loss_that_is_not_finite_blames_what_is_to_blame(place: Path) -> None:
    spec = replace(SMALL, constraint="soft")
    object.__setattr__(spec, "soft", 1e39)  # more than a spec takes
    with pytest.raises(FloatingPointError, match=r"a smaller lr than 0.001, or than soft 1e\+39, may help$"):
        aligned.run(spec)


GOOD = json.dumps({"spec": asdict(SMALL), "metrics": {}, "provenance": {}})
RECORDS = {
    "no JSON": "{half a rec",
    "no object": "[]",
    "no metrics": json.dumps({"spec": asdict(SMALL), "provenance": {}}),
    "another version's": json.dumps({"spec": {"newer": 1}, "metrics": {}, "provenance": {}}),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_line_that_is_no_record_is_named_and_nothing_written(
    case: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    (tmp_path / "a.jsonl").write_text(f"{GOOD}\n\n{RECORDS[case]}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 3, is no record of this version"):
        results.publish()
    assert [p.name for p in tmp_path.glob("*.jsonl")] == ["a.jsonl"]


def publish(store: Path, to: Path) -> None:
    os.environ["ALIGNED_STORE"] = str(store)
    results.RESULTS = to
    Run.provenance = property(lambda run: {"dirty": False, "commit": "abc"})  # type: ignore[assignment, method-assign]
    results.publish()


def test_two_stores_publish_at_once_and_no_record_is_lost(place: Path, tmp_path: Path) -> None:
    specs = aligned.grid(SMALL, seed=range(6))
    for spec in specs:
        assert aligned.run(spec, print_nothing).alignment  # measured here: a process that is forked can't use threads
    other = tmp_path / "other"
    other.mkdir()
    for spec in specs[::2]:
        shutil.move(place / spec.name, other / spec.name)
    spawned = get_context("fork")
    publishers = [spawned.Process(target=publish, args=(store, tmp_path / "results")) for store in (place, other)]
    for process in publishers:
        process.start()
    for process in publishers:
        process.join()
    lines = (tmp_path / "results" / "embedded-layer3.jsonl").read_text().splitlines()
    assert {json.loads(line)["spec"]["seed"] for line in lines} == set(range(6))


# What ALIGNED_STORE is, and what is said of it.
STORES = {"in a file": "{}/afile/x", "too long": "a" * 300, "no such user": "~nobody-here/x"}


@pytest.mark.parametrize("case", STORES)
def test_a_store_that_can_be_no_folder(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "afile").touch()
    monkeypatch.setenv("ALIGNED_STORE", STORES[case].format(tmp_path))
    with pytest.raises(OSError, match="ALIGNED_STORE is"):
        files.store()


def test_ray_listens_on_the_loopback_alone_and_in_a_private_folder(place: Path) -> None:
    psutil, ray = pytest.importorskip("psutil"), pytest.importorskip("ray")
    with sweeps._connected("ray"):
        ray.get(ray.remote(lambda: 1).remote())
        ours = [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
        listen = {c.laddr.ip for c in psutil.net_connections() if c.status == "LISTEN" and c.pid in ours}
        folder = Path(ray._private.worker._global_node.get_session_dir_path()).parents[1]
        assert folder.stat().st_mode & 0o077 == 0
        assert {ip.rpartition(":")[2] for ip in listen} == {"127.0.0.1"}
    ray.shutdown()
