"""Event files for TensorBoard."""

import pathlib
import time

import tensorboardX.summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]


class Events:
    """An event file, written on this thread, so that a full disk is noticed here and nowhere else."""

    def __init__(self, folder: pathlib.Path, start: int):
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        if start:
            # TensorBoard then drops what an earlier file says of the meta-steps that are taken again.
            log = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=start + 1, session_log=log))

    def add(self, name: str, value: float, step: int) -> None:
        """Adds one scalar."""
        summary = tensorboardX.summary.scalar(name, value)
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Writes what was added."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
