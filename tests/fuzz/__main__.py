"""Coverage-guided fuzzing of every file that others write: `make fuzz`, for as long as you like.

    python tests/fuzz SECONDS [TARGET ...]

Each target runs in a process of its own, since libFuzzer ends the process. What breaks a target is
left in out/fuzz/<target>/, from where `outcome` takes it again.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from hostile import TARGETS, outcome, seeds

OUT = Path("out/fuzz")
MAX_INPUT_BYTES = 2**16
MEMORY_MB = 2048
HANGS_SECONDS = 30


def main() -> None:
    """Fuzz the named targets, or all, one after the other."""
    seconds, names = sys.argv[1], sys.argv[2:] or list(TARGETS)
    failed = [name for name in names if _apart(name, seconds)]
    if failed:
        sys.exit(f"broken: {', '.join(failed)}; see {OUT}")
    print(f"{len(names)} targets, {seconds} s each: nothing broke")


def _apart(name: str, seconds: str) -> int:
    return subprocess.run([sys.executable, __file__, "--one", name, seconds]).returncode


def _fuzz(name: str, seconds: str) -> None:
    """Never returns: libFuzzer ends the process, with 0 when nothing broke."""
    import atheris

    corpus = OUT / name.replace(" ", "-")
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "world"
        for number, seed in enumerate(seeds(name, world)):
            (corpus / f"seed-{number}").write_bytes(seed)
        target = TARGETS[name]
        atheris.instrument_all()

        def once(data: bytes) -> None:
            outcome(target, world, data)

        options = [
            sys.argv[0], str(corpus), f"-artifact_prefix={corpus}/broken-",
            f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}",
            f"-rss_limit_mb={MEMORY_MB}", f"-timeout={HANGS_SECONDS}",
        ]  # fmt: skip
        atheris.Setup(options, once)
        atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _fuzz(*sys.argv[2:4])
    else:
        main()
