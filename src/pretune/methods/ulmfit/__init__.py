"""ULMFiT: AWD-LSTM language models, tuned in three stages."""
