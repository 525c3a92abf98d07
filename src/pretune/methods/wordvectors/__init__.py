"""Word vectors: word2vec and GloVe, what came before. One vector a word, and their mean."""

from __future__ import annotations

from pretune.data.vector_files import read_vectors
from pretune.methods.base import Method
from pretune.methods.wordvectors.encoder import WordVectorConfig, WordVectorEncoder
from pretune.methods.wordvectors.pretraining import Word2Vec, adopt
from pretune.methods.wordvectors.tokens import WordCodec, WordCodecConfig, learn_codec
from pretune.methods.wordvectors.weights import import_vectors
from pretune.recipes.full import Full

WORDVECTORS = Method(
    name="wordvectors",
    title="Word vectors (word2vec, GloVe)",
    paper="Mikolov et al. 2013, arXiv 1310.4546; Pennington et al. 2014, doi 10.3115/v1/D14-1162",
    learn_codec=learn_codec,
    load_codec=WordCodec.load,
    codec_config=WordCodecConfig,
    build=lambda config, codec: WordVectorEncoder(config, codec.size),
    encoder_config=WordVectorConfig,
    sizes={"tiny": WordVectorConfig(64), "small": WordVectorConfig(100), "base": WordVectorConfig(300)},
    pretraining=Word2Vec(),
    adaptation=Word2Vec(start="encoder"),
    adopt=adopt,
    recipe=Full(lr=0.03, epochs=20),
    task_options={"head_kind": "linear"},
)

__all__ = [
    "WORDVECTORS",
    "Word2Vec",
    "WordCodec",
    "WordCodecConfig",
    "WordVectorConfig",
    "WordVectorEncoder",
    "import_vectors",
    "read_vectors",
]
