"""Send notices to the services and people that KINTSUGI_NOTIFY names; to nobody by default.

Such an address often contains its password. So it is neither in a log nor in a job file, which is registered with every
model.
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
    """Send a notice to each address of the environment. A notice that fails is a warning and stops no run.

    Args:
        subject: One line.
        sentences: The text.
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
            log.warning("the notice to %s was not sent: %s", _kind(address), trouble)


def announce(event: str, model: str, sentences: Sequence[str]) -> None:
    """Emit an event of a model, such as `kintsugi.alarm`, for Prefect's automations."""
    resource = {"prefect.resource.id": f"kintsugi.model.{model}", "prefect.resource.name": model}
    emit_event(f"kintsugi.{event}", resource, payload={"sentences": list(sentences)})


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - as hooks are
    """Notify that a run failed, and why (the hook of a flow)."""
    notify(f"Kintsugi: {flow_run.name} failed", [state.message or state.name or "", "The results so far are kept."])


def _trouble(address: str, subject: str, text: str) -> str | None:
    """Send a notice; return the reason if it was not sent, else None."""
    try:
        return None if _send(address, subject, text) else "check the address"
    except Exception as error:  # noqa: BLE001 - of any of a hundred services
        return type(error).__name__  # its text may hold the address


def _send(address: str, subject: str, text: str) -> bool:
    """Send a notice through a service of Apprise or a block of Prefect; return whether it was sent."""
    return _through_service(address, subject, text) if "://" in address else _through_block(address, subject, text)


def _through_block(name: str, subject: str, text: str) -> bool:
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    block = Block.load(name)
    if not isinstance(block, NotificationBlock):
        return False
    with block.raise_on_failure():
        sent: Any = block.notify(text, subject)
        if inspect.iscoroutine(sent):  # not the case for Prefect's own blocks
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
    """Silence the loggers that would print addresses."""
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
    """Return the part of an address that may be shown.

    >>> _kind("slack://token-a/token-b"), _kind("slack-webhook/ops"), _kind("mailto:ops:secret@example.org")
    ('the slack:// address of KINTSUGI_NOTIFY', 'slack-webhook/ops', 'an entry of KINTSUGI_NOTIFY')
    """
    scheme, found, _ = address.partition("://")
    if found and scheme.isalnum():
        return f"the {scheme}:// address of KINTSUGI_NOTIFY"
    return address if BLOCK.fullmatch(address) else "an entry of KINTSUGI_NOTIFY"
