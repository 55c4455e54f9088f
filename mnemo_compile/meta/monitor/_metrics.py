"""The records of a run: metrics.jsonl, one JSON object per line."""

import json
import pathlib
from typing import Any

from ...errors import MnemoError
from ...frozen import replace_file

METRICS = "metrics.jsonl"


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a run, without a last line that a killed run left unfinished."""
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict) or "meta_step" not in record:
            raise MnemoError(f"{path} holds something else than a run's records; remove it, or name another run")
        records.append(record)
    return records


def truncate_metrics(path: pathlib.Path, meta_step: int) -> list[dict[str, Any]]:
    """Drops the records after a meta-step, which a resumed run takes again, and gives the others."""
    if not path.exists():
        return []
    records = [record for record in read_metrics(path) if record["meta_step"] <= meta_step]
    replace_file(path, "".join(json.dumps(record) + "\n" for record in records).encode())
    return records
