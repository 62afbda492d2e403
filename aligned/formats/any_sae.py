"""Anyone's SAE: which format a folder or a name is of."""

from __future__ import annotations

from pathlib import Path

from aligned.checks import said
from aligned.errors import NotFound
from aligned.formats import dictionary_learning, gemma_scope, saelens, sparsify
from aligned.formats.folders import check_sums, damage_named, json_object, part
from aligned.formats.ours import load_saelens
from aligned.formats.releases import from_release
from aligned.sae import SAE


def load(source: str | Path, sae_id: str | None = None) -> SAE:
    """Anyone's SAE, as it encodes and decodes raw activations.

    ReLU, TopK, BatchTopK, JumpReLU and gated SAEs are read. A gated SAE is converted to the JumpReLU SAE that is equal
    to it (arXiv 2404.16014), whose encoder is that of the gated SAE's magnitudes. A TopK SAE that chooses its codes as
    if its decoder rows had norm 1 is converted to one whose rows have norm 1. Reconstructions do not change. An SAE of
    attention heads (`hook_z`) reads them side by side, `[..., n_heads * d_head]`. Where a run's folder has checksums,
    the files that are read are compared with them.

    Args:
        source: a SAELens folder (`cfg.json`, `sae_weights.safetensors`), a `dictionary_learning` folder (`ae.pt`,
            `config.json`), a `sparsify` folder (`cfg.json`, `sae.safetensors`), a Gemma Scope folder (`params.npz`,
            or `params.safetensors` and `config.json`), or the name of a release that SAELens knows, which is
            downloaded, or taken from the hub's cache.
        sae_id: which SAE of the release.

    Raises:
        NotFound: a folder that holds neither; a release, or an SAE of it, that SAELens does not know.
        TypeError: a source or an sae_id that is no name.
        ValueError: a damaged file, one that holds more than tensors, or an architecture that can't be written as an
            `SAE`, such as a transcoder; an activation that is not known, a TopK SAE whose k is not said, or is said
            twice and differs, a BatchTopK SAE without a threshold; weights that are not finite, or square and in the
            other one's layout; names the folder. An sae_id with a folder, which holds one SAE.
        NotInstalled: SAELens, for its folders and releases; for a folder that this project wrote it is not needed.
        NoAccess: a gated release, and no login.
        Unreachable: a release that can't be reached.
    """
    for name, value in (("source", source), ("sae_id", sae_id)):
        if not isinstance(value, str | Path) and not (name == "sae_id" and value is None):
            raise TypeError(f"{name} is {said(value)}; give a folder, or a release of SAELens and an sae_id")
    if not str(source).strip():
        raise NotFound("source is empty; give a folder, or a release of SAELens and an sae_id")
    folder = Path(source).expanduser()
    if folder.is_file():
        raise NotFound(f"{folder} is a file; give the folder that it stands in")
    if not folder.is_dir():
        if isinstance(source, Path) or source.startswith(("/", ".", "~")):
            raise NotFound(f"there is no folder {folder}")
        return from_release(source, sae_id)
    if sae_id is not None:
        raise ValueError(f"{folder} is a folder, which holds one SAE: leave out the sae_id, {said(sae_id)}")
    with damage_named(folder):
        return _from_folder(folder)


def _from_folder(folder: Path) -> SAE:
    if (folder / "cfg.json").exists():
        config = json_object(folder, "cfg.json")
        if (folder / "sae.safetensors").exists():
            return sparsify.from_folder(folder, config)
        check_sums(folder)
        ours = "aligned_activation" in part(config, "metadata", folder / "cfg.json")
        return load_saelens(folder) if ours else saelens.from_folder(folder, config)
    if (folder / "ae.pt").exists():
        return dictionary_learning.from_folder(folder)
    if (folder / "params.npz").exists() or (folder / "params.safetensors").exists():
        return gemma_scope.from_folder(folder)
    raise NotFound(
        f"{folder} holds no SAE that can be read: a SAELens or sparsify folder has a cfg.json, "
        "a dictionary_learning folder an ae.pt, a Gemma Scope folder a params.npz or params.safetensors"
    )
