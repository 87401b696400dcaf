"""Serves FILE as any path and as a data set of the Hub, and runs COMMAND, where {URL} is the server.

    serve.py FILE STATUS COMMAND...

A request without a token is answered with STATUS, unless that is 200.
"""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

file, status, command = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
data = file.read_bytes()
COMMIT = "0123456789abcdef"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if status != 200 and "Authorization" not in self.headers:
            return self.answer(status, b"")
        if "/revision/" in self.path:
            return self.answer(200, json.dumps({"sha": COMMIT}).encode())
        if "/tree/" in self.path:
            oid = hashlib.sha256(data).hexdigest()
            entry = {"type": "file", "path": file.name, "size": len(data), "lfs": {"oid": oid}}
            return self.answer(200, json.dumps([entry]).encode())
        return self.answer(200, data)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}"
environment = os.environ | {"HF_ENDPOINT": url}
sys.exit(subprocess.run([part.replace("{URL}", url) for part in command], env=environment).returncode)
