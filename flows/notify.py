"""Who hears of what happens: services and people that KINTSUGI_NOTIFY names; nobody by default.

Such an address is often its own password, so it is in no job file, which is registered with every model, and in no log.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect.events import emit_event

from pipelines.settings import settings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import Flow

log = logging.getLogger("pipelines.notify")
PAUSES = (1.0, 5.0)  # seconds before another try
BLOCK = re.compile(r"[a-z0-9-]+/[a-z0-9-]+")  # type and name of a block of Prefect


def notify(subject: str, sentences: Sequence[str]) -> None:
    """Tell everybody whom the environment names. That somebody could not be told is a warning: no run fails by it.

    Args:
        subject: One line.
        sentences: What there is to say.
    """
    addresses = settings().notify
    text = "\n".join(sentences)
    for address in addresses.get_secret_value().split() if addresses else ():
        trouble = _trouble(address, subject, text)
        for pause in PAUSES:
            if trouble is None:
                break
            time.sleep(pause)
            trouble = _trouble(address, subject, text)
        if trouble is not None:
            log.warning("%s could not be told: %s", _kind(address), trouble)


def announce(event: str, model: str, sentences: Sequence[str]) -> None:
    """Emit an event of a model, such as `kintsugi.alarm`, which Prefect's automations can wait for."""
    resource = {"prefect.resource.id": f"kintsugi.model.{model}", "prefect.resource.name": model}
    emit_event(f"kintsugi.{event}", resource, payload={"sentences": list(sentences)})


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - as hooks are
    """A flow's hook: tell that a run failed, and why."""
    notify(f"Kintsugi: {flow_run.name} failed", [state.message or state.name or "", "What it did before is kept."])


def _trouble(address: str, subject: str, text: str) -> str | None:
    """Why nobody was told; None where somebody was."""
    try:
        return None if _send(address, subject, text) else "look at the address"
    except Exception as error:  # noqa: BLE001 - of any of a hundred services
        return type(error).__name__  # its text may hold the address


def _send(address: str, subject: str, text: str) -> bool:
    """Whether somebody was told, by an address of one of Apprise's services or a block of Prefect."""
    return _through_service(address, subject, text) if "://" in address else _through_block(address, subject, text)


def _through_block(name: str, subject: str, text: str) -> bool:
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    block = Block.load(name)
    if not isinstance(block, NotificationBlock):
        return False
    with block.raise_on_failure():
        sent: Any = block.notify(text, subject)
        if inspect.iscoroutine(sent):  # not of those that come with Prefect
            asyncio.run(sent)
    return True


def _through_service(address: str, subject: str, text: str) -> bool:
    with _silent("apprise", "urllib3"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what its hundred services import
        from apprise import Apprise

        service = Apprise()
        return bool(service.add(address)) and bool(service.notify(body=text, title=subject))


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Loggers that would tell addresses say nothing."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _kind(address: str) -> str:
    """What of an address may be told.

    >>> _kind("slack://token-a/token-b"), _kind("slack-webhook/ops"), _kind("mailto:ops:secret@example.org")
    ('the slack:// address of KINTSUGI_NOTIFY', 'slack-webhook/ops', 'an entry of KINTSUGI_NOTIFY')
    """
    scheme, found, _ = address.partition("://")
    if found and scheme.isalnum():
        return f"the {scheme}:// address of KINTSUGI_NOTIFY"
    return address if BLOCK.fullmatch(address) else "an entry of KINTSUGI_NOTIFY"
