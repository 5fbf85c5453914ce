"""The page of `watch`: frames that can be decoded, loopback only, a clean end (fault)."""

import http.client
import io
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from meta_impala.errors import UserError
from meta_impala.evaluation.live_page import ADDRESS, LivePage


def _frame(grey):
    return Image.new("RGB", (40, 30), (grey, grey, grey))


def _decoded(content):
    image = Image.open(io.BytesIO(content))
    assert image.format == "JPEG" and image.size == (40, 30)
    return int(np.asarray(image)[15, 20, 0])


@pytest.fixture
def page():
    with LivePage(0, "<Catch> & more") as page:
        yield page


def _part(response):
    """The next part of a multipart stream."""
    line = response.readline()
    while not line.lower().startswith(b"content-length"):
        assert line, "the stream has ended"
        line = response.readline()
    assert response.readline() == b"\r\n"
    return response.read(int(line.split(b":")[1]))


def test_a_browser_gets_a_page_without_a_script(page):
    with urllib.request.urlopen(page.url) as response:
        text = response.read().decode()
    assert '<img src="/live"' in text and "<script" not in text and "http" not in text
    assert "&lt;Catch&gt; &amp; more" in text


def test_the_newest_frame_can_be_decoded(page):
    for grey in (10, 200):
        page.show(_frame(grey))
        with urllib.request.urlopen(f"{page.url}frame.jpg") as response:
            assert response.headers["Content-Type"] == "image/jpeg"
            assert _decoded(response.read()) == pytest.approx(grey, abs=3)


def test_the_stream_shows_frame_after_frame(page):
    page.show(_frame(0))
    with urllib.request.urlopen(f"{page.url}live") as response:
        assert response.headers["Content-Type"].startswith("multipart/x-mixed-replace")
        for grey in (0, 90, 180):
            page.show(_frame(grey))
            seen = _decoded(_part(response))
            while seen != pytest.approx(grey, abs=3):
                seen = _decoded(_part(response))


def test_a_slow_viewer_skips_frames_and_does_not_delay_others(page):
    page.show(_frame(0))
    with socket.create_connection((ADDRESS, int(page.url.split(":")[2].strip("/")))) as slow:
        slow.sendall(b"GET /live HTTP/1.0\r\n\r\n")
        start = time.monotonic()
        for _ in range(2000):
            page.show(_frame(50))
        assert time.monotonic() - start < 20
        with urllib.request.urlopen(f"{page.url}frame.jpg", timeout=10) as response:
            assert _decoded(response.read()) == pytest.approx(50, abs=3)


def test_the_server_listens_on_localhost_only(page):
    assert page.url.startswith(f"http://{ADDRESS}:") and ADDRESS == "127.0.0.1"
    port = int(page.url.split(":")[2].strip("/"))
    with socket.socket() as other:  # any other address of this machine refuses
        other.settimeout(2)
        assert other.connect_ex(("127.0.0.2", port)) != 0


@pytest.mark.parametrize("path", ["x", "../etc/passwd", "frame.jpg/", "live/.."])
def test_other_paths_and_methods_are_refused(page, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(page.url + path)
    connection = http.client.HTTPConnection(page.url.split("/")[2], timeout=10)
    connection.request("POST", "/")
    assert connection.getresponse().status == 501
    connection.close()


def test_the_number_of_viewers_is_limited(page):
    page.show(_frame(0))
    opened = [urllib.request.urlopen(f"{page.url}live") for _ in range(16)]
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"{page.url}live")
    for response in opened:
        response.close()
    page.show(_frame(0))


def test_the_server_ends_with_viewers_connected_and_frees_the_port():
    before = threading.active_count()
    with LivePage(0, "Catch") as page:
        page.show(_frame(0))
        waiting = urllib.request.urlopen(f"{page.url}live")
        _part(waiting)
        port = int(page.url.split(":")[2].strip("/"))
    assert waiting.read() == b"\r\n--frame\r\n"  # the end of the stream
    waiting.close()
    for _ in range(50):
        if threading.active_count() == before:
            break
        time.sleep(0.1)
    assert threading.active_count() == before
    with LivePage(port, "Catch") as again:
        assert again.url == page.url


def test_a_port_that_is_taken_is_one_line(page):
    port = int(page.url.split(":")[2].strip("/"))
    with pytest.raises(UserError, match=f"--port={port}: cannot be used"):
        LivePage(port, "Catch")
