"""From activations to an SAE: the training loop, the step, sparse codes, and the compiled inner loops."""
