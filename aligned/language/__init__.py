"""From text to activations: text, the labels of its tokens, language models, and pools of what they compute."""
