"""Fuzzes one target for long, guided by coverage: `python3 noxfile.py -s fuzz -- SECONDS TARGET …`

    python -m tests.fuzz.run FOLDER TARGET [libFuzzer's options]

Inputs that reach new code stay in FOLDER/TARGET. A finding is written there as `crash-…`; add it to FOUND of
test_fuzz.py.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["amplifier_core", "amplifier_transport_http", "amplifier_transport_stdio"]):
    from tests.fuzz.seeds import SEEDS, WORDS
    from tests.fuzz.targets import TARGETS


def quoted(word: bytes) -> str:
    """Write a word as a line of a dictionary of libFuzzer, which takes only short words."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word[:60]) + '"\n'


def main() -> None:
    """Fuzz for as long as the options of libFuzzer say, or until a finding."""
    _, folder, target, *options = sys.argv
    corpus = Path(folder, target)
    corpus.mkdir(parents=True, exist_ok=True)
    for n, seed in enumerate(SEEDS[target]):
        (corpus / f"seed-{n}").write_bytes(seed)
    words = Path(folder, "words")
    words.write_text("".join(map(quoted, WORDS)))
    with TARGETS[target]() as check:
        more = ["-max_len=4000", f"-dict={words}", f"-artifact_prefix={corpus}/", *options]
        atheris.Setup([sys.argv[0], *more, str(corpus)], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
