"""A running average."""


class Average:
    """Discounted mean of the values so far, unbiased at the start."""

    def __init__(self, discount: float = 0.9):
        self._discount, self._total, self._weight = discount, 0.0, 0.0

    def add(self, value: float) -> float:
        """The average with one more value."""
        self._total, self._weight = self._discount * self._total + value, self._discount * self._weight + 1
        return self._total / self._weight
