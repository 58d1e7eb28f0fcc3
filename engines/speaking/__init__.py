"""From text to the symbols that a model speaks: sentences, phonemes, symbols."""
