"""The outside API: takes two seconds to say that it cannot answer. Nobody traces it."""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TAKES_S = 2.0


class Rates(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(TAKES_S)
        self.send_error(503)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Rates).serve_forever()
