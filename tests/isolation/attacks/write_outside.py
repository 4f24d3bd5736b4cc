"""Write a file to a folder that was not granted."""

from pathlib import Path

from module import serve, target

serve(lambda: Path(target("OUTSIDE"), "planted").write_text("planted"))
