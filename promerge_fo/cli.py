"""The ``promerge`` command: thin, one function a command."""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promerge_fo.cli_model import add_model_arguments, config_of, model_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (130 after Ctrl-C)."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        if given[:1] == ["bench"]:
            return bench(given[1:])
        arguments = _parser().parse_args(given)
        return int(arguments.command(arguments) or 0)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        print(f"promerge: {error}", file=sys.stderr)
        return 2


def segment(arguments: argparse.Namespace) -> int:
    """``promerge segment``."""
    from promerge_fo.dataset.segment import open_source, segment_dataset

    config = config_of(arguments)  # what is cheap to check comes before what takes time
    dataset = open_source(arguments.source, arguments.name)
    model = model_of(arguments, config)
    label_field = arguments.label_field or arguments.method
    if arguments.num_workers is not None:
        model.pipeline.readers = arguments.num_workers
    report = segment_dataset(
        dataset,
        model,
        label_field,
        batch_size=arguments.batch_size,
        output_dir=arguments.output_dir,
        limit=arguments.limit,
        overwrite=arguments.overwrite,
        progress=_Progress,
    )
    if report.skipped:
        print(f"{report.skipped} images were done before (--overwrite does them again)")
    if arguments.output is not None:
        from promerge_fo.dataset.export import export_pseudo_labels

        summary = export_pseudo_labels(dataset, label_field, arguments.output, min_area=0.0)
        print(f"{summary['path']}: {summary['annotations']} masks of {summary['images']} images")
    if report.interrupted:
        print("stopped; what was done is kept. Run the same command again to go on.")
        return 130
    print(f"look at the masks: fiftyone app launch {dataset.name}")
    return 0


def demo(arguments: argparse.Namespace) -> int:
    """``promerge demo``."""
    from promerge_fo.demo import run

    return run(Path(arguments.folder), arguments.encoder)


def explain(arguments: argparse.Namespace) -> int:
    """``promerge explain``."""
    from promerge_fo.figures import explain_image, save

    figure = explain_image(arguments.image, model_of(arguments, config_of(arguments)).pipeline)
    output = arguments.output or Path(arguments.image).stem + "-explained.png"
    save(figure, output)
    print(output)
    return 0


def reproduce(arguments: argparse.Namespace) -> int:
    """``promerge reproduce``."""
    from promerge_fo.dataset.reproduce import reproduce as run

    outcome = run(
        arguments.experiment,
        arguments.root,
        limit=arguments.limit,
        methods=arguments.methods,
        encoder=arguments.encoder,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        progress=_Progress,
    )
    print(outcome)
    if arguments.output is not None:
        Path(arguments.output).write_text(str(outcome))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """``promerge doctor``."""
    from promerge_fo.doctor import examine

    if arguments.install_mongod:
        from promerge_fo.dataset.mongod import install_mongod

        print(f"mongod: {install_mongod()}")
        return 0
    problems = 0
    for finding in examine():
        problems += finding.state == "problem"
        print(f"{finding.state:>8}  {finding.subject}: {finding.detail}")
        if finding.remedy:
            print(
                textwrap.fill(
                    finding.remedy,
                    96,
                    initial_indent=" " * 10 + "-> ",
                    subsequent_indent=" " * 13,
                    break_on_hyphens=False,
                )
            )
    return 1 if problems else 0


def bench(arguments: Sequence[str]) -> int:
    """``promerge bench``, which ``python -m benchmarks`` is in a checkout without installation."""
    checkout = Path(__file__).parents[1]
    if not (checkout / "benchmarks" / "__main__.py").is_file():
        raise RuntimeError(
            "the benchmarks are not part of the installed package; clone the project, and run "
            "python -m benchmarks there"
        )
    sys.path.insert(0, str(checkout))
    return int(importlib.import_module("benchmarks.__main__").main(arguments))


def plugin_install(arguments: argparse.Namespace) -> int:
    """``promerge plugin install``."""
    from promerge_fo.dataset.plugin import install_plugin

    print(f"installed {install_plugin(arguments.folder)}; reload the App to see its operators")
    return 0


class _Progress:
    """A bar with the rate, and after the first images a line with the time that all will take."""

    ESTIMATE_AFTER = 5.0  #: seconds

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit=" images", dynamic_ncols=True)
        self._started = time.perf_counter()
        self._estimated = False

    def update(self, n: int) -> None:
        self._bar.update(n)
        done, total = self._bar.n, self._bar.total
        seconds = time.perf_counter() - self._started
        if not self._estimated and 0 < done < total and seconds > self.ESTIMATE_AFTER:
            self._estimated = True
            self._bar.write(
                f"about {_duration(seconds / done * total)} for {total} images "
                f"at {done / seconds:.2f} images/s"
            )
        if done >= total:
            self._bar.close()  # ends its line, before others are written

    def close(self) -> None:
        self._bar.close()


def _duration(seconds: float) -> str:
    """A time as people say it.

    Examples:
        >>> [_duration(s) for s in (42, 125, 7500, 200_000)]
        ['42 s', '2 min', '2 h 5 min', '2 d 8 h']
    """
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    if days < 2:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{int(days)} d {hours % 24:.0f} h"


def _parser() -> argparse.ArgumentParser:
    from promerge_fo import __version__

    parser = argparse.ArgumentParser(
        prog="promerge",
        description="Instance masks for unlabelled images, by ProMerge, in FiftyOne.",
        epilog="promerge COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"promerge-fo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str,
        function: Any,
        help: str,
        text: str,
        group: Any = commands,
        usage: str | None = None,
    ) -> Any:
        made = group.add_parser(
            name,
            help=help,
            description=textwrap.dedent(text).strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            usage=usage,
        )
        made.set_defaults(command=function)
        return made

    made = command(
        "segment",
        segment,
        "give a folder of images or a dataset instance masks",
        """
        Give a folder of images, or a dataset that is in FiftyOne, instance masks.

        A folder becomes a dataset of the same name, or adds its new images to that dataset.
        Images that have masks of the very same settings are skipped, so a run that was stopped
        goes on where it was; --overwrite makes them anew.

          promerge segment photos/
          promerge segment photos/ --preset fast --output masks.json
          promerge segment my-dataset --label-field fine --tau-b 0.3 --limit 20
          promerge segment photos/ --method maskcut --cuts 6
        """,
        usage="promerge segment DIR|DATASET [options]",
    )
    made.add_argument(
        "source", metavar="DIR|DATASET", help="a folder of images, or a dataset's name"
    )
    made.add_argument("--name", help="name of the dataset made of a folder (the folder's name)")
    made.add_argument("--label-field", help="field for the masks (the method's name)")
    made.add_argument("--output", metavar="JSON", help="also write the masks as COCO JSON (RLE)")
    made.add_argument(
        "--output-dir", metavar="DIR", help="keep masks as PNGs here, not in the database"
    )
    made.add_argument("--limit", type=_positive, metavar="N", help="only the first N images")
    made.add_argument("--overwrite", action="store_true", help="redo images that are done")
    made.add_argument(
        "--batch-size",
        type=_positive,
        default=8,
        metavar="N",
        help="images that a GPU encodes together (8)",
    )
    made.add_argument(
        "--num-workers", type=_positive, metavar="N", help="threads that read images (CPU cores)"
    )
    add_model_arguments(made)

    made = command(
        "demo",
        demo,
        "run on photographs that scikit-image carries",
        """
        Run ProMerge on photographs that scikit-image carries: a dataset with their masks, a
        table and a picture. DINO is used when its weights can be had; else, and it says so, the
        weight-free texture encoder.
        """,
    )
    made.add_argument(
        "--folder",
        default="promerge-demo",
        help="for the photographs and the picture (./promerge-demo)",
    )
    made.add_argument("--encoder", help="an encoder's name, in place of that choice")

    made = command(
        "explain",
        explain,
        "show every step of the method on one image",
        """
        One figure of every step on an image: the prompts and what they select, the background
        candidates and their vote, what filtering kept and dropped and why, the merged masks,
        and the masks before and after refinement.
        """,
        usage="promerge explain IMAGE [options]",
    )
    made.add_argument("image", metavar="IMAGE", help="an image file")
    made.add_argument("--output", metavar="FILE", help="png, pdf or svg (IMAGE-explained.png)")
    add_model_arguments(made)

    made = command(
        "reproduce",
        reproduce,
        "run the paper's tables, with its figures beside yours",
        """
        Run what the paper ran for one of its tables, and show its figures beside those found
        here, and what differs in the conditions. The root holds a folder for each benchmark
        (coco2017, coco20k, lvis, kitti, objects365, sa1b); those that are missing are named.
        Masks and evaluations stay in FiftyOne, and are not computed twice.

          promerge reproduce table1 --root data/ --limit 20
          promerge reproduce table2 --root data/ --checkpoint dino_vitbase8_pretrain.pth
        """,
        usage="promerge reproduce table1|table2 --root DIR [options]",
    )
    made.add_argument("experiment", metavar="table1|table2", help="a table of the paper")
    made.add_argument("--root", required=True, metavar="DIR", help="folder of the benchmarks")
    made.add_argument("--limit", type=_positive, metavar="N", help="only the first N images each")
    made.add_argument(
        "--methods", nargs="+", metavar="NAME", help="of the table's methods (all that are there)"
    )
    made.add_argument("--encoder", metavar="NAME", help="in place of the paper's")
    made.add_argument("--checkpoint", metavar="FILE", help="the encoder's weights")
    made.add_argument("--device", help="cuda, cpu (a GPU if there is one)")
    made.add_argument("--output", metavar="FILE", help="also write the page (Markdown)")

    made = command(
        "doctor",
        doctor,
        "what works on this machine, and what to do about the rest",
        "Look at everything that the package uses, and say what to do about what does not work.",
    )
    made.add_argument(
        "--install-mongod",
        action="store_true",
        help="provide the database server that FiftyOne starts, if it has none",
    )

    # Only listed here: main hands its arguments on to the benchmarks, which know them.
    commands.add_parser("bench", help="measure the speed on this machine", add_help=False)

    plugin = commands.add_parser("plugin", help="the FiftyOne App's plugin")
    plugin_commands = plugin.add_subparsers(required=True, metavar="COMMAND")
    made = command(
        "install",
        plugin_install,
        "put the plugin where FiftyOne looks",
        "Put the App's plugin where FiftyOne looks for plugins.",
        plugin_commands,
    )
    made.add_argument(
        "--folder", help="a checkout or copy of the plugin (found by itself in a checkout)"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
