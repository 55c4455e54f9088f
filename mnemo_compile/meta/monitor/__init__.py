"""What a run shows while it goes on, and the records it leaves: metrics.jsonl, event files, curve.png."""

from ._curve import plot as plot
from ._metrics import read_metrics as read_metrics
from ._monitor import Monitor as Monitor
