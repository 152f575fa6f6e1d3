"""Algorithm 1 of the paper, patch by patch and mask by mask, as plainly as it can be written.

No array tricks, no bits, no matrix products over masks: lists, loops and sums in float64. Where
the released code differs from the paper, both readings stand side by side.
"""

from __future__ import annotations

import numpy as np


def run(features: np.ndarray, p: dict, prompt_scores: np.ndarray | None = None) -> dict:
    """ProMerge with the parameters ``p`` (a configuration's ``to_dict``) on features (C, h, w)."""
    channels, h, w = features.shape
    F = np.zeros((h, w, channels))
    for i in range(h):
        for j in range(w):
            f = features[:, i, j].astype(np.float64)
            norm = np.sqrt((f * f).sum()) + p["norm_eps"]
            F[i, j] = f / norm if norm > 0 else f

    # prompting
    background_masks, foreground = [], []
    uses_background = p["filtering"] not in ("nms", "none")
    for i, j in prompts(F, p, prompt_scores):
        mask = affinity(F, i, j) > p["tau_b"]
        if uses_background and is_background(mask):
            background_masks.append(mask)
        else:
            foreground.extend(split(mask, (i, j), p))
    result = {
        "n_background": len(background_masks),
        "foreground": foreground,
        "background": None,
        "kept": [],
        "merged": [],
        "status": "ok",
    }

    # background aggregation
    voted = None
    if uses_background:
        if not background_masks:
            result["status"] = "no_background"
            return result
        voted = np.zeros((h, w), dtype=bool)
        for i in range(h):
            for j in range(w):
                votes = sum(int(m[i, j]) for m in background_masks)
                if p["background_vote"] == "union":
                    voted[i, j] = votes > 0
                else:
                    voted[i, j] = votes / len(background_masks) > 0.5
        result["background"] = voted
        if voted.sum() == 0 or voted.sum() < p["min_background_area"] * h * w:
            result["status"] = "background_too_small"
            return result

    # filtering
    kept = filtered(F, foreground, voted, p)
    result["kept"] = kept
    if not kept:
        result["status"] = "all_filtered"
        return result

    # merging
    clusters: list[np.ndarray] = []
    for fg in sorted(kept, key=lambda m: -int(m.sum())):  # sorted() is stable
        to_merge = [c for c in clusters if compatible(F, fg, c, p)]
        merged = fg.copy()
        for c in to_merge:
            merged |= c
        clusters = [c for c in clusters if not any(c is d for d in to_merge)] + [merged]
    clusters.sort(key=lambda m: (-int(m.sum()), int(m.ravel().argmax())))
    result["merged"] = clusters
    return result


def affinity(F: np.ndarray, i: int, j: int) -> np.ndarray:
    h, w, _ = F.shape
    return np.array([[(F[i, j] * F[a, b]).sum() for b in range(w)] for a in range(h)])


def prompts(F: np.ndarray, p: dict, prompt_scores: np.ndarray | None) -> list[tuple[int, int]]:
    h, w, _ = F.shape
    grid = [(i, j) for i in range(0, h, p["stride"]) for j in range(0, w, p["stride"])]
    if p["prompting"] == "random":
        drawn = np.random.default_rng(p["seed"]).choice(h * w, len(grid), replace=False)
        return [divmod(int(k), w) for k in sorted(drawn)]
    if p["prompting"] == "attention":
        ranked = sorted(
            ((i, j) for i in range(h) for j in range(w)), key=lambda ij: -prompt_scores[ij]
        )
        return sorted(ranked[: int(np.ceil(0.05 * h * w))])
    if p["prompting"] == "attentive":
        return typical_patches(F, len(grid))
    if p["prompting"] == "iterative":
        moved = []
        for i, j in grid:
            for _ in range(3):
                mask = affinity(F, i, j) > p["tau_b"]
                if mask.any():
                    inside = np.argwhere(mask)
                    i, j = (int(np.rint(c)) for c in inside.mean(axis=0))
            moved.append((i, j))
        return moved
    return grid


def typical_patches(F: np.ndarray, most: int) -> list[tuple[int, int]]:
    """FINCH, level by level, up to the first with at most so many clusters.

    As the package has it, it ends before a level of one cluster, or of only one cluster fewer.
    """
    h, w, _ = F.shape
    points = F.reshape(h * w, -1)
    clusters = [[k] for k in range(h * w)]
    joined = False
    while not joined or len(clusters) > most:
        joined = True
        means = [points[cluster].mean(axis=0) for cluster in clusters]
        nearest = []
        for a, mean in enumerate(means):
            cosines = [
                -2 if a == b else mean @ other / np.sqrt((mean @ mean) * (other @ other))
                for b, other in enumerate(means)
            ]
            nearest.append(int(np.argmax(cosines)))
        group = list(range(len(clusters)))
        for a, b in enumerate(nearest):
            old, new = group[a], group[b]
            group = [new if g == old else g for g in group]
        larger = [
            [k for a, cluster in enumerate(clusters) if group[a] == g for k in cluster]
            for g in dict.fromkeys(group)
        ]
        if len(clusters) < h * w and (len(larger) == 1 or len(clusters) - len(larger) <= 1):
            break
        clusters = larger
    chosen = []
    for cluster in clusters:
        mean = points[cluster].mean(axis=0)
        chosen.append(max(cluster, key=lambda k: points[k] @ mean))
    return [divmod(k, w) for k in sorted(chosen)]


def is_background(mask: np.ndarray) -> bool:
    sides = 0
    for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        if sum(int(v) for v in side) > len(side) / 2:
            sides += 1
    return sides > 1


def components(mask: np.ndarray) -> list[np.ndarray]:
    """4-connected components by flood fill, in raster order of their first patch."""
    h, w = mask.shape
    left = mask.copy()
    found = []
    for i in range(h):
        for j in range(w):
            if not left[i, j]:
                continue
            component = np.zeros_like(mask)
            todo = [(i, j)]
            left[i, j] = False
            while todo:
                a, b = todo.pop()
                component[a, b] = True
                for c, d in ((a - 1, b), (a + 1, b), (a, b - 1), (a, b + 1)):
                    if 0 <= c < h and 0 <= d < w and left[c, d]:
                        left[c, d] = False
                        todo.append((c, d))
            found.append(component)
    return found


def split(mask: np.ndarray, prompt: tuple[int, int], p: dict) -> list[np.ndarray]:
    if not mask.any():
        return []
    if p["split_components"] == "none":
        return [mask]
    parts = sorted(components(mask), key=lambda m: -int(m.sum()))
    if p["split_components"] == "all":
        return parts
    own = [part for part in parts if part[prompt]] or parts[:1]
    return [c for c in parts if c.sum() >= p["min_component_ratio"] * own[0].sum()]


def mean_feature(F: np.ndarray, mask: np.ndarray) -> np.ndarray:
    total = np.zeros(F.shape[2])
    for i, j in np.argwhere(mask):
        total += F[i, j]
    return total / mask.sum()


def filtered(F: np.ndarray, masks: list, voted: np.ndarray | None, p: dict) -> list[np.ndarray]:
    rule = p["filtering"]
    if rule == "none":
        return list(masks)
    if rule == "nms":
        kept: list[np.ndarray] = []
        for mask in sorted(masks, key=lambda m: -int(m.sum())):
            if all((mask & k).sum() / (mask | k).sum() <= p["nms_iou"] for k in kept):
                kept.append(mask)
        return kept
    background_mean = mean_feature(F, voted)
    kept = []
    if rule == "cascade":
        seen = np.zeros_like(voted)
        for mask in sorted(masks, key=lambda m: int(m.sum())):
            unseen = mask & ~seen
            if not unseen.any():
                continue
            ioa = (unseen & voted).sum() / unseen.sum()
            similarity = mean_feature(F, mask) @ background_mean
            if ioa < p["tau_ioa_bg"] and similarity < p["tau_f_bg"]:
                seen |= unseen
                kept.append(mask)
        return kept
    for mask in masks:
        if rule == "ioa" and (mask & voted).sum() / mask.sum() > p["tau_ioa_bg"]:
            continue
        if rule == "feature" and mean_feature(F, mask) @ background_mean > p["tau_f_bg"]:
            continue
        kept.append(mask)
    return kept


def compatible(F: np.ndarray, fg: np.ndarray, cluster: np.ndarray, p: dict) -> bool:
    rule = p["merge_rule"]
    if rule == "none":
        return False
    ioa = (fg & cluster).sum() / fg.sum()
    if rule == "ioa":
        return ioa > p["tau_ioa_merge"]
    if rule == "official":
        if ioa > p["tau_overlap_merge"]:
            return True
        if not ioa > p["tau_ioa_merge"]:
            return False
        return mean_feature(F, fg) @ mean_feature(F, cluster) >= p["tau_f_merge"]
    similarity = mean_feature(F, fg) @ mean_feature(F, cluster)
    if rule == "feature":
        return similarity > p["tau_f_merge"]
    return similarity > p["tau_f_merge"] or ioa > p["tau_ioa_merge"]
