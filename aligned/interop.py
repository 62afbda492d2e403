"""At home in SAELens. Importing this registers training architectures whose alignment scores are 1:

- `aligned_standard` (`AlignedStandardConfig`): ReLU, exported as a stock standard SAE;
- `aligned_topk` (`AlignedTopKConfig`): exported as a stock TopK SAE;
- `aligned_batchtopk` (`AlignedBatchTopKConfig`): exported, as SAELens does with BatchTopK, as a stock JumpReLU SAE;
- `aligned_matryoshka_batchtopk` (`AlignedMatryoshkaConfig`): exported likewise;
- `aligned_jumprelu` (`AlignedJumpReLUConfig`): exported as a stock JumpReLU SAE;
- `aligned_gated` (`AlignedGatedConfig`): exported as a stock gated SAE; the encoder is the one that its halves share.

They take the fields of SAELens's own configurations, and its trainers train them as they are. `save_inference_model`
and the runner's `output_path` write stock SAEs. Checkpoints, and what `upload_saes_to_huggingface` uploads for an SAE
in training, can be read only by those who have this package. In float32 a score is 1 within 1e-5, in bfloat16 within
its rounding. Files are `aligned.formats`'; its names are here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, remove_parametrizations

from aligned.alignment import projected
from aligned.checks import installed
from aligned.formats import load, load_saelens, save_saelens

try:
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        GatedSAEConfig,
        GatedTrainingSAE,
        GatedTrainingSAEConfig,
        JumpReLUSAEConfig,
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        StandardSAEConfig,
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
        TopKSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
        TrainingSAE,
    )
    from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
except ModuleNotFoundError:
    installed("sae_lens", "interop")
    raise

__all__ = [
    "AlignedBatchTopK",
    "AlignedBatchTopKConfig",
    "AlignedGated",
    "AlignedGatedConfig",
    "AlignedJumpReLU",
    "AlignedJumpReLUConfig",
    "AlignedMatryoshka",
    "AlignedMatryoshkaConfig",
    "AlignedStandard",
    "AlignedStandardConfig",
    "AlignedTopK",
    "AlignedTopKConfig",
    "load",
    "load_saelens",
    "save_saelens",
]


class _Encoder(nn.Module):
    """W_enc as a function of the free parameter and the decoder."""

    def __init__(self, W_dec: nn.Parameter) -> None:
        super().__init__()
        self.of = [W_dec]  # in a list, so that it is not a parameter of this module too

    def forward(self, free: Float[Tensor, "d_in d_sae"]) -> Float[Tensor, "d_in d_sae"]:
        return projected(free.T, self.of[0]).T

    def right_inverse(self, W_enc: Float[Tensor, "d_in d_sae"]) -> Float[Tensor, "d_in d_sae"]:
        return W_enc


class _Aligned(TrainingSAE[Any]):
    """Keeps <W_enc[:, i], W_dec[i]> at 1 (arXiv 2605.18629): what is trained is a free parameter in W_enc's place."""

    def initialize_weights(self) -> None:
        super().initialize_weights()
        register_parametrization(self, "W_enc", _Encoder(self.W_dec))

    @contextmanager
    def _encoder_written_out(self) -> Iterator[None]:
        """For what changes encoder and decoder together, and leaves every score at 1."""
        if not is_parametrized(self, "W_enc"):  # one fold within another
            yield
            return
        remove_parametrizations(self, "W_enc")
        try:
            yield
        finally:
            register_parametrization(self, "W_enc", _Encoder(self.W_dec))

    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        with self._encoder_written_out():
            super().fold_activation_norm_scaling_factor(scaling_factor)

    def fold_and_get_W_dec_norm(self) -> Tensor:
        with self._encoder_written_out():
            return super().fold_and_get_W_dec_norm()

    def fold_activation_whitening(self, mean: Tensor, whitening_matrix: Tensor, unwhitening_matrix: Tensor) -> None:
        with self._encoder_written_out():
            super().fold_activation_whitening(mean, whitening_matrix, unwhitening_matrix)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        found = super().load_state_dict(*args, **kwargs)
        self.parametrizations.W_enc[0].of = [self.W_dec]  # with `assign` it is another parameter now
        return found

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        del state_dict["parametrizations.W_enc.original"]
        state_dict["W_enc"] = self.W_enc.detach().clone(memory_format=torch.contiguous_format)
        super().process_state_dict_for_saving_inference(state_dict)


class _Named:
    """SAELens's name of an architecture, with ours before it."""

    @classmethod
    def architecture(cls) -> str:
        return f"aligned_{super().architecture()}"  # type: ignore[misc]


@dataclass
class AlignedStandardConfig(_Named, StandardTrainingSAEConfig):
    """SAELens's `StandardTrainingSAEConfig`; decoder rows start with norm 1 (there 0.1), as in arXiv 2605.18629."""

    decoder_init_norm: float | None = 1.0

    def get_inference_config_class(self) -> type[StandardSAEConfig]:
        return StandardSAEConfig


@dataclass
class AlignedTopKConfig(_Named, TopKTrainingSAEConfig):
    """SAELens's `TopKTrainingSAEConfig` as in arXiv 2605.18629: decoder rows start with norm 1 (there 0.1), there is no
    auxiliary loss (there with coefficient 1), and the k largest codes are chosen as they are (there multiplied with
    their decoder rows' norms first)."""

    decoder_init_norm: float | None = 1.0
    aux_loss_coefficient: float = 0.0
    rescale_acts_by_decoder_norm: bool = False

    def get_inference_config_class(self) -> type[TopKSAEConfig]:
        return TopKSAEConfig


@dataclass
class AlignedBatchTopKConfig(_Named, BatchTopKTrainingSAEConfig):
    """SAELens's `BatchTopKTrainingSAEConfig`, with the changes of `AlignedTopKConfig`."""

    decoder_init_norm: float | None = 1.0
    aux_loss_coefficient: float = 0.0
    rescale_acts_by_decoder_norm: bool = False


@dataclass
class AlignedMatryoshkaConfig(_Named, MatryoshkaBatchTopKTrainingSAEConfig):
    """SAELens's `MatryoshkaBatchTopKTrainingSAEConfig`, with the changes of `AlignedTopKConfig`."""

    decoder_init_norm: float | None = 1.0
    aux_loss_coefficient: float = 0.0
    rescale_acts_by_decoder_norm: bool = False


@dataclass
class AlignedJumpReLUConfig(_Named, JumpReLUTrainingSAEConfig):
    """SAELens's `JumpReLUTrainingSAEConfig`; decoder rows start with norm 1 (there 0.1)."""

    decoder_init_norm: float | None = 1.0

    def get_inference_config_class(self) -> type[JumpReLUSAEConfig]:
        return JumpReLUSAEConfig


@dataclass
class AlignedGatedConfig(_Named, GatedTrainingSAEConfig):
    """SAELens's `GatedTrainingSAEConfig`; decoder rows start with norm 1 (there 0.1)."""

    decoder_init_norm: float | None = 1.0

    def get_inference_config_class(self) -> type[GatedSAEConfig]:
        return GatedSAEConfig


class AlignedStandard(_Aligned, StandardTrainingSAE):
    """SAELens's `StandardTrainingSAE` with alignment scores of 1."""


class AlignedTopK(_Aligned, TopKTrainingSAE):
    """SAELens's `TopKTrainingSAE` with alignment scores of 1."""


class AlignedBatchTopK(_Aligned, BatchTopKTrainingSAE):
    """SAELens's `BatchTopKTrainingSAE` with alignment scores of 1."""


class AlignedMatryoshka(_Aligned, MatryoshkaBatchTopKTrainingSAE):
    """SAELens's `MatryoshkaBatchTopKTrainingSAE` with alignment scores of 1."""


class AlignedJumpReLU(_Aligned, JumpReLUTrainingSAE):
    """SAELens's `JumpReLUTrainingSAE` with alignment scores of 1."""


class AlignedGated(_Aligned, GatedTrainingSAE):
    """SAELens's `GatedTrainingSAE` with alignment scores of 1."""


# Not by `register_sae_training_class`, which refuses a second time: a module that is reloaded brings its new classes.
for _config, _sae in (
    (AlignedStandardConfig, AlignedStandard),
    (AlignedTopKConfig, AlignedTopK),
    (AlignedBatchTopKConfig, AlignedBatchTopK),
    (AlignedMatryoshkaConfig, AlignedMatryoshka),
    (AlignedJumpReLUConfig, AlignedJumpReLU),
    (AlignedGatedConfig, AlignedGated),
):
    SAE_TRAINING_CLASS_REGISTRY[_config.architecture()] = (_sae, _config)
