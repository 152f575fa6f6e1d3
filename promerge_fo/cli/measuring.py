"""``promerge ablate``, ``tune`` and ``reproduce``: what settings are worth, by ground truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promerge_fo.cli.arguments import Commands, Options, add, add_command, flag_of, positive
from promerge_fo.cli.model import (
    add_model_options,
    config_of,
    is_tuned,
    model_of,
    read_settings,
)
from promerge_fo.cli.progress import TerminalBar
from promerge_fo.config import METHODS, Config
from promerge_fo.dataset.experiments.settings import grid, settings_of, values_of

if TYPE_CHECKING:
    from promerge_fo.dataset.runs.model import ProMergeModel

FOLDER = "promerge-ablation"  # for features, results and reports


def add_commands(commands: Commands) -> None:
    """Declare the commands."""
    usage = "--dataset NAME | --coco JSON --images DIR [options]"
    for command in (ablate, tune):
        made = add_command(commands, command, usage)
        _add_data(made)
        which = made.add_mutually_exclusive_group(required=command is ablate)
        text = "values of a parameter; several times for a grid"
        add(which, "--vary", "NAME=V,V,...", text, action="append")
        add(which, "--settings", "JSON", "a file with settings by name")
        if command is tune:
            add(made, "--metric", "NAME", "to choose by: AP50, AR100, ...", default="AP")
            add(made, "--folds", positive, "of the cross-validation", default=5)
            add(made, "--output", "JSON", "write the choice, for promerge segment --settings")
        add_model_options(made)

    made = add_command(commands, reproduce, "EXPERIMENT --root DIR [options]")
    add(made, "experiment", "EXPERIMENT", "a table or figure of the paper")
    add(_add_data(made), "--root", "DIR", "folder of the benchmarks")
    text = "of the table's methods (all that are there)"
    add(made, "--methods", "NAME", text, nargs="+")
    add(made, "--encoder", "NAME", "in place of the paper's")
    add(made, "--checkpoint")
    add(made, "--device")
    add(made, "--output", "FILE", "also write the page (Markdown), and plots")


def _add_data(parser: argparse.ArgumentParser) -> Options:
    """Options for the images and what is kept of them; returns the group of alternatives."""
    group = parser.add_argument_group("images with ground truth")
    which = group.add_mutually_exclusive_group(required=True)
    add(which, "--dataset", "NAME", "a dataset in FiftyOne")
    add(which, "--coco", "JSON", "annotations in COCO's format")
    add(group, "--images", "DIR", "the folder of the images of --coco")
    add(group, "--gt-field", default="ground_truth")
    add(group, "--limit")
    add(parser, "--folder", "DIR", "keeps features and results", default=FOLDER)
    return which


def _samples(
    dataset: str | None, coco: str | None, images: str | None, limit: int | None, **_: Any
) -> Any:
    """The images that the options name.

    Raises:
        ValueError: no such dataset, or --images without --coco or the other way round.
    """
    from promerge_fo.dataset.evaluation.benchmark_sets import load_coco
    from promerge_fo.dataset.samples import find_dataset

    if coco is not None and images is not None:
        return load_coco(coco, images, limit=limit, progress=False)
    if dataset is None or images is not None:
        raise ValueError("--coco and --images go together: annotations, and the images' folder")
    samples = find_dataset(dataset)
    return samples if limit is None else samples.limit(limit)


def ablate(folder: str, gt_field: str, **options: Any) -> int:
    """Try settings on images with ground truth.

    Images are segmented with every combination of some settings, and the masks are measured: COCO
    AP and AR with intervals, counts and times, as a table, a CSV file and plots. Features are
    calculated once and kept, results as soon as an image has them: a run that was stopped goes on
    where it was, and what was tried before is not tried again. The dataset stays as it is. Where
    images failed, the exit status is 1.

      promerge ablate --dataset photos --vary stride=2,4,6 --vary tau_b=0.1,0.2,0.3
      promerge ablate --coco val.json --images val/ --method maskcut --vary cuts=1,2,3
      promerge ablate --dataset photos --settings settings.json
      promerge ablate --dataset photos --encoder NAME --vary facet=key,token --vary block=8,10,12

    A file of settings has, for each name, the method, the preset and what differs from it:

      {"plain": {"method": "promerge"}, "more cuts": {"method": "maskcut", "cuts": 6}}
    """
    from promerge_fo.dataset.experiments.ablation import ablate as run

    measured = _measure(run, grid, folder, gt_field, options)
    print(measured)
    print(f"\nplots and all figures: {measured.report(Path(folder) / 'report')}")
    return _tell_failed(measured.failed)


def tune(
    folder: str, gt_field: str, output: str | None, metric: str, folds: int, **options: Any
) -> int:
    """Choose settings on your own labelled images.

    Settings are chosen by AP on images with ground truth, some 50 of your own. Cross-validation
    tells what the choice is worth on other images. Where the images cannot tell it from the
    settings that the options give, those are kept. Without --vary or --settings, the parameters
    that matter most are varied. What was calculated before is not calculated again.

      promerge tune --dataset photos
      promerge tune --dataset photos --vary tau_b=0.1,0.2,0.3 --vary stride=2,4 --output t.json
      promerge tune --coco val.json --images val/ --method maskcut
    """
    from promerge_fo.dataset.experiments.settings import search_space
    from promerge_fo.dataset.experiments.tuning import tune as run

    tuning = _measure(run, search_space, folder, gt_field, options, metric=metric, folds=folds)
    print(tuning)
    print(f"\nplots and all figures: {tuning.report(Path(folder) / 'tuning')}")
    if tuning.changes and options["settings"] is None:
        print(f"to use the choice, add to the options: {_flags(tuning.changes)}")
    if output is not None:
        tuning.write_settings(output)
        print(f"the choice: {output}; promerge segment takes it by --settings {output}")
    return _tell_failed(tuning.ablation.failed)


def _measure(
    run: Callable[..., Any],
    around: Callable[..., dict[str, Config]],
    folder: str,
    gt_field: str,
    options: dict[str, Any],
    **more: Any,
) -> Any:
    """Measure settings on the images that the options name.

    Args:
        run: what measures them.
        around: makes settings of the base and of ``--vary``.
        folder: keeps features and results.
        gt_field: with the ground truth.
        options: of the command.
        more: what ``run`` takes besides.
    """
    from promerge_fo.dataset.runs.calibrating import calibrate_once
    from promerge_fo.dataset.samples import require_objects
    from promerge_fo.pipeline import Pipeline, pipeline_of

    base = config_of(**options)  # what is cheap to check comes before what takes time
    texts = _texts(options["vary"] or [])
    features = _features(texts, options)
    settings: Mapping[str, Config | dict[str, Any]]
    if options["settings"] is not None:
        settings = _settings_in(options["settings"])
    else:
        settings = around(base, **_values(texts, base.method))
    samples = _samples(**options)
    require_objects(samples, gt_field)

    @cache
    def model(name: str) -> ProMergeModel:
        made = model_of(base, **{**options, **features[name]})
        if not made.is_left_uncalibrated:
            calibrate_once(samples, made, progress=TerminalBar)
        return made

    pipelines: dict[str, Pipeline] = {}
    for name, (title, setting) in product(features, settings.items()):
        if isinstance(setting, Config):
            pipeline = model(name).pipeline
            own = pipeline.calibration if setting.can_calibrate else None
            pipeline = Pipeline(pipeline.encoder, setting, calibration=own)
        else:
            pipeline = pipeline_of(setting, options["checkpoint"], options["device"])
        pipelines[", ".join(part for part in (name, title) if part)] = pipeline
    encoder = next(iter(pipelines.values())).encoder
    return run(
        samples, pipelines, gt_field, encoder=encoder, folder=folder, progress=TerminalBar, **more
    )


def _settings_in(path: str) -> dict[str, Config | dict[str, Any]]:
    """The settings in a file, in its order; those of ``promerge tune`` with their encoders."""
    settings: dict[str, Config | dict[str, Any]] = {}
    for name, parts in read_settings(path).items():
        settings.update({name: parts} if is_tuned(parts) else settings_of({name: parts}))
    return settings


def _features(texts: dict[str, str], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What ``--vary facet=...`` and ``block=...`` ask for, taken out of the texts, by name."""
    varied = {name: texts.pop(name).split(",") for name in ("facet", "block") if name in texts}
    if not varied:
        return {"": {}}
    if options["encoder"] == "texture":
        raise ValueError(f"--vary {next(iter(varied))}: the encoder 'texture' has neither")
    found: dict[str, dict[str, Any]] = {}
    for values in product(*varied.values()):
        chosen: dict[str, Any] = {}
        for name, value in zip(varied, values, strict=True):
            if name == "block" and not value.strip().isdecimal():
                raise ValueError(f"--vary block: {value.strip()!r} is not a whole number")
            chosen[str(name)] = int(value) if name == "block" else value.strip()
        found[", ".join(f"{name}={value}" for name, value in chosen.items())] = chosen
    return found


def _flags(changes: Mapping[str, Any]) -> str:
    """Parameters as the options of a command."""
    flags = []
    for name, value in changes.items():
        if isinstance(value, bool):
            flags.append(flag_of(name if value else f"no_{name}"))
        else:
            flags.append(f"{flag_of(name)} {value}")
    return " ".join(flags)


def _texts(vary: list[str]) -> dict[str, str]:
    """The values that ``--vary`` asks for, as texts, by parameter.

    Raises:
        ValueError: not of the form, or a parameter that is there twice.
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
    return texts


def _values(texts: Mapping[str, str], method: str) -> dict[str, list[Any]]:
    """The values of the method's parameters.

    Raises:
        ValueError: no parameter of the method, or a value that it cannot have.
    """
    try:
        return values_of(METHODS[method], texts)
    except ValueError as error:
        raise ValueError(f"--vary {error}") from None


def reproduce(
    experiment: str,
    root: str | None,
    dataset: str | None,
    coco: str | None,
    images: str | None,
    limit: int | None,
    output: str | None,
    **options: Any,
) -> int:
    """Run the paper's tables and figures, with what it found beside yours.

    Run what the paper ran for one of its tables or figures, and show its figures beside those
    found here, and what differs in the conditions. The root holds a folder for each benchmark
    (coco2017, coco20k, lvis, kitti, objects365, sa1b); those that are missing are named. In
    place of the benchmarks, a dataset or images with COCO annotations will do.

      promerge reproduce table1 --root data/ --limit 20
      promerge reproduce table2 --root data/ --checkpoint dino_vitbase8_pretrain.pth
      promerge reproduce fig6 --coco val.json --images val/

    Experiments: table1, table2 (speed), table3, table4a, table4b, table5, table6, fig5 (AP
    and time), fig6. What was calculated before is not calculated again.
    """
    from promerge_fo.dataset.experiments.reproduction import load_experiment
    from promerge_fo.dataset.experiments.reproduction import reproduce as run

    load_experiment(experiment)  # its name is checked before anything is read
    source = root if root is not None else _samples(dataset, coco, images, limit)
    outcome = run(experiment, source, limit=limit, progress=TerminalBar, **options)
    print(outcome)
    if output is not None:
        path = Path(output)
        path.write_text(str(outcome), encoding="utf-8")
        for plot in outcome.plots(path.parent, path.stem):
            print(plot)
    return _tell_failed(outcome.failed)


def _tell_failed(count: int) -> int:
    """Say how many images failed; returns the exit status."""
    if not count:
        return 0
    print(
        f"{count} images failed, as the log says; they count as images without masks",
        file=sys.stderr,
    )
    return 1
