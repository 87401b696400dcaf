"""The wheels: what they bring, what they require, and that training works from them. tools/wheel runs these tests."""

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from importlib import metadata
from pathlib import Path

import pytest

import tinyres

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
WORKSPACE = tomllib.loads((ROOT / "Cargo.toml").read_text())
VERSION = WORKSPACE["workspace"]["package"]["version"]
LICENCES = {"LICENSE-MIT", "LICENSE-APACHE", "LICENSE-THIRD-PARTY.txt"}


def installed(distribution):
    try:
        return metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        pytest.skip(f"tools/wheel has not built {distribution}")


def run(*command, **environment):
    return subprocess.run(list(map(str, command)), env=os.environ | environment, text=True, capture_output=True)


def test_wheel_has_package_program_and_types_and_needs_numpy_alone():
    wheel = installed("tinyres")
    assert wheel.version == tinyres.__version__ == VERSION
    assert [need for need in wheel.requires if "extra" not in need] == ["numpy>=1.26"]
    files = {str(file) for file in wheel.files}
    assert {"tinyres/py.typed", "tinyres/_native.pyi"} <= files
    assert {name.split("/")[-1] for name in files if "license" in name} == LICENCES
    notices = wheel.read_text("licenses/LICENSE-THIRD-PARTY.txt")
    assert {"pyo3", "clap", "zstd-sys", "turbojpeg-sys"} <= set(re.findall(r"^(\S+) \d\S+ \(.*\)$", notices, re.M))
    # What is compiled in, for those who look for known faults in it.
    (bill,) = [file for file in wheel.files if "sboms" in file.parts]
    components = {component["name"] for component in json.loads(bill.read_text())["components"]}
    assert {"pyo3", "parquet", "turbojpeg-sys"} <= components
    # Of this directory nothing else, whatever lies in it.
    assert {Path(name).parts[0] for name in files if not name.startswith("..")} == {
        "tinyres",
        f"tinyres-{VERSION}.dist-info",
    }
    assert [name for name in files if name.startswith("..")] == ["../../../bin/tinyres"]


def test_program_needs_neither_numpy_nor_the_package(tmp_path):
    (tmp_path / "numpy.py").write_text("raise SystemError('NumPy was imported')")
    result = run(BIN / "tinyres", "--version", PYTHONPATH=tmp_path)
    assert result.stdout.split() == ["tinyres", VERSION], result


def test_program_ends_with_the_exit_code_of_its_command_and_all_of_its_output(tmp_path):
    assert run(BIN / "tinyres", "sample", tmp_path / "tree", "--classes", 2).returncode == 0
    failed = run(BIN / "tinyres", "inspect", tmp_path / "missing")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ") and "missing" in failed.stderr
    wrong = run(BIN / "tinyres", "sample", "--no-such-flag")
    assert wrong.returncode == 2
    assert "--no-such-flag" in wrong.stderr
    helped = run(BIN / "tinyres", "sample", "--help")
    assert helped.returncode == 0
    assert "--classes" in helped.stdout


def test_program_takes_names_of_files_that_are_not_text(tmp_path):
    result = run(BIN / "tinyres", "sample", os.fsdecode(os.fsencode(tmp_path) + b"/tree\xff"), "--classes", 2)
    assert result.returncode == 0, result
    assert os.listdir(os.fsencode(tmp_path)) == [b"tree\xff"]


def test_program_ends_at_ctrl_c_as_a_program_does(tmp_path):
    command = [BIN / "tinyres", "sample", tmp_path / "tree", "--classes", "200", "--train-per-class", "5000"]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as program:
        while program.poll() is None and not list(tmp_path.iterdir()):
            time.sleep(0.01)
        program.send_signal(signal.SIGINT)
        assert "Traceback" not in program.stderr.read()
    assert program.returncode == -signal.SIGINT


def test_each_extra_is_the_program_of_this_version():
    needs = installed("tinyres").requires
    assert {re.sub("[\"' ]", "", need) for need in needs if "extra" in need} == {
        f"tinyres-remote=={VERSION};extra==remote",
        f"tinyres-torch=={VERSION};extra==train",
        f"tinyres-view=={VERSION};extra==view",
    }


def test_tinyres_torch_needs_the_torch_that_it_was_linked_with():
    program = installed("tinyres-torch")
    pinned = (ROOT / "tools/libtorch/cpu.txt").read_text()
    release = re.search(r"^torch==(\d+\.\d+)\.", pinned, re.M).group(1)
    assert sorted(program.requires) == [f"tinyres=={VERSION}", f"torch=={release}.*"]
    assert program.version == VERSION


def test_tinyres_view_is_the_program_alone_and_serves_the_page(tmp_path):
    wheel = installed("tinyres-view")
    assert wheel.version == VERSION
    assert wheel.requires == [f"tinyres=={VERSION}"]
    files = [str(file) for file in wheel.files]
    assert [name for name in files if f"tinyres_view-{VERSION}.dist-info" not in name] == ["../../../bin/tinyres-view"]
    notices = {name.split("/")[-1] for name in files if "license" in name.lower()}
    assert notices == LICENCES | {f"{name}.LICENSE" for name in ("htm", "preact", "uplot")}
    for command in (
        ["sample", tmp_path / "tree", "--classes", 2, "--train-per-class", 8, "--val-per-class", 4, "--test", 0],
        ["pack", tmp_path / "tree", "-o", tmp_path / "shards"],
    ):
        result = run(BIN / "tinyres", *command)
        assert result.returncode == 0, result.stderr
    command = [BIN / "tinyres", "view", tmp_path / "shards", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            link = json.loads(server.stdout.readline())["url"]
            with urllib.request.urlopen(link) as answer:
                page = answer.read().decode()
        finally:
            server.terminate()
    assert "<!doctype html>" in page.lower() and "app.js" in page


def test_a_program_next_to_the_script_comes_before_one_in_path(tmp_path):
    for place, code in ("here", 7), ("path", 8):
        (tmp_path / place).mkdir()
        program = tmp_path / place / "tinyres-remote"
        program.write_text(f"#!/bin/sh\nexit {code}\n")
        program.chmod(0o755)
    shutil.copy(BIN / "tinyres", tmp_path / "here")
    paths = {"PATH": f"{tmp_path / 'path'}:/usr/bin:/bin", "TINYRES_CACHE": tmp_path}
    for place, code in ("here", 7), ("path", 8):
        result = run(tmp_path / "here/tinyres", "inspect", "https://localhost/set/", **paths)
        assert result.returncode == 1, result
        assert f"exit status: {code}" in result.stderr, (place, result.stderr)
        (tmp_path / "here/tinyres-remote").unlink(missing_ok=True)


def test_tinyres_remote_is_the_program_alone_and_is_found_without_path(tmp_path):
    wheel = installed("tinyres-remote")
    assert wheel.version == VERSION
    assert wheel.requires == [f"tinyres=={VERSION}"]
    files = [str(file) for file in wheel.files]
    own = [name for name in files if f"tinyres_remote-{VERSION}.dist-info" not in name]
    assert own == ["../../../bin/tinyres-remote"]
    assert {name.split("/")[-1] for name in files if "license" in name.lower()} == LICENCES
    commands = {"inspect": "tinyres", "train": "tinyres-torch", "view": "tinyres-view"}
    for program in commands.values():
        installed(program)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NothingHere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/set/"
        for command in commands:
            result = run(BIN / "tinyres", command, address, TINYRES_CACHE=tmp_path, PATH="/usr/bin:/bin")
            assert result.returncode == 1, result
            # The words of tinyres-remote.
            assert "there is no such object" in result.stderr, result.stderr
        server.shutdown()


class NothingHere(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_training_works_with_the_libtorch_of_the_torch_package(tmp_path):
    installed("tinyres-torch")
    pytest.importorskip("torch")
    for command in (
        ["sample", tmp_path / "tree", "--classes", 2, "--train-per-class", 8, "--val-per-class", 4, "--test", 0],
        ["pack", tmp_path / "tree", "-o", tmp_path / "shards"],
        ["train", tmp_path / "shards", "-o", tmp_path / "run", "--max-steps", 1, "--batch", 8, "--sizes", 32],
    ):
        result = run(BIN / "tinyres", *command)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "final.safetensors").exists()


def test_program_takes_libtorch_from_the_package_even_if_the_environment_names_another(tmp_path):
    """A file that is no library, in LD_LIBRARY_PATH: it would be loaded if it came first."""
    installed("tinyres-torch")
    pytest.importorskip("torch")
    (tmp_path / "libtorch_cpu.so").write_text("not a library")
    result = run(BIN / "tinyres-torch", "--version", LD_LIBRARY_PATH=tmp_path)
    assert result.stdout.split() == ["tinyres", VERSION], result


@pytest.mark.parametrize("found", [None, "2.12.1"])
def test_missing_or_other_torch_is_named_with_the_command_that_installs_it(tmp_path, found):
    installed("tinyres-torch")
    if found:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch/__init__.py").write_text("raise SystemError('torch was imported')")
        info = tmp_path / f"torch-{found}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {found}\n")
    else:
        # The environment without the libraries of the tests.
        (tmp_path / "torch.py").write_text("")
    result = run(BIN / "tinyres", "doctor", PYTHONPATH=tmp_path)
    assert result.returncode == 1
    assert f"{sys.executable} -m pip install 'torch==" in result.stderr
    assert (found or "no package torch") in result.stderr
