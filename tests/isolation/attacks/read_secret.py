"""Read a file that was not granted."""

from pathlib import Path

from module import serve, target

serve(lambda: Path(target("SECRET")).read_text())
