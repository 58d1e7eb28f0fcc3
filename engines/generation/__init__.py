"""Text that language models write: requests for answers, and the answers as they grow."""
