"""The text of an answer while it is written, put together from its deltas."""

from schemas.results import Delta


class GrowingAnswer:
    """Takes the deltas of one answer; `text` only grows.

    An answer that another worker begins again has the same text, which continues where the text so far ends. After a
    delta that did not arrive nothing is added in that generation: the result has all of the text.
    """

    def __init__(self) -> None:
        self.text = ""
        self._generation = 0
        self._again = ""  # the text of the latest generation
        self._next = 0  # number of its next delta

    def take(self, delta: Delta) -> str:
        """Take a delta, and return what is new in `text`."""
        if delta.generation < self._generation:
            return ""
        if delta.generation > self._generation:
            self._generation, self._again, self._next = delta.generation, "", 0
        if delta.number != self._next:
            return ""
        self._again, self._next = self._again + delta.text, self._next + 1
        return self.finish(self._again)

    def finish(self, text: str) -> str:
        """Take the entire text, and return what is new in it."""
        if not text.startswith(self.text):
            return ""
        new, self.text = text[len(self.text) :], text if len(text) > len(self.text) else self.text
        return new
