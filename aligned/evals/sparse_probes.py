"""k-sparse probing: do a few features tell whether an attribute holds? (arXiv 2305.01610, as in SAEBench, 2503.09532.)

SCR asks what happens where features are taken out, and its answer is noisy. Sparse probing asks a simpler question
about the same texts: a logistic probe reads only the k features whose mean codes differ most between the classes. For a
dictionary that has a feature for the attribute, k = 1 is enough. A probe that reads all dimensions of the activations
shows how much there is to be found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float

from aligned.evals.fits import check_counts, check_sae
from aligned.evals.spurious import Texts, check_texts, mean_codes
from aligned.sae import SAE

if TYPE_CHECKING:
    import pandas as pd

KS = (1, 2, 5, 16)


@torch.no_grad()
def probing(sae: SAE, train: Texts, test: Texts, ks: Sequence[int] = KS) -> pd.DataFrame:
    """The accuracy of probes of k features, for both attributes of some texts.

    Each text is represented by its mean code, and all classes have the same size: as many texts of each combination of
    the attributes are taken as there are of the rarest (`Texts.balanced`), so that 0.5 is chance and neither attribute
    says anything of the other. The features are chosen on the training texts, by |mean code where the attribute holds -
    mean code where not|, and the probes, scikit-learn's logistic regression on standardised inputs, are trained on
    them.

    Args:
        sae: for raw activations.
        train: texts to choose features and train probes on.
        test: texts that the accuracies are measured on.
        ks: values of k.

    Returns:
        Rows of `attribute` (`a`, `b`), `k`, `accuracy`, and `full`, the accuracy of the same kind of probe on the mean
        activation's d_in dimensions, which is the same for every k and every SAE.

    Raises:
        ValueError: a value of k under 1 or over d_sae; texts that lack a combination of the attributes.
    """
    import pandas as pd

    check_sae(sae)
    ks = check_counts("ks", ks, sae)
    check_texts(train, test)
    learn, even = train.balanced, test.balanced
    f_train, f_test = mean_codes(sae, train, learn), mean_codes(sae, test, even)
    x_train, x_test = train.mean[learn].numpy(), test.mean[even].numpy()
    rows = []
    for attribute in "ab":
        y_train, y_test = getattr(train, attribute)[learn].numpy(), getattr(test, attribute)[even].numpy()
        full = _accuracy(x_train, y_train, x_test, y_test)
        difference = np.abs(f_train[y_train].mean(0) - f_train[~y_train].mean(0))
        order = np.argsort(-difference, kind="stable")
        for k in ks:
            top = order[:k]
            accuracy = _accuracy(f_train[:, top].toarray(), y_train, f_test[:, top].toarray(), y_test)
            rows.append((attribute, k, accuracy, full))
    return pd.DataFrame(rows, columns=["attribute", "k", "accuracy", "full"])


def _accuracy(
    x: Float[np.ndarray, "n d"],
    y: Bool[np.ndarray, " n"],
    test_x: Float[np.ndarray, "m d"],
    test_y: Bool[np.ndarray, " m"],
) -> float:
    """The accuracy of a probe trained on x and y and tested on test_x and test_y. Inputs are standardised, because
    otherwise a penalty on the weights would favour the SAE with the larger codes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(probe.fit(x, y).score(test_x, test_y))
