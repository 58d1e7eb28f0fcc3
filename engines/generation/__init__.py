"""Text that language models write: what is asked of them, and the answers as they grow."""
