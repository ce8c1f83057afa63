"""Coverage-guided fuzzing of every file that others write: `make fuzz`, for as long as you like.

    python tests/fuzz SECONDS [TARGET ...]

Each target runs in a process of its own, since libFuzzer ends the process. What breaks a target is
left in out/fuzz/<target>/, from where `outcome` takes it again.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

OUT = Path("out/fuzz")
MAX_INPUT_BYTES = 2**16
MEMORY_MB = 2048
HANGS_SECONDS = 30


def main() -> None:
    """Fuzz the named targets, or all, one after the other."""
    from hostile import TARGETS

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
        # Ours alone: to instrument all of pyarrow or torch takes longer than to fuzz.
        with atheris.instrument_imports(
            include=["lora_api", "lora_jobs"], enable_loader_override=False
        ):
            from hostile import TARGETS, outcome, seeds

            target, originals = TARGETS[name], list(seeds(name, world))
            for number, seed in enumerate(originals):
                (corpus / f"seed-{number}").write_bytes(seed)
                outcome(target, world, seed)  # imports what is imported late

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
