"""`models build`: what a pulled model lacks is built and compared; registered by `models`, and builds nothing itself."""

import typer

from fediwarden.cli.common import JSON, build
from fediwarden.cli.output import emit, plain, result, row, say, show, table
from fediwarden.errors import Exit
from fediwarden.inference.build import whole

HELP = "Build a pulled model: image towers, and the embeddings of your policy's words."


def build_command(
    name: str = typer.Argument(metavar="NAME", help="The model, as `models list` names it."),
    precision: str = typer.Option(
        "",
        "--precision",
        metavar="P,P",
        help="Of int8, fp32 and fp16, with commas between; empty: int8 and fp32, and fp16 where the runtime has CUDA.",
    ),
    again: bool = typer.Option(False, "--again", help="Also build what is there already."),
    discard_source: bool = typer.Option(
        False, "--discard-source", help="Drop the pulled weights afterwards; other words or precisions need another pull."
    ),
    json: bool = JSON,
) -> int:
    """Build the image towers of a pulled model and the embeddings of your policy's words, as far as they are missing.

    Each tower is tried on benign pictures made in code, and compared with fp32; one that drifts too far is not kept (exit code
    4 where you asked for it). After a change of the policy's [concepts] only the words are embedded again.
    """
    built = build()
    concepts = built.policy.concepts
    if concepts is None:
        say("the policy has no [concepts]: image towers are built, and no words")
    asked = tuple(dict.fromkeys(one.strip() for one in precision.split(",") if one.strip()))
    made = whole.build(
        built.configuration.models,
        name,
        concepts,
        asked,
        lambda line: say(plain(line)),
        again=again,
        discard_source=discard_source,
    )
    refused = {one.precision: one.why for one in made.refused}
    if json:
        emit(
            {
                "model": name,
                "towers": list(made.towers),
                "texts": made.texts,
                "built": list(made.manifest.precisions),
                "agreement": {
                    one.precision: {"pictures": one.pictures, "mean": one.mean, "least": one.least} for one in made.agreements
                },
                "refused": refused,
            }
        )
    else:
        _tell(made, name)
    for tower, why in refused.items():
        say(f"not kept: the image tower in {plain(tower)}: {plain(why)}")
    unusable = (asked and refused) or not made.manifest.precisions
    return Exit.CONFIGURATION if unusable else Exit.OK


def _tell(made: whole.Built, name: str) -> None:
    """The same for people."""
    if not made.towers and not made.texts and not made.refused:
        result(f"{plain(name)} is built: nothing is missing")
        return
    if made.agreements:
        shown = table("precision", ">cosine to fp32, mean", ">smallest", ">pictures", ">bound", "kept")
        for one in made.agreements:
            kept = "yes" if one.precision in made.towers else "no"
            least = f"{whole.LEAST[one.precision]:g}"
            row(shown, one.precision, f"{one.mean:.4f}", f"{one.least:.4f}", str(one.pictures), least, kept)
        show(shown)
    parts = [f"image towers in {', '.join(made.towers)}"] if made.towers else []
    parts += [f"{made.texts} words"] if made.texts else []
    if parts:
        result(f"built {' and '.join(parts)} for {plain(name)}")
