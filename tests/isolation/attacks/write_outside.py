"""Leave a file where nobody opened a folder to it."""

from pathlib import Path

from module import serve, target

serve(lambda: Path(target("OUTSIDE"), "planted").write_text("planted"))
