"""``promerge ablate``, ``tune`` and ``reproduce``: what settings are worth, by ground truth."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from promerge_fo.cli.arguments import add_command, positive
from promerge_fo.cli.model import add_model_arguments, config_of, model_of
from promerge_fo.cli.progress import Progress
from promerge_fo.config import METHODS, Config
from promerge_fo.dataset.experiments.settings import grid, settings_of, values_of

FOLDER = "promerge-ablation"  # for features, results and reports


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    made = add_command(
        commands,
        "ablate",
        ablate,
        "try settings on images with ground truth",
        """
        Segment images with every combination of some settings, and measure the masks: COCO AP
        and AR with intervals, counts and times, as a table, a CSV file and plots. Features are
        calculated once and kept, results as soon as an image has them: a run that was stopped
        goes on where it was, and what was tried before is not tried again. The dataset stays as
        it is.

          promerge ablate --dataset photos --vary stride=2,4,6 --vary tau_b=0.1,0.2,0.3
          promerge ablate --coco val.json --images val/ --method maskcut --vary cuts=1,2,3
          promerge ablate --dataset photos --settings settings.json

        A file of settings has, of each name, the method, the preset and what differs from it:

          {"plain": {"method": "promerge"}, "more cuts": {"method": "maskcut", "cuts": 6}}
        """,
        usage="promerge ablate --dataset NAME | --coco JSON --images DIR [options]",
    )
    _add_data(made)
    _add_settings(made, required=True)
    _add_run(made)
    add_model_arguments(made)

    made = add_command(
        commands,
        "tune",
        tune,
        "choose settings on your own labelled images",
        """
        Choose settings by AP on images with ground truth, some 50 of your own. What the choice is
        worth on other images is told by cross-validation, and where the images cannot tell it
        from the settings that the options give, those are kept. Without --vary or --settings, the
        parameters that matter most are varied. What was calculated before is not calculated again.

          promerge tune --dataset photos
          promerge tune --dataset photos --vary tau_b=0.1,0.2,0.3 --vary stride=2,4 --output t.json
          promerge tune --coco val.json --images val/ --method maskcut
        """,
        usage="promerge tune --dataset NAME | --coco JSON --images DIR [options]",
    )
    _add_data(made)
    _add_settings(made, required=False)
    made.add_argument(
        "--metric", default="AP", metavar="NAME", help="to choose by: AP50, AR100, ... (AP)"
    )
    made.add_argument(
        "--folds", type=positive, default=5, metavar="N", help="of the cross-validation (5)"
    )
    made.add_argument("--output", metavar="JSON", help="write the choice as a file of settings")
    _add_run(made)
    add_model_arguments(made)

    made = add_command(
        commands,
        "reproduce",
        reproduce,
        "run the paper's tables and figures, with what it found beside yours",
        """
        Run what the paper ran for one of its tables or figures, and show its figures beside those
        found here, and what differs in the conditions. The root holds a folder for each benchmark
        (coco2017, coco20k, lvis, kitti, objects365, sa1b); those that are missing are named. In
        place of the benchmarks, a dataset or images with COCO annotations will do.

          promerge reproduce table1 --root data/ --limit 20
          promerge reproduce table2 --root data/ --checkpoint dino_vitbase8_pretrain.pth
          promerge reproduce fig6 --coco val.json --images val/

        Experiments: table1, table2 (speed), table3, table4a, table4b, table5, table6, fig5 (AP
        and time), fig6. What was calculated before is not calculated again.
        """,
        usage="promerge reproduce EXPERIMENT --root DIR [options]",
    )
    made.add_argument("experiment", metavar="EXPERIMENT", help="a table or figure of the paper")
    _add_data(made).add_argument("--root", metavar="DIR", help="folder of the benchmarks")
    _add_run(made)
    made.add_argument(
        "--methods", nargs="+", metavar="NAME", help="of the table's methods (all that are there)"
    )
    made.add_argument("--encoder", metavar="NAME", help="in place of the paper's")
    made.add_argument("--checkpoint", metavar="FILE", help="the encoder's weights")
    made.add_argument("--device", help="cuda, cpu (a GPU if there is one)")
    made.add_argument("--output", metavar="FILE", help="also write the page (Markdown), and plots")


def _add_data(parser: Any) -> Any:
    """Options that say where images with ground truth are; returns the group of alternatives."""
    group = parser.add_argument_group("images with ground truth")
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument("--dataset", metavar="NAME", help="a dataset in FiftyOne")
    which.add_argument("--coco", metavar="JSON", help="annotations in COCO's format")
    group.add_argument("--images", metavar="DIR", help="the folder of the images of --coco")
    group.add_argument(
        "--gt-field", default="ground_truth", help="the dataset's field with it (ground_truth)"
    )
    group.add_argument("--limit", type=positive, metavar="N", help="only the first N images")
    return which


def _add_settings(parser: Any, required: bool) -> None:
    which = parser.add_mutually_exclusive_group(required=required)
    which.add_argument(
        "--vary",
        action="append",
        metavar="NAME=V,V,...",
        help="values of a parameter; several times for a grid",
    )
    which.add_argument("--settings", metavar="JSON", help="a file with settings by name")


def _add_run(parser: Any) -> None:
    parser.add_argument(
        "--folder", default=FOLDER, metavar="DIR", help=f"keeps features and results (./{FOLDER})"
    )


def _samples(arguments: argparse.Namespace) -> Any:
    """The images that the options name.

    Raises:
        ValueError: no such dataset, or --images without --coco or the other way round.
    """
    import fiftyone as fo

    from promerge_fo.dataset.evaluation.benchmark_sets import load_coco

    if (arguments.coco is None) != (arguments.images is None):
        raise ValueError("--coco and --images go together: annotations, and the images' folder")
    if arguments.coco is not None:
        return load_coco(arguments.coco, arguments.images, limit=arguments.limit, progress=False)
    if not fo.dataset_exists(arguments.dataset):
        known = ", ".join(fo.list_datasets()[:20]) or "none"
        raise ValueError(f"there is no dataset {arguments.dataset!r}; the datasets are: {known}")
    samples = fo.load_dataset(arguments.dataset)
    return samples if arguments.limit is None else samples.limit(arguments.limit)


def ablate(arguments: argparse.Namespace) -> int:
    """``promerge ablate``."""
    from promerge_fo.dataset.experiments.ablation import ablate as run

    base = config_of(arguments)  # what is cheap to check comes before what takes time
    settings = _settings(arguments, base, grid)
    ablation = run(
        _samples(arguments),
        settings,
        arguments.gt_field,
        encoder=model_of(arguments, base).pipeline.encoder,
        folder=arguments.folder,
        progress=Progress,
    )
    print(ablation)
    print(f"\nplots and all figures: {ablation.report(Path(arguments.folder) / 'report')}")
    return 0


def tune(arguments: argparse.Namespace) -> int:
    """``promerge tune``."""
    from promerge_fo.dataset.experiments.tuning import search_space
    from promerge_fo.dataset.experiments.tuning import tune as run

    base = config_of(arguments)
    settings = _settings(arguments, base, search_space)
    tuning = run(
        _samples(arguments),
        settings,
        arguments.gt_field,
        encoder=model_of(arguments, base).pipeline.encoder,
        folder=arguments.folder,
        metric=arguments.metric,
        folds=arguments.folds,
        progress=Progress,
    )
    print(tuning)
    print(f"\nplots and all figures: {tuning.report(Path(arguments.folder) / 'tuning')}")
    if tuning.changes and arguments.settings is None:
        print(f"to use the choice, add to the options: {_flags(tuning.changes)}")
    if arguments.output is not None:
        tuning.write_settings(arguments.output)
        print(f"the choice: {arguments.output}")
    return 0


def _flags(changes: Mapping[str, Any]) -> str:
    """Parameters as the options of a command."""
    flags = []
    for name, value in changes.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags.append(f"--{flag} {value}")
    return " ".join(flags)


def _settings(
    arguments: argparse.Namespace, base: Config, around: Callable[..., dict[str, Config]]
) -> dict[str, Config]:
    """The settings of a file, or those that ``around`` makes of the base and of ``--vary``."""
    if arguments.settings is not None:
        return settings_of(json.loads(Path(arguments.settings).read_text()))
    return around(base, **_values(arguments.vary or [], arguments.method))


def _values(vary: list[str], method: str) -> dict[str, list[Any]]:
    """The values of each parameter that ``--vary`` asks for.

    Raises:
        ValueError: not of the form, or no parameter of the method.
    """
    texts: dict[str, str] = {}
    for text in vary:
        name, equals, listed = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not listed.strip():
            raise ValueError(f"--vary {text!r} is not of the form NAME=V,V,...: stride=2,4,6")
        if name in texts:
            raise ValueError(f"--vary {name} is there twice; give all of its values at once")
        texts[name] = listed
    try:
        return values_of(METHODS[method], texts)
    except ValueError as error:
        raise ValueError(f"--vary {error}") from None


def reproduce(arguments: argparse.Namespace) -> int:
    """``promerge reproduce``."""
    from promerge_fo.dataset.experiments.reproduction import load_experiment
    from promerge_fo.dataset.experiments.reproduction import reproduce as run

    load_experiment(arguments.experiment)  # its name is checked before anything is read
    outcome = run(
        arguments.experiment,
        _samples(arguments) if arguments.root is None else arguments.root,
        gt_field=arguments.gt_field,
        folder=arguments.folder,
        limit=arguments.limit,
        methods=arguments.methods,
        encoder=arguments.encoder,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        progress=Progress,
    )
    print(outcome)
    if arguments.output is not None:
        path = Path(arguments.output)
        path.write_text(str(outcome))
        for plot in outcome.plots(path.parent, path.stem):
            print(plot)
    return 0
