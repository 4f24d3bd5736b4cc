"""Fixtures of the tests of plugins: a folder of distributions that are installed for one test."""

import importlib
import sys

import pytest


class Site:
    """A folder of installed distributions on the path of this process."""

    def __init__(self, folder):
        self._folder = folder

    def install(self, group, name, source, *, distribution=None, target="{module}"):
        """Install a distribution with one module and one entry point. Return the module's name."""
        distribution = distribution or f"outside-{name}"
        module = distribution.replace("-", "_")
        (self._folder / f"{module}.py").write_text(source)
        information = self._folder / f"{module}-1.0.dist-info"
        information.mkdir(exist_ok=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        with (information / "entry_points.txt").open("a") as points:
            points.write(f"[{group}]\n{name} = {target.format(module=module)}\n")
        importlib.invalidate_caches()
        return module

    def was(self, what, module):
        """Tell whether a module was `imported`, or its hook was `opened`."""
        return self.path(what, module).exists()

    def read(self, what, module):
        return self.path(what, module).read_text()

    def path(self, what, module):
        return self._folder / f"{module}.{what}"

    def modules(self):
        return [path.stem for path in self._folder.glob("*.py")]


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    site = Site(folder)
    yield site
    for name in site.modules():
        sys.modules.pop(name, None)
