"""Published SAEs by name: the releases that SAELens knows, from the hub or its cache."""

from __future__ import annotations

from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError

from aligned import checks
from aligned.errors import NoAccess, NotFound, Unreachable, one_line
from aligned.formats.saelens import said_clearly, translated
from aligned.sae import SAE


def from_release(release: str, sae_id: str | None) -> SAE:
    """An SAE of a release; what is no SAE is refused before it is fetched. For what is raised see `any_sae.load`."""
    if not sae_id:
        raise NotFound(f"there is no folder {release!r}; of a SAELens release give the sae_id too")
    checks.installed("sae_lens", "interop")
    import sae_lens
    from huggingface_hub.errors import GatedRepoError
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    name = f"{release}, {sae_id}"
    listed = get_pretrained_saes_directory().get(release)
    what = f"{listed.conversion_func} {listed.saes_map.get(sae_id)}" if listed else ""
    if other := next((kind for kind in NO_SAES if kind in what), None):  # before gigabytes are fetched
        raise ValueError(f"{name} is no SAE: {NO_SAES[other]}")
    fetched = False

    def fetch(**asked: Any) -> Any:
        nonlocal fetched
        kind = loaders.get_conversion_loader_name(release)
        config, *rest = loaders.NAMED_PRETRAINED_SAE_LOADERS[kind](**asked)
        fetched = True
        return config | (said_clearly(config, name) if kind == "sae_lens" else {}), *rest

    try:
        theirs = sae_lens.SAE.from_pretrained(release, sae_id, converter=fetch)
    except GatedRepoError as error:
        raise NoAccess(f"the release {release!r} needs a login: ask for access, then run `hf auth login`") from error
    except ValueError as error:
        if fetched:
            raise
        # SAELens's own list has no such release, or no such SAE in it
        raise NotFound(f"SAELens knows no SAE {sae_id!r} of a release {release!r}: {error}") from error
    except Exception as error:  # SAELens and the hub library raise many kinds; the reader needs one sentence
        if fetched or isinstance(error, KeyError | SafetensorError | UnpicklingError):
            raise ValueError(
                f"{name} is damaged, or of a shape that SAELens does not read ({one_line(error)})"
            ) from error
        raise Unreachable(
            f"the SAE {sae_id!r} of the release {release!r} could not be fetched ({one_line(error)}). Without "
            "a network give a local folder"
        ) from error
    return translated(theirs, name)


# What a loader of SAELens's registry, or a path in it, says of what is no SAE.
NO_SAES = {
    "transcoder": "a transcoder maps one activation to another",
    "clt": "a cross-layer transcoder maps one activation to others",
    "temporal": "a temporal SAE's reconstruction depends on earlier tokens",
}
