"""Read a file that nobody opened to it."""

from pathlib import Path

from module import serve, target

serve(lambda: Path(target("SECRET")).read_text())
