"""Sources that each break one rule."""

from __future__ import annotations

import numpy as np
import torch
from good import load_toy, toy_target
from toy_plugins import Collection

from micore.errors import ModelError
from micore.testing.toys import build_toy

broken = Collection("source")


@broken("scheme-is-its-own", says="one letter", scheme="c")
def has_a_drives_letter(request):
    """Open it."""
    return load_toy(request)


@broken("what-is-not-there-is-refused", says="FileNotFoundError")
def opens_files(request):
    """Open it."""
    return open(request.place)


@broken("what-is-not-there-is-refused", says="was opened")
def opens_later(request):
    """Open it."""
    return toy_target(request) if request.dataset else load_toy(request)


@broken("what-is-not-there-is-refused", says="message")
def mumbles(request):
    """Open it."""
    raise ModelError("no")


@broken("no-place-is-refused", says="an empty place was opened")
def has_a_default(request):
    """Open it."""
    return load_toy(request) if request.place else toy_target(request)


@broken("what-it-opens-is-a-target", says="no Bundle or External")
def gives_a_network(request):
    """Open it."""
    dataset = request.require_dataset()
    return build_toy(len(dataset.classes), dataset.input)


@broken("what-it-opens-is-a-target", says="fingerprint")
def has_no_fingerprint(request):
    """Open it."""
    return toy_target(request, fingerprint="")


@broken("what-it-opens-is-a-target", says="asked for example.com")
def asks_around(request):
    """Open it."""
    import socket

    try:
        socket.create_connection(("example.com", 80))
    except OSError:
        return load_toy(request)


@broken("unknown-options-are-refused", says="an unknown option was opened")
def ignores_options(request):
    """Open it."""
    return toy_target(request)


@broken("fingerprint-is-stable", says="fingerprints")
def counts_openings(request):
    """Open it."""
    return toy_target(request, fingerprint=str(id(object())) + str(torch.rand(())))


@broken("global-generators-are-untouched", says="numpy")
def moves_numpy(request):
    """Open it."""
    np.random.rand()
    return load_toy(request)


@broken("answers-fit-the-card", says="no probabilities")
def answers_with_logits(request):
    """Open it."""
    module = toy_target(request).module
    return toy_target(request, module=None, respond=lambda inputs: module(inputs).detach())


@broken("answers-fit-the-card", says="scores (4, 5)")
def has_another_class(request):
    """Open it."""
    dataset = request.require_dataset()
    return toy_target(request, module=build_toy(len(dataset.classes) + 1, dataset.input).eval())
