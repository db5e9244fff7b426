"""`kintsugi models`: list and compare the models of the registry, and set the champion."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.paths import App
from flows.terminal import told_plainly

app = App(help="List and compare the models of the registry, and set the champion.", rich_markup_mode=None)
REF = "name@champion, name@alias, name/3, models:/name/3, builtin:NAME, or the path of an .onnx file"


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """List the registered models."""
    if context.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models() -> None:
    """List the registered models with their champions."""
    with told_plainly():
        from pipelines.models.reference import BUILTIN
        from pipelines.registry.store import Registry

        found = Registry().models()
        if not found:
            typer.echo("no models yet: train one with `kintsugi train JOB.toml`")
        for model in found:
            latest = model.latest.version if model.latest else "-"
            aliases = ", ".join(f"{alias} {number}" for alias, number in sorted(model.aliases.items())) or "no champion"
            task = model.latest.tags.get("task", "") if model.latest else ""
            typer.echo(f"{model.name:24} {task:14} latest {latest:<5} {aliases:36} {model.updated:%Y-%m-%d %H:%M} UTC")
        names = ", ".join(f"builtin:{path.name}" for path in sorted(BUILTIN.iterdir()))
        typer.echo(f"built-in models: {names} (`kintsugi models show builtin:NAME` shows a card)")


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A model; or one version, such as tiles/3, to see the path of its file.")],
) -> None:
    """Show a model's versions, their figures, and every change of its champion."""
    with told_plainly():
        from pipelines.models.model_file import MODEL_FILE
        from pipelines.models.reference import split_ref
        from pipelines.registry.history import describe_move, describe_version
        from pipelines.registry.resolve import find_model
        from pipelines.registry.store import Registry

        if name.startswith("builtin:"):
            file = find_model(name)
            typer.echo(f"{file.card}\n{file.path}")
            return
        registry = Registry()
        plain, selector = split_ref(name)
        versions = registry.versions(plain) if plain == name else [registry.get(plain, selector)]
        if not versions:
            registry.get(plain, selector)  # raises the error that lists what there is
        for version in versions:
            typer.echo("\n".join(describe_version(version)))
        if plain != name:
            typer.echo(f"    {'where it is':40} {registry.fetch(versions[0]) / MODEL_FILE}")
        if trail := registry.trail(plain):
            typer.echo("\n".join(["moves:", *map(describe_move, trail)]))


@app.command("search")
def search_models(
    conditions: Annotated[
        list[str] | None,
        typer.Argument(
            help="KEY=VALUE, KEY!=VALUE, 'KEY>=NUMBER': name=tile*, task=denoise, alias=champion, 'psnr>=30'."
        ),
    ] = None,
) -> None:
    """List the versions that meet all conditions on name, alias, task, figures, keys of the job, or tags."""
    with told_plainly():
        from pipelines.registry.store import Registry

        found = Registry().search(*(conditions or ()))
        for version in found:
            aliases = f" [{', '.join(version.aliases)}]" if version.aliases else ""
            task = version.tags.get("task", "")
            typer.echo(f"{version.ref + aliases:36} {task:16} {version.created:%Y-%m-%d %H:%M} UTC")
        if not found:
            typer.echo("no version meets all conditions")


@app.command("compare")
def compare_models(
    first: Annotated[str, typer.Argument(help="A version, such as tiles/3 or tiles@champion.")],
    second: Annotated[str, typer.Argument(help="Another version.")],
) -> None:
    """Show two versions side by side: figures, training images, jobs."""
    with told_plainly():
        from pipelines.models.reference import split_ref
        from pipelines.registry.history import describe_comparison
        from pipelines.registry.store import Registry

        registry = Registry()
        versions = [registry.get(*split_ref(ref)) for ref in (first, second)]
        typer.echo("\n".join(describe_comparison(*versions)))


@app.command("promote")
def promote_model(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    version: Annotated[int, typer.Argument(help="The version that becomes champion.")],
    reason: Annotated[
        str, typer.Option("--reason", help="Reason to record in the model's history.")
    ] = "promoted by hand",
) -> None:
    """Make a version the champion, whatever the promotion rule says."""
    with told_plainly():
        from pipelines.registry.store import Registry

        registry = Registry()
        registry.fetch(registry.get(name, str(version)))  # a damaged file never becomes champion
        registry.promote(name, version, reason=reason, figures={})
        typer.echo(f"{name}/{version} is champion")


@app.command("rollback")
def rollback_model(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    reason: Annotated[
        str, typer.Option("--reason", help="Reason to record in the model's history.")
    ] = "rolled back by hand",
) -> None:
    """Make the previous champion the champion again."""
    with told_plainly():
        from pipelines.registry.store import Registry

        typer.echo(f"{Registry().rollback(name, reason=reason).ref} is champion again")


@app.command("verify")
def verify_model(ref: Annotated[str, typer.Argument(help=f"{REF}.")]) -> None:
    """Check a registered model's files against their recorded digests. For a file, print digest and calibration."""
    with told_plainly():
        from pipelines.models.reference import find_model_file, split_ref

        if file := find_model_file(ref):
            belongs = "belongs to it" if file.calibration() else "is missing"
            typer.echo(f"{file.path}: sha256 {file.sha256}; its calibration.json {belongs}")
            return
        from pipelines.registry.store import Registry

        registry = Registry()
        version = registry.get(*split_ref(ref))
        registry.verify(version)
        typer.echo(f"{version.ref}: every file is as registered (sha256 of the model {version.sha256})")
