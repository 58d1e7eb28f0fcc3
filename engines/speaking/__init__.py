"""From a sentence to sound: phonemes, symbols, and the run of a model that speaks."""
