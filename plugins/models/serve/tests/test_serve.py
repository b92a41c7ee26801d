"""The reference server: what it answers, what it refuses, and a run against it that counts alike."""

from __future__ import annotations

import base64
import io

import httpx2
import pytest
from PIL import Image

from micore.threat import Access

FILLED = [0.5] * 16


def body(**changes: object) -> dict[str, object]:
    tensor = {"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": FILLED}
    return {"inputs": [{**tensor, **changes}]}


def picture(size: int = 4, mode: str = "L") -> str:
    buffer = io.BytesIO()
    Image.new(mode, (size, size)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_it_speaks_the_protocol(serving):
    url = serving().url
    root = url.partition("/models")[0]
    assert httpx2.get(root).json()["name"] == "micore"
    assert httpx2.get(f"{root}/health/ready").json()["ready"] is True
    assert httpx2.get(f"{url}/ready").status_code == 200
    described = httpx2.get(url).json()
    assert [item["shape"] for item in described["inputs"]] == [[-1, 1, 4, 4]]
    assert {item["name"]: item["shape"] for item in described["outputs"]} == {"scores": [-1, 3], "labels": [-1]}
    answer = httpx2.post(f"{url}/infer", json={**body(), "id": "7"}).json()
    assert answer["id"] == "7"
    scores, labels = answer["outputs"]
    assert sum(scores["data"]) == pytest.approx(1)
    assert labels["data"] == [scores["data"].index(max(scores["data"]))]
    assert httpx2.get(f"{url}/stats").json()["model_stats"][0]["inference_count"] == 1


def test_labels_only_means_it(serving):
    url = serving(Access.LABEL).url
    assert [item["name"] for item in httpx2.get(url).json()["outputs"]] == ["labels"]
    assert [item["name"] for item in httpx2.post(f"{url}/infer", json=body()).json()["outputs"]] == ["labels"]


@pytest.mark.parametrize(("size", "mode"), [(4, "L"), (9, "RGB")])
def test_pictures_of_any_size_and_mode(serving, size, mode):
    pictures = body(shape=[1], datatype="BYTES", data=[picture(size, mode)])
    assert httpx2.post(f"{serving().url}/infer", json=pictures).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"shape": [1, 1, 4, 5]}, 400), ({"data": FILLED[1:]}, 400), ({"data": ["x"] * 16}, 400),
        ({"data": [1.5] * 16}, 400), ({"shape": [0, 1, 4, 4], "data": []}, 413), ({"shape": []}, 413),
        ({"shape": [99_999, 1, 4, 4]}, 413), ({"datatype": "BYTES", "data": ["no picture"]}, 400),
        ({"datatype": "INT8"}, 422),
    ],
)  # fmt: skip
def test_what_it_refuses(serving, changes, status):
    setup = serving()
    assert httpx2.post(f"{setup.url}/infer", json=body(**changes)).status_code == status
    assert httpx2.post(f"{setup.url}/infer", json={"inputs": []}).status_code == 400
    assert setup.served.counter.samples == 0


def test_a_token_is_asked_for(serving):
    url = serving(token="open sesame").url
    assert httpx2.get(url).status_code == 401
    assert httpx2.post(f"{url}/infer", json=body(), headers={"Authorization": "Bearer other"}).status_code == 401
    assert httpx2.get(url, headers={"Authorization": "Bearer open sesame"}).status_code == 200
