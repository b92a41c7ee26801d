"""From an address to a target."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from mi_model_endpoint.answers import AnswerCache
from mi_model_endpoint.client import Connection, Endpoint, labels_only
from mi_model_endpoint.config import ANSWER_FIELDS, TOKEN, EndpointConfig
from mi_model_endpoint.protocols import FLOATS, INTEGERS, Kserve, Named, Plain, WireProtocol
from mi_model_endpoint.texts import GENERATE, LIKELIHOODS, TextEndpoint, served_model
from micore.answers import Service
from micore.artifacts import Card, PluginUse
from micore.configs import make_config
from micore.errors import ModelError
from micore.external import External, SourceRequest
from micore.files import digest
from micore.home import cache
from micore.inputs import InputSpec
from micore.threat import Access
from micore.versions import versions

TEXT = "text"
NOTE = "the target is an address: whether the model behind it stayed the same during the run cannot be seen"


def load(request: SourceRequest) -> External:
    """Open the target at an address. KServe's metadata are read, so that what does not fit is said at once.

    Raises: UsageError without a data set, except for texts; ConfigError for an option; ModelError for an address with
    credentials or data that do not fit; TargetError when the server does not answer.
    """
    config = make_config(EndpointConfig, request.options, "the endpoint")
    _check_address(request.uri)
    connection = Connection(request.uri.rstrip("/"), config, os.environ.get(TOKEN))
    if config.protocol == "openai":
        return _texts(request, connection, config)
    dataset = request.require_dataset()
    if dataset.modality == TEXT:
        raise ModelError(f"protocol {config.protocol} sends no texts", hint="-M protocol=openai")
    spec = replace(dataset.input, mean=tuple(config.mean), std=tuple(config.std))
    protocol, labels = _protocol(connection, config, dataset.classes, spec)
    fingerprint = _fingerprint(request, config)
    kept = _cache(fingerprint, config)
    respond: Callable[..., Any] = Endpoint(connection, protocol, len(dataset.classes), kept)
    return External(
        card=request.card(config.protocol, spec), fingerprint=fingerprint,
        respond=labels_only(respond) if labels else respond,
        access=Access.LABEL if labels else Access.SCORES, notes=(NOTE,),
    )  # fmt: skip


def _texts(request: SourceRequest, connection: Connection, config: EndpointConfig) -> External:
    """Open a model of texts: an encoder, or a language model, whose completions and likelihoods are its services."""
    if request.dataset is not None and request.dataset.modality != TEXT:
        raise ModelError(f"protocol openai sends texts; the data are of modality {request.dataset.modality}")
    fingerprint = _fingerprint(request, config)
    target = TextEndpoint(connection, served_model(connection, config.model), _cache(fingerprint, config))
    is_encoder, label = config.role == "encoder", config.answer == "label"
    if is_encoder and label:
        raise ModelError("an encoder has no labels", hint="leave -M answer out")
    services: dict[str, tuple[Access, Service]] = {GENERATE: (Access.LABEL, target.generate)}
    if not label:
        services[LIKELIHOODS] = (Access.SCORES, target.likelihoods)
    return External(
        card=Card(
            role=config.role, modality=TEXT, model=PluginUse(name=config.protocol, config=dict(request.options)),
            input=InputSpec(shape=(config.max_tokens,), options={"untokenized": True}),
            classes=request.dataset.classes if request.dataset is not None else (), data={}, versions=versions(),
        ),
        fingerprint=fingerprint, respond=target.embed if is_encoder else target.next_token,
        services={} if is_encoder else services, access=Access.LABEL if label else Access.SCORES, notes=(NOTE,),
    )  # fmt: skip


def _fingerprint(request: SourceRequest, config: EndpointConfig) -> str:
    return digest(request.uri, {name: config.model_dump()[name] for name in ANSWER_FIELDS})


def _cache(fingerprint: str, config: EndpointConfig) -> AnswerCache | None:
    return AnswerCache(cache() / "answers" / f"{fingerprint}.sqlite") if config.cache else None


def _protocol(
    connection: Connection, config: EndpointConfig, classes: Sequence[str], spec: InputSpec
) -> tuple[WireProtocol, bool]:
    """Return how the endpoint is spoken to, and whether it only gives labels."""
    labels = config.answer == "label"
    if config.protocol == "kserve":
        return _kserve(connection, config, classes, spec)
    if config.protocol == "json":
        return Plain(classes=classes, png=config.encoding == "png"), labels
    return Named(classes=classes, png=config.encoding != "tensor"), labels


def _kserve(
    connection: Connection, config: EndpointConfig, classes: Sequence[str], spec: InputSpec
) -> tuple[Kserve, bool]:
    """Choose input and output from the model's metadata."""
    document = connection.get()
    inputs, outputs = (_tensors(document, name, connection.url) for name in ("inputs", "outputs"))
    png = config.encoding == "png"
    _check_shape(connection.url, inputs[0], spec, png=png)
    output = _output(outputs, config, connection.url)
    labels = config.answer == "label" or output["datatype"] in INTEGERS
    if output["datatype"] in FLOATS:
        _check_scores(connection.url, output, len(classes))
    return Kserve(input_name=inputs[0]["name"], output=output["name"], png=png), labels


def _tensors(document: Any, name: str, url: str) -> list[dict[str, Any]]:
    found = document.get(name) if isinstance(document, dict) else None
    if not isinstance(found, list) or not found or not all({"name", "datatype"} <= set(item) for item in found):
        raise ModelError(
            f"{url} does not describe its {name}, as KServe's protocol says",
            hint="--model http://HOST/v2/models/NAME, or another -M protocol=",
        )
    return found


def _output(outputs: Sequence[dict[str, Any]], config: EndpointConfig, url: str) -> dict[str, Any]:
    wanted = {"scores": FLOATS, "label": (*INTEGERS, *FLOATS), "auto": (*FLOATS, *INTEGERS)}[config.answer]
    fitting = [item for item in outputs if item["datatype"] in wanted and config.output in (None, item["name"])]
    if not fitting:
        names = ", ".join(f"{item['name']} ({item['datatype']})" for item in outputs)
        raise ModelError(f"{url} has no output that gives {config.answer}; it has: {names}", hint="-M output=NAME")
    return min(fitting, key=lambda item: wanted.index(item["datatype"]))


def _check_shape(url: str, tensor: dict[str, Any], spec: InputSpec, *, png: bool) -> None:
    """Check that the samples fit: a dimension of -1 takes any size, and the first one counts samples."""
    shape = tensor.get("shape")
    if png or not isinstance(shape, list) or len(shape) != len(spec.shape) + 1:
        return
    if any(theirs not in (-1, ours) for theirs, ours in zip(shape[1:], spec.shape, strict=True)):
        raise ModelError(
            f"{url} takes samples of shape {shape[1:]}; the data set has {list(spec.shape)}",
            hint="give the data set and options (-D size=...) that fit, or -M encoding=png if the server resizes",
        )


def _check_scores(url: str, tensor: dict[str, Any], n_classes: int) -> None:
    """Check that there is a score for each class, where the metadata say how many there are."""
    shape = tensor.get("shape")
    if isinstance(shape, list) and len(shape) > 1 and shape[-1] not in (-1, n_classes):
        raise ModelError(
            f"{url} gives {shape[-1]} scores a sample; the data set has {n_classes} classes",
            hint="give the data set that the target is meant for",
        )


def _check_address(uri: str) -> None:
    """Refuse what would give credentials away."""
    address = urlsplit(uri)
    if not address.hostname:
        raise ModelError(f"{uri} is no address", hint="http://HOST:PORT/PATH")
    if address.username or address.password:
        raise ModelError("the address has credentials in it, which a run would store", hint=f"set {TOKEN}")
    if address.scheme == "http" and os.environ.get(TOKEN) and not _is_local(address.hostname):
        raise ModelError(f"{TOKEN} would be sent to {address.hostname} unencrypted", hint="use https, or unset it")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
