"""From sound to words: where there is speech, what Whisper takes, and what its tokens mean."""
