"""Plain data: samples, rows, readers, corpora, words. No torch here."""
