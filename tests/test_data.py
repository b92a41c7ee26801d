"""Data sets are opened by name; what is wrong with them is a clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from micore.data import ROOT_OPTION, DataRequest, describe
from micore.errors import DataError, UnknownNameError
from tests import toys


@pytest.fixture(scope="module")
def plugins():
    return toys.registry()


def test_options_reach_the_data_set(plugins):
    dataset = DataRequest.parse("grids", {"size": 6, "n_classes": 3}).open(plugins)
    assert dataset.input.shape == (1, 6, 6)
    assert len(dataset.classes) == 3


def test_the_location_follows_the_colon(plugins):
    assert DataRequest.parse("bare:public+holdout").open(plugins).lacks == ("public", "holdout")
    with pytest.raises(DataError, match="takes no location, but 'a:b'"):
        DataRequest.parse("grids:a:b").open(plugins)


def test_what_cannot_be_opened_is_named(plugins):
    with pytest.raises(UnknownNameError, match="no dataset is called 'grid'") as caught:
        DataRequest.parse("grid").open(plugins)
    assert "grids" in caught.value.hint
    with pytest.raises(DataError, match="size"):
        DataRequest.parse("grids", {"size": 1}).open(plugins)
    with pytest.raises(DataError, match="'empty' has no private samples"):
        DataRequest.parse("empty").open(plugins)


def test_the_root_is_an_option_that_stays_on_this_machine(plugins, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    request = DataRequest.parse("grids", {"size": 4}, "somewhere")
    assert request.options == {"size": 4, ROOT_OPTION: str(Path("somewhere").absolute())}
    dataset = DataRequest.parse("grids", {"size": 4}).open(plugins)
    assert describe(request, dataset)["options"] == {"size": 4}
    assert request.to_dict()["options"] == request.options


def test_round_trip():
    request = DataRequest.parse("folder:x", {"size": 4}, "/data")
    assert DataRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request


def test_a_description_opens_the_same_data_again(plugins):
    request = DataRequest.parse("bare:holdout", toys.SMALL)
    dataset = request.open(plugins)
    facts = describe(request, dataset)
    assert facts["splits"] == {"private": 24, "public": 96}
    again = DataRequest.from_dict(facts).open(plugins)
    assert again.fingerprint == facts["fingerprint"]


def test_another_root_changes_nothing_else():
    request = DataRequest.parse("faces", {"size": 4}, "/here")
    assert request.under(None) is request
    assert request.under("/there") == DataRequest(uri="faces", options={"size": 4, ROOT_OPTION: "/there"})


def test_what_was_changed_on_reading_is_said(plugins):
    request = DataRequest.parse("grids", {"size": 4})
    dataset = request.open(plugins)
    assert describe(request, dataset)["notes"] == []

    class Noted:
        notes = ("3 recordings were resampled from 8000 Hz",)

        def __getattr__(self, name):
            return getattr(dataset, name)

    assert describe(request, Noted())["notes"] == ["3 recordings were resampled from 8000 Hz"]
