"""BERT: a Transformer that reads both ways, pretrained by words masked out and by which sentence follows."""
