"""GPT: a Transformer decoder pretrained on raw text, tuned whole to the task beside its language model."""
