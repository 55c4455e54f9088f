"""Compiled programs are kept for the next process, whatever happened to the last one."""

import os
import pathlib
import subprocess
import sys

CODE = """
import jax, warnings
from mnemo_compile.meta import keep_compiled_programs
warnings.simplefilter("error")
keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.jit(lambda x: 2 * x + 1)(3))
"""


def test_a_program_that_was_not_written_to_the_end_is_made_again(own_cache: pathlib.Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}

    def run() -> None:
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "7", "")

    run()
    programs = {path: path.read_bytes() for path in (own_cache / "programs").glob("*-cache")}
    assert programs
    for path, content in programs.items():
        # As if the process had been stopped while it wrote the program.
        path.write_bytes(content[: len(content) // 2])
        path.with_name(path.name.replace("-cache", "-atime")).unlink()
    run()
    assert {path.name for path in (own_cache / "programs").glob("*-cache")} == {path.name for path in programs}
    assert all(len(path.read_bytes()) > len(content) // 2 for path, content in programs.items())
