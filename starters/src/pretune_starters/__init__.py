"""Small pretrained models for pretune; each folder in `models` is one, with a card in its README.md."""
