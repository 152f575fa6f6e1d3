import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from promerge_fo.encoder import Encoder, Resize, load_encoder, vit
from tests.needs import need_command

TINY = "vit_tiny_patch16_224"
MODELS = {
    TINY: (1, 16, 192),
    "vit_small_patch16_224.dino": (1, 16, 384),
    "vit_small_patch14_reg4_dinov2": (5, 14, 384),
    "vit_small_patch16_dinov3": (5, 16, 384),
    "vit_small_patch16_dinov3_qkvb": (5, 16, 384),
    "eva02_tiny_patch14_224": (1, 14, 192),
}


def load(checkpoint, name=TINY, **options):
    return load_encoder(name, checkpoint(name), **{"device": "cpu", "image_size": 64, **options})


def reference(path, name, pixels):
    """Queries, keys, values, tokens, heads of timm's whole model, by a hook and by its formula."""
    model = timm.create_model(name, num_classes=0, dynamic_img_size=True).eval()
    model.load_state_dict(torch.load(path))
    seen = {}
    last = model.blocks[-1]
    last.attn.register_forward_pre_hook(lambda _, args: seen.update(inputs=args[0]))
    last.register_forward_hook(lambda _, args, output: seen.update(tokens=output))
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        model.forward_features((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
        attention = last.attn
        if attention.qkv is None:
            layers = attention.q_proj, attention.k_proj, attention.v_proj
            q, k, v = (layer(seen["inputs"]) for layer in layers)
        else:
            q, k, v = attention.qkv(seen["inputs"]).chunk(3, dim=-1)
        if getattr(attention, "q_bias", None) is not None:
            q, v = q + attention.q_bias, v + attention.v_bias
    return {"query": q, "key": k, "value": v, "token": seen["tokens"]}, attention.num_heads


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.fixture(scope="module")
def dino_checkpoint(tmp_path_factory):
    """The golden case's state dict; see tests/data/golden/README.md."""
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in timm.create_model("vit_small_patch8_224", num_classes=0)
        .state_dict()
        .items()
    }
    rng, state = np.random.default_rng(3), {}
    for name in sorted(shapes):
        drawn = rng.standard_normal(shapes[name])
        if name.endswith(("norm1.weight", "norm2.weight")) or name == "norm.weight":
            drawn = 1 + 0.1 * drawn
        elif name.endswith("bias"):
            drawn = 0.05 * drawn
        elif name in ("pos_embed", "cls_token"):
            drawn = 0.3 * drawn
        else:
            drawn = drawn * 1.2 / np.sqrt(np.prod(shapes[name][1:]))
        state[name] = torch.from_numpy(drawn.astype(np.float32))
    path = tmp_path_factory.mktemp("dino") / "dino_deitsmall8.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize(("facet", "other"), [("key", None), ("query", "value")])
def test_features_are_those_of_dinos_own_code(dino_checkpoint, facet, other):
    data = pytest.importorskip("skimage.data")
    golden = np.load(Path(__file__).parents[1] / "data/golden/vits8_seed3_features.npz")
    options = {"device": "cpu", "embed_facet": other}
    encoder = load_encoder("vit_small_patch8_224.dino", dino_checkpoint, facet, **options)
    features, _, others = encoder.encode_for_both([encoder.transform(data.chelsea())])
    for name, found in {facet: features, other or facet: others}.items():
        assert found.shape == (1, 384, 60, 60)
        ours = found[0].flatten(1).T[::9]
        assert relative(ours, torch.from_numpy(golden[name[0]].astype(np.float32))) < 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_no_random_weights_are_made_for_those_that_are_loaded(checkpoint, name):
    path, before = checkpoint(name), torch.get_rng_state()
    load(lambda _: path, name)
    assert torch.equal(torch.get_rng_state(), before)


def test_dinos_positions_are_untouched_at_the_size_of_pretraining(checkpoint):
    name = "vit_small_patch16_224.dino"
    encoder = load(checkpoint, name, image_size=224)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    expected, _ = reference(checkpoint(name), name, pixels)
    ours = encoder.encode(list(pixels)).flatten(2).transpose(1, 2)
    assert relative(ours, expected["key"][:, 1:]) < 1e-5


@pytest.mark.parametrize("name", [TINY, "vit_small_patch16_dinov3", "eva02_tiny_patch14_224"])
def test_features_of_an_earlier_block_and_after_the_final_norm(checkpoint, name):
    prefix, patch, _ = MODELS[name]
    size = 5 * patch
    model = timm.create_model(name, num_classes=0, dynamic_img_size=True).eval()
    model.load_state_dict(torch.load(checkpoint(name)))
    seen = {}
    for number in (3, len(model.blocks)):
        model.blocks[number - 1].register_forward_hook(
            lambda _, args, output, number=number: seen.update({number: output})
        )
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        model.forward_features((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
        for block, at in ((3, 3), (None, len(model.blocks))):
            for facet, expected in (("token", seen[at]), ("normed_token", model.norm(seen[at]))):
                encoder = load(checkpoint, name, facet=facet, block=block, image_size=size)
                features = encoder.encode(list(pixels)).flatten(2).transpose(1, 2)
                assert relative(features, expected[:, prefix:]) < 1e-5
                assert encoder.identity().get("block") == block


def test_the_last_block_by_its_number_is_the_default(checkpoint, images):
    named, default = load(checkpoint, block=12), load(checkpoint)
    assert named.identity() == default.identity()
    assert torch.equal(named(images), default(images))
    keys = load(checkpoint, block=4)
    assert keys.identity() == {**default.identity(), "block": 4}
    assert relative(keys(images), default(images)) > 0.1
    assert keys.encode([keys.transform(images[0])], with_prompt_scores=True)[1].shape == (1, 4, 4)
    for block in (0, 13, 2.5):
        with pytest.raises(ValueError, match=f"block is {block}, but .* has the blocks 1 to 12"):
            load(checkpoint, block=block)
    with pytest.raises(ValueError, match="'texture' has no blocks"):
        load_encoder("texture", block=2)


@pytest.mark.parametrize("facet", ["key", "query", "value", "token"])
@pytest.mark.parametrize("name", [n for n in MODELS if not n.endswith(".dino")])
def test_facets_are_those_of_the_whole_model(checkpoint, name, facet):
    prefix, patch, channels = MODELS[name]
    encoder = load(checkpoint, name, facet=facet, image_size=5 * patch + 1)
    assert encoder.image_size == 5 * patch and encoder.patch_size == patch
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (2, 5 * patch, 5 * patch, 3), dtype=np.uint8)
    expected, _ = reference(checkpoint(name), name, pixels)
    features = encoder.encode(list(pixels))
    assert features.shape == (2, channels, 5, 5) and features.dtype == torch.float32
    assert relative(features.flatten(2).transpose(1, 2), expected[facet][:, prefix:]) < 1e-5


@pytest.mark.parametrize("name", [TINY, "vit_small_patch16_dinov3"])
@pytest.mark.parametrize("facet", ["key", "token"])
def test_prompt_scores_are_cosines_summed_over_heads(checkpoint, name, facet):
    prefix, patch, _ = MODELS[name]
    encoder = load(checkpoint, name, facet=facet, image_size=4 * patch)
    pixels = np.random.default_rng(2).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    features, scores = encoder.encode(list(pixels), with_prompt_scores=True)
    assert torch.equal(features, encoder.encode(list(pixels)))
    expected, heads = reference(checkpoint(name), name, pixels)
    for b in range(2):
        queries = expected["query"][b].chunk(heads, dim=-1)
        for i in range(16):
            want = sum(F.cosine_similarity(q[0], q[prefix + i], dim=0) for q in queries)
            assert scores[b, i // 4, i % 4] == pytest.approx(float(want), abs=1e-4)


def test_models_without_class_token_have_no_prompt_scores(checkpoint, images):
    encoder = load(checkpoint, "vit_wee_patch16_reg1_gap_256")
    with pytest.raises(ValueError, match="no class token"):
        encoder.encode([encoder.transform(images[0])], with_prompt_scores=True)


def test_nothing_after_the_facet_is_calculated(checkpoint, images, monkeypatch, tmp_path):
    state = torch.load(checkpoint(TINY))
    poisoned = ("blocks.11.attn.proj", "blocks.11.mlp", "blocks.11.norm2", "norm.")
    for name in state:
        if name.startswith(poisoned):
            state[name].fill_(float("nan"))
    torch.save(state, tmp_path / "poisoned.pth")
    expected = load(checkpoint)(images)
    encoder = load_encoder(TINY, tmp_path / "poisoned.pth", device="cpu", image_size=64)
    calls = []
    for function in ("linear", "scaled_dot_product_attention"):
        original = getattr(F, function)

        def counted(*args, _name=function, _original=original, **kwargs):
            calls.append((_name, args[1].shape[0]))
            return _original(*args, **kwargs)

        monkeypatch.setattr(F, function, counted)
    assert torch.equal(encoder(images), expected)
    assert sum(name == "scaled_dot_product_attention" for name, _ in calls) == 11
    # The patch embedding, four layers in each of 11 blocks, and the keys alone.
    linear = [rows for name, rows in calls if name == "linear"]
    assert linear == [192] + 11 * [3 * 192, 192, 4 * 192, 192] + [192]


def test_aspect_keeps_the_ratio_and_the_number_of_patches(checkpoint, images):
    encoder = load(checkpoint, image_size=128, resize="aspect")
    features = encoder(images)
    assert [tuple(f.shape) for f in features] == [(192, 7, 9), (192, 9, 7), (192, 8, 8)]
    alone = [encoder([image])[0] for image in images]
    assert all(relative(a, b) < 1e-5 for a, b in zip(features, alone, strict=True))


def test_aspect_encodes_rows_and_columns_the_right_way_round(checkpoint):
    pixels = np.random.default_rng(3).integers(0, 256, (1, 48, 96, 3), dtype=np.uint8)
    encoder = load(checkpoint, image_size=68, resize="aspect")
    expected, _ = reference(checkpoint(TINY), TINY, pixels)
    features = encoder.encode(list(pixels))[0]
    assert features.shape == (192, 3, 6)
    assert relative(features.flatten(1).T, expected["key"][0, 1:]) < 1e-5


def test_a_batch_equals_its_images_one_by_one(checkpoint, images):
    encoder = load(checkpoint)
    together = encoder(images)
    assert together.shape == (3, 192, 4, 4)
    for image, features in zip(images, together, strict=True):
        assert relative(encoder([Image.fromarray(image)])[0], features) < 1e-5


def test_bf16_is_close_to_fp32(checkpoint, images):
    exact, rough = load(checkpoint)(images), load(checkpoint, precision="bf16")(images)
    assert rough.dtype == torch.float32
    assert 1e-4 < relative(rough, exact) < 2e-2


def test_auto_precision_follows_the_device(checkpoint, monkeypatch):
    for fast, precision in [(True, "bf16"), (False, "fp32")]:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda fast=fast: fast)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        assert load(checkpoint, precision="auto").precision == precision


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_precision_asks_the_gpu_that_is_used(monkeypatch, capability, precision):
    capabilities = {torch.device("cuda:1"): capability}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    assert vit._resolve_precision("auto", torch.device("cuda:1")) == precision


class Recorder(TorchDispatchMode):
    """Notes the operations that torch carries out."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", MODELS)
def test_nothing_waits_for_the_device(checkpoint, images, name):
    encoder = load(checkpoint, name, image_size=80)
    batch = [encoder.transform(image) for image in images]
    with Recorder() as recorder:
        encoder.encode(batch, with_prompt_scores=True)
    # Values read back, sizes that depend on values, and Python's numbers uploaded.
    waiting = {"_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "equal"}
    assert "native_layer_norm" in recorder.seen and not recorder.seen & waiting


def test_a_batch_that_is_encoded_at_once_is_not_copied(checkpoint, images, monkeypatch):
    encoder, made = load(checkpoint), []
    batch = [encoder.transform(image) for image in images]
    whole = encoder._encode
    monkeypatch.setattr(encoder, "_encode", lambda *args: made.append(whole(*args)) or made[-1])
    features = encoder.encode(batch)
    assert features is made[0][0] and features.is_contiguous()
    assert features.untyped_storage().nbytes() == features.nbytes
    features.zero_()  # not what a later call gives, nor a tensor that may not be changed
    assert encoder.encode(batch).any()


def test_features_of_one_image_do_not_keep_those_of_others(checkpoint, images):
    encoder = load(checkpoint, resize="aspect")
    features, scores = encoder.encode(
        [encoder.transform(image) for image in [*images, *images[:2]]], with_prompt_scores=True
    )
    for tensor in (*features, *scores):
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
    assert relative(features[3], features[0]) < 1e-6 and relative(features[4], features[1]) < 1e-6


class OnCuda(Encoder):
    """Stands for an encoder on a GPU whose memory holds two images."""

    def __init__(self):
        super().__init__(
            name="stand-in",
            facet="key",
            precision="fp32",
            transform=Resize(16, 8),
            device=torch.device("cuda"),
            weights_sha256=None,
            weights_source="none",
        )

    def _encode(self, pixels, with_prompt_scores):
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pixels.float().mean(dim=(1, 2))[:, :, None, None], None


def test_batches_for_a_gpu_are_stacked_in_pinned_memory(monkeypatch):
    pinned, empty = [], torch.empty

    def pretended(shape, dtype, pin_memory):
        pinned.append((shape, pin_memory))
        return empty(shape, dtype=dtype)

    monkeypatch.setattr(torch, "empty", pretended)
    batch = [np.full((16, 16, 3), value, np.uint8) for value in range(5)]
    with pytest.warns(UserWarning, match="does not hold 5 images"):
        features = OnCuda().encode(batch)
    assert pinned == [((n, 16, 16, 3), True) for n in (5, 2, 2, 1)]
    assert features[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_compiled_features_are_the_same_for_any_size_of_batch_and_image(checkpoint, images):
    need_command("g++", "compile=True needs a C++ compiler; apt-get install g++")
    torch.compiler.reset()
    counters.clear()
    exact, compiled = (load(checkpoint, resize="aspect", compile=c) for c in (False, True))
    assert compiled.has_prompt_scores and compiled.identity() == exact.identity()
    transformed = [exact.transform(image) for image in images]
    for batch in (3 * transformed, 2 * transformed):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*could not be compiled")
            ours = compiled.encode(batch, with_prompt_scores=True)
        for got, expected in zip(ours, exact.encode(batch, with_prompt_scores=True), strict=True):
            assert all(relative(a, b) < 1e-4 for a, b in zip(got, expected, strict=True))
    assert counters["stats"]["unique_graphs"] == 1  # 11 blocks, 2 sizes, 3 shapes


@pytest.mark.parametrize("at_once", [True, False])
def test_a_model_that_cannot_be_compiled_runs_without(checkpoint, images, monkeypatch, at_once):
    def fail(*_, **__):
        raise RuntimeError("no working\ncompiler")

    monkeypatch.setattr(torch, "compile", fail if at_once else lambda *_, **__: fail)
    with pytest.warns(UserWarning, match="compiled.*RuntimeError: no working compiler") as caught:
        encoder = load(checkpoint, compile=True)
        features = encoder(images)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(features, encoder(images))
    assert torch.equal(features, load(checkpoint)(images))


def test_memory_that_runs_out_is_no_reason_not_to_compile(checkpoint, images, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: full)
    encoder = load(checkpoint, compile=True)
    with pytest.raises(torch.OutOfMemoryError):
        encoder(images[:1])


def test_batches_that_do_not_fit_are_halved(checkpoint, images, monkeypatch):
    encoder = load(checkpoint)
    batch = [encoder.transform(image) for image in [*images, *images[:2]]]
    expected, whole, sizes = encoder.encode(batch), encoder._encode, []

    def scarce(pixels, with_prompt_scores):
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(pixels, with_prompt_scores)

    monkeypatch.setattr(encoder, "_encode", scarce)
    with pytest.warns(UserWarning, match="does not hold 5 images") as caught:
        halved = encoder.encode(batch)
    assert len(caught) == 1 and sizes == [5, 2, 2, 1]
    assert relative(halved, expected) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(batch)  # remembered: no second warning, no second detour
    assert sizes[4:] == [2, 2, 1]


def test_memory_that_holds_no_single_image_is_an_error(checkpoint, images, monkeypatch):
    encoder = load(checkpoint)

    def none(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoder, "_encode", none)
    with pytest.warns(UserWarning), pytest.raises(torch.OutOfMemoryError):
        encoder(images)


def test_identity_names_all_that_decides_the_features(checkpoint, images):
    encoder = load(checkpoint)
    identity = encoder.identity()
    assert identity == {
        "name": TINY,
        "facet": "key",
        "weights_sha256": encoder.weights_sha256,
        "precision": "fp32",
        "image_size": 64,
        "resize": "square",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "position_embedding": "timm",
    }
    assert load(checkpoint, image_size=70).identity() == identity
    assert load(checkpoint, facet="value").identity() != identity
    assert load(checkpoint, resize="aspect").identity() != identity


def test_the_transform_goes_to_workers(checkpoint, images):
    encoder = load(checkpoint)
    transform = pickle.loads(pickle.dumps(encoder.transform))
    expected = Image.fromarray(images[0]).resize((64, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(transform(images[0]), np.asarray(expected))
    assert transform(images[0]).flags.writeable


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([], "empty"),
        ([np.zeros((64, 64, 3), np.float32)], "float32.*must be uint8"),
        ([np.zeros((48, 64, 3), np.uint8)], r"must be \(64, 64\)"),
        ([np.zeros((3, 64, 64), np.uint8)], "must be uint8"),
    ],
)
def test_batches_of_something_else_are_refused(checkpoint, batch, message):
    with pytest.raises(ValueError, match=message):
        load(checkpoint).encode(batch)


def test_a_single_image_is_refused(checkpoint, images):
    with pytest.raises(TypeError, match="give a list"):
        load(checkpoint)(Image.fromarray(images[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vit_base_patch8_224.dnio"}, "did you mean 'vit_base_patch8_224.dino'"),
        ({"name": "resnet50"}, "no plain vision transformer"),
        ({"name": "swin_tiny_patch4_window7_224"}, "no plain vision transformer"),
        ({"name": "vit_small_r26_s32_224"}, "hybrid stem"),
        ({"name": "vit_pwee_patch16_reg1_gap_256"}, "parallel blocks"),
        ({"facet": "keys"}, "facet is 'keys'"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"resize": "crop"}, "resize is 'crop'"),
        ({"image_size": 8}, r"image_size is 8.*\[16, 8192\]"),
        ({"device": "nonsense"}, "device is 'nonsense'"),
    ],
)
def test_unsuitable_arguments_are_refused(checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(**{"name": TINY, "checkpoint": checkpoint(TINY), **options})


def test_a_torchvision_that_does_not_match_is_explained(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(vit.importlib, "import_module", broken)
    with pytest.raises(ImportError, match=r"nms does not exist.*torchvision \d.*builds for each"):
        load_encoder()


@pytest.mark.parametrize("name", [TINY, "vit_small_patch16_dinov3"])
@pytest.mark.parametrize(
    ("block", "facet", "at"),
    [
        (9, "value", 12),  # of a later block
        (9, "key", 4),  # of an earlier one
        (9, "normed_token", 9),
        (None, "key", None),
        (None, "token", 7),
    ],
)
def test_one_pass_gives_the_features_of_masks_and_those_of_embeddings(
    checkpoint, images, name, block, facet, at
):
    alone = load(checkpoint, name, facet="query", block=block)
    expected = load(checkpoint, name, facet=facet, block=at if at is not None else block)
    both = load(checkpoint, name, facet="query", block=block, embed_facet=facet, embed_block=at)
    pixels = [both.transform(image) for image in images]
    features, scores, embeddings = both.encode_for_both(pixels, with_prompt_scores=True)
    assert torch.equal(features, alone.encode(pixels))
    assert torch.equal(scores, alone.encode(pixels, with_prompt_scores=True)[1])
    torch.testing.assert_close(embeddings, expected.encode(pixels), rtol=1e-4, atol=1e-5)
    assert both.identity() == alone.identity()
    assert both.embedding_identity() == expected.identity()
    assert torch.equal(both.encode(pixels), features)


def test_the_features_of_embeddings_are_those_of_masks_unless_told_otherwise(checkpoint, images):
    encoder = load(checkpoint)
    pixels = [encoder.transform(images[0])]
    features, scores, embeddings = encoder.encode_for_both(pixels)
    assert scores is None
    assert embeddings is features
    assert encoder.embedding_identity() == encoder.identity()
    for block in (0, 13):
        with pytest.raises(ValueError, match=f"block is {block}, but .* the blocks 1 to 12"):
            load(checkpoint, embed_block=block)
    with pytest.raises(ValueError, match="facet is 'nose'"):
        load(checkpoint, embed_facet="nose")
    with pytest.raises(ValueError, match="'texture' has no blocks"):
        load_encoder("texture", embed_block=2)
