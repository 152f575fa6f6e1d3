"""``promerge group`` and ``name``: from masks to classes."""

from __future__ import annotations

from typing import Any

from promerge_fo.cli.arguments import Commands, add, add_command, positive
from promerge_fo.cli.progress import TerminalBar


def add_commands(commands: Commands) -> None:
    """Declare the commands."""
    made = add_command(commands, group, "DATASET|DIR [options]")
    add(made, "dataset")
    add(made, "--view")
    add(made, "--label-field", default="promerge")
    add(made, "--groups", positive, "how many groups to make (their number is found)")
    text = "masks that groups are found on, where there are more; the others join the nearest group"
    add(made, "--fit-on", positive, text, default=5000)
    add(made, "--seed", int, "of what is drawn", default=0)
    change = made.add_mutually_exclusive_group()
    add(change, "--list", bool, "only list the groups that are there")
    add(
        change,
        "--merge",
        "GROUP",
        "make one group of these; it keeps the first one's name",
        nargs="+",
    )
    add(change, "--split", "GROUP", "split this group by what looks alike in it")
    add(made, "--into", positive, "parts that --split makes", default=2)

    made = add_command(commands, name, "DATASET|DIR [NAME] [options]")
    add(made, "dataset")
    add(made, "name", "NAME", "the name; without it, --nearest and --propagate take all", nargs="?")
    add(made, "--view")
    add(made, "--label-field", default="promerge")
    what = made.add_mutually_exclusive_group(required=True)
    add(what, "--group", "GROUP", "name all masks of these groups", nargs="+", dest="groups")
    add(what, "--ids", "ID", "name the masks with these ids", nargs="+")
    add(what, "--nearest", bool, "list the nearest masks without a name, and write nothing")
    add(what, "--propagate", bool, "give those the names of their nearest named masks")
    add(what, "--undo", bool, "take the last action back that named masks")
    add(what, "--list", bool, "list the names, and how many masks have them")
    near = made.add_argument_group("--nearest and --propagate")
    add(near, "--limit", positive, "masks at most", default=50)
    text = "where names stop: 1 - cosine of embeddings, 0 to 2 (the nearest 10 %% of all pairs)"
    add(near, "--max-distance", float, text.replace("%%", "%"))


def group(
    dataset: str,
    view: str | None,
    label_field: str,
    list: bool,
    merge: list[str] | None,
    split: str | None,
    into: int,
    **options: Any,
) -> int:
    """Put masks that look alike into groups.

    Groups are found by the masks' embeddings, which promerge embed makes; how many, is found too,
    or given by --groups. Each label then has the attributes "group" (a number; none for a mask of
    no group) and "typicality" (0 to 1), by which the App filters. Names come next: promerge name.

      promerge group my-dataset
      promerge group photos/ --label-field fine --groups 20
      promerge group my-dataset --split 3 --into 2
      promerge group my-dataset --merge 1 4
    """
    from promerge_fo.dataset.classes.groups import (
        group_instances,
        list_groups,
        merge_groups,
        split_group,
    )
    from promerge_fo.dataset.samples import find_dataset

    samples = find_dataset(dataset, view)
    if merge is not None:
        merge_groups(samples, label_field, merge)
    elif split is not None:
        split_group(samples, label_field, split, into)
    elif not list:
        group_instances(samples, label_field, progress=TerminalBar, **options)
    found = list_groups(samples, label_field)
    for each in found:
        print(each)
    print(f"{len(found)} groups; promerge name gives them names")
    return 0


def name(
    dataset: str,
    name: str | None,
    view: str | None,
    label_field: str,
    groups: list[str] | None,
    ids: list[str] | None,
    nearest: bool,
    propagate: bool,
    undo: bool,
    list: bool,
    limit: int,
    max_distance: float | None,
) -> int:
    """Give masks names: those of a group, single ones, or the nearest ones without a name.

    A name is the label of a mask; the label keeps the old one, and says who gave the new one.
    --propagate names the masks without a name that are nearest to named ones, up to a distance;
    --nearest lists them first. --undo takes back the last action, and the one before if it is
    called again.

      promerge name my-dataset cat --group 1 7
      promerge name my-dataset cat --nearest --limit 20
      promerge name my-dataset --propagate --limit 500 --max-distance 0.3
      promerge name my-dataset --undo
    """
    from promerge_fo.dataset.classes.names import (
        list_names,
        name_groups,
        name_instances,
        nearest_unnamed,
        propagate_names,
        undo_names,
    )
    from promerge_fo.dataset.samples import find_dataset

    samples = find_dataset(dataset, view)
    if groups is not None or ids is not None:
        if name is None:
            raise ValueError("give the name after the dataset: promerge name DATASET NAME ...")
        if groups is not None:
            count = name_groups(samples, label_field, name, groups)
        else:
            count = name_instances(samples, label_field, name, ids)
        print(f"{count:,} masks are named {name.strip()!r}; --undo takes it back")
    elif undo:
        print(f"{undo_names(samples, label_field):,} masks have their former names")
    elif nearest or propagate:
        found = nearest_unnamed(samples, label_field, name, limit, max_distance)
        if nearest:
            for mask, given, distance in zip(found.ids, found.names, found.distances, strict=True):
                print(f"{mask}  {distance:.3f}  {given}")
            print(f"{len(found):,} masks without a name within {found.max_distance:.3f}")
        else:
            count = propagate_names(samples, label_field, found)
            print(f"{count:,} masks are named; --undo takes it back")
    if list:
        for each, count in list_names(samples, label_field).items():
            print(f"{count:8,}  {each}")
    return 0
