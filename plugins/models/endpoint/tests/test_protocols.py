"""What is sent and what is read, for every protocol, without a network."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from mi_model_endpoint.protocols import Kserve, MalformedError, Named, Plain, label_of, png

CLASSES = ("ann", "ben", "cleo")
SCORES = [[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]


def images(n: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.rand(n, channels, 4, 5, generator=torch.Generator().manual_seed(n))


def sent(message) -> dict:
    return json.loads(message.content)


def opened(content: bytes) -> torch.Tensor:
    pixels = np.array(Image.open(io.BytesIO(content)))
    return torch.from_numpy(pixels).float() / 255


def test_kserve_sends_a_tensor():
    (tensor,) = sent(Kserve(input_name="x").write(images()))["inputs"]
    assert tensor["name"] == "x"
    assert tensor["datatype"] == "FP32"
    assert torch.equal(torch.tensor(tensor["data"]).view(tensor["shape"]), images())


def test_kserve_sends_pictures():
    (tensor,) = sent(Kserve(png=True).write(images()))["inputs"]
    assert (tensor["datatype"], tensor["shape"]) == ("BYTES", [2])
    pixels = opened(base64.b64decode(tensor["data"][1])).permute(2, 0, 1)
    assert torch.allclose(pixels, images()[1], atol=0.5 / 255 + 1e-6)


def test_grey_pictures():
    assert torch.allclose(opened(png(images(1, 1)[0])), images(1, 1)[0, 0], atol=0.5 / 255 + 1e-6)


def test_kserve_reads_scores_and_labels():
    labels = {"name": "labels", "datatype": "INT64", "shape": [2], "data": [1, 2]}
    scores = {"name": "scores", "datatype": "FP32", "shape": [2, 3], "data": SCORES}
    document = {"outputs": [labels, scores]}
    assert Kserve().read(document, 2).tolist() == [1, 2]
    assert torch.equal(Kserve(output="scores").read(document, 2), torch.tensor(SCORES))
    flat = {"outputs": [{**scores, "data": [value for row in SCORES for value in row]}]}
    assert torch.equal(Kserve().read(flat, 2), torch.tensor(SCORES))


def test_plain_json():
    plain = Plain(classes=CLASSES)
    assert torch.equal(torch.tensor(sent(plain.write(images()))["inputs"]), images())
    assert len(sent(Plain(classes=CLASSES, png=True).write(images()))["images"]) == 2
    assert torch.equal(plain.read({"scores": SCORES}, 2), torch.tensor(SCORES))
    assert plain.read({"labels": ["ben", 2]}, 2).tolist() == [1, 2]
    top = [[{"label": "cleo", "score": 0.7}], [{"label": 0, "score": 0.6}]]
    assert torch.allclose(plain.read({"top": top}, 2), torch.tensor([[0, 0, 0.7], [0.6, 0, 0]]))


@pytest.mark.parametrize(
    "document",
    [
        [{"label": "cleo", "score": 0.7}, {"label": "ann", "score": 0.2}],
        [[{"label": "LABEL_2", "score": 0.7}, {"label": "LABEL_0", "score": 0.2}]],
        {"cleo": 0.7, "ann": 0.2},
        {"2": 0.7, "0": 0.2},
        [0.2, 0, 0.7],
    ],
)
def test_answers_that_name_classes(document):
    assert torch.allclose(Named(classes=CLASSES).read(document, 1), torch.tensor([[0.2, 0, 0.7]]))


def test_a_label_alone():
    assert Named(classes=CLASSES).read("ben", 1).tolist() == [1]
    assert Named(classes=CLASSES).read(2, 1).tolist() == [2]


def test_one_picture_as_a_file():
    message = Named(classes=CLASSES).write(images(1))
    assert message.content_type == "image/png"
    assert opened(message.content).shape == (4, 5, 3)
    assert torch.equal(torch.tensor(sent(Named(classes=CLASSES, png=False).write(images(1)))["inputs"]), images(1)[0])


PLAIN, NAMED = Plain(classes=CLASSES), Named(classes=CLASSES)


def kserve_output(**changes: object) -> dict[str, object]:
    return {"outputs": [{"name": "x", "datatype": "FP32", "data": [0.1] * 6, **changes}]}


@pytest.mark.parametrize(
    ("protocol", "document"),
    [
        (Kserve(), []), (Kserve(), {"outputs": []}), (Kserve(output="other"), kserve_output()),
        (Kserve(), kserve_output(data=["a", "b"])), (Kserve(), kserve_output(data=[0.1] * 5)),
        (Kserve(), kserve_output(datatype="INT64", data=[1])), (Kserve(), kserve_output(data=None)),
        (PLAIN, None), (PLAIN, {}), (PLAIN, {"labels": ["zoe", "ann"]}), (PLAIN, {"labels": ["ann"]}),
        (PLAIN, {"top": [[{"label": "ann"}], []]}), (PLAIN, {"top": [[]]}),
        (NAMED, None), (NAMED, {"zoe": 1.0}), (NAMED, {"ann": "much"}), (NAMED, True), (NAMED, {"ann": 1.0}),
    ],
)  # fmt: skip
def test_answers_that_cannot_be_read(protocol, document):
    with pytest.raises(MalformedError, match="it"):
        protocol.read(document, 2)


def test_names_go_before_numbers():
    assert label_of("1", ("1", "0")) == 0
    with pytest.raises(MalformedError, match="names a class 'LABEL_9'"):
        label_of("LABEL_9", CLASSES)
