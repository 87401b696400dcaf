#!/usr/bin/env python3
"""Fetching a set from an object store against curl of the same objects, in turns, on the loopback.

    PATH=$(tools/packages remote/tests/requirements.txt)/bin:$PATH benches/remote.py PROGRAM SHARDS

PROGRAM is tinyres-remote, SHARDS a packed set. Starts SeaweedFS, publishes the set there, and fetches it by turns with
tinyres-remote, which compares every byte with its checksum and waits for the disk, and with one curl, which does
neither. Prints the medians and the median of the ratios. Needs room for the set three times in TMPDIR.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path


def ports(count):
    """Free ports, each with the one 10,000 above it, which SeaweedFS takes, too."""
    found = []
    for port in range(21000, 31000):
        try:
            for other in (port, port + 10000):
                with socket.socket() as test:
                    test.bind(("127.0.0.1", other))
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise SystemExit("no free ports")


def start(directory):
    """A store whose bucket `sets` needs no keys, and its address."""
    config = directory / "s3.json"
    actions = [f"{action}:sets" for action in ("Read", "Write", "List")]
    config.write_text(json.dumps({"identities": [{"name": "anonymous", "actions": actions}]}))
    data = directory / "data"
    data.mkdir()
    names = ["s3", "master", "volume", "filer", "admin"]
    found = ports(len(names) + 1)
    command = ["weed", "mini", "-ip=127.0.0.1", "-webdav=false", "-admin.ui=false", f"-dir={data}", f"-s3.config={config}"]
    command += [f"-{name}.port={port}" for name, port in zip(names, found)]
    command += [f"-s3.port.iceberg={found[-1]}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=directory, env=os.environ | {"S3_BUCKET": "sets"}, **quiet)
    url = f"http://127.0.0.1:{found[0]}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/sets/").close()
            return server, url
        except OSError:
            time.sleep(0.2)
    server.kill()
    raise SystemExit("SeaweedFS does not start")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    names = [path.name for path in sorted(arguments.shards.iterdir()) if path.is_file()]
    size = sum((arguments.shards / name).stat().st_size for name in names)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        server, url = start(directory)
        try:
            environment = os.environ | {"AWS_ENDPOINT_URL": url, "AWS_SKIP_SIGNATURE": "true"}

            def remote(*words):
                subprocess.run([arguments.program.resolve(), *words], env=environment, check=True, capture_output=True)

            def fetch(to):
                remote("fetch", "s3://sets/set", "--cache", to)

            def curl(to):
                to.mkdir()
                words = [word for name in names for word in ("-o", to / name, f"{url}/sets/set/{name}")]
                subprocess.run(["curl", "--silent", "--fail", *words], check=True)

            remote("publish", arguments.shards, "s3://sets/set")
            seconds = {fetch: [], curl: []}
            for number in range(arguments.rounds + 1):
                for way, all_of_it in seconds.items():
                    to = directory / way.__name__
                    began = time.perf_counter()
                    way(to)
                    # The first round brings the objects to memory.
                    if number:
                        all_of_it.append(time.perf_counter() - began)
                    shutil.rmtree(to)
        finally:
            server.terminate()
            server.wait()
    ratio = statistics.median(b / a for a, b in zip(seconds[fetch], seconds[curl]))
    for way, all_of_it in seconds.items():
        median = statistics.median(all_of_it)
        print(f"{way.__name__:<6} {median:6.2f} s  {size / median / 1e6:6.0f} MB/s")
    print(f"speed of fetch as a multiple of curl's: {ratio:.2f}")


if __name__ == "__main__":
    main()
