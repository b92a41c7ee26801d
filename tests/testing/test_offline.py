"""No other machine is reached, and nobody waits for one."""

from __future__ import annotations

import http.server
import socket
import threading
import time
import urllib.request

import pytest

from micore.testing.offline import offline


def test_other_machines_are_refused_and_named():
    with offline() as asked:
        with pytest.raises(OSError, match="no network"):
            socket.create_connection(("example.com", 80))
        with socket.socket() as one, pytest.raises(OSError, match="no network"):
            one.connect(("192.0.2.1", 80))
    assert asked == ["example.com", "192.0.2.1"]


def test_this_machine_is_reached():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with offline() as asked, urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as answer:
            assert answer.status == 204
    assert asked == []


def test_nobody_waits_and_all_is_as_before():
    before = socket.getaddrinfo, socket.socket.connect, time.sleep
    started = time.monotonic()
    with offline():
        time.sleep(60)
    assert time.monotonic() - started < 30
    assert (socket.getaddrinfo, socket.socket.connect, time.sleep) == before
