"""Model families, built here with random weights: targets, heads, training, PEFT export, broken folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from airlora.adapter import NestedAdapter, export_peft, find_targets
from airlora.codec import EdgeState
from airlora.errors import ModelError
from airlora.factors import Factors
from airlora.job import build_job
from airlora.link import make_link
from airlora.policy import make_policy
from airlora.workload.base import rows_apart
from airlora.workload.builtin import builtin_model_path
from airlora.workload.classify import ClassificationWorkload, noisy_accuracy
from airlora.workload.data import Dataset
from airlora.workload.lm import LanguageModelWorkload
from airlora.workload.models import LoadedModel, autocast, context_tokens, load_model

# PEFT reads an attribute that Transformers 5 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

LABELS = 3
DECODER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
GATED = DECODER | {"intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8}
LLAMA_MAPS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
BERT_MAPS = (
    *(f"attention.self.{name}" for name in ("query", "key", "value")),
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)

# name -> (config class, its settings, block's name, maps of a block, base model that lacks a head)
FAMILIES: dict[str, tuple[str, dict[str, Any], str, tuple[str, ...]]] = {
    "opt": (
        "OPTConfig",
        DECODER | {"ffn_dim": 24, "word_embed_proj_dim": 16},
        "model.decoder.layers",
        (*(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")), "fc1", "fc2"),
    ),
    "llama": ("LlamaConfig", GATED, "model.layers", LLAMA_MAPS),
    "qwen2": ("Qwen2Config", GATED, "model.layers", LLAMA_MAPS),
    "qwen3": ("Qwen3Config", GATED, "model.layers", LLAMA_MAPS),
    "gpt2": (
        "GPT2Config",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
        "transformer.h",
        ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    ),
    "bert": ("BertConfig", DECODER | {"intermediate_size": 24}, "bert.encoder.layer", BERT_MAPS),
    "roberta": ("RobertaConfig", DECODER | {"intermediate_size": 24}, "roberta.encoder.layer", BERT_MAPS),
}
CAUSAL = ("opt", "llama", "qwen2", "qwen3", "gpt2")
CASES = [(family, "classify") for family in FAMILIES] + [(family, "lm") for family in CAUSAL]

TEXTS = ("turn the light on", "open the window", "call home now", "stop", "drive to the station", "warmer please")
CLASSIFY = Dataset(
    "classify",
    ("a", "b", "c"),
    dict.fromkeys(("train", "validation", "test"), TEXTS),
    {split: np.arange(6) % LABELS for split in ("train", "validation", "test")},
)
LM = Dataset("lm", (), {split: (" ".join(TEXTS * 8),) for split in ("train", "validation", "test")}, {})


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder a family: a pretrained base (masked or causal), without a classification head."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = transformers.AutoTokenizer.from_pretrained(builtin_model_path("tiny-opt"))
    made = {}
    for index, (name, (config_class, settings, *_)) in enumerate(FAMILIES.items()):
        torch.manual_seed(100 + index)
        config = getattr(transformers, config_class)(
            vocab_size=len(tokenizer) + 8,  # Qwen2's tokenizer adds a token of its own
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            initializer_range=0.2,
            **settings,
        )
        auto = transformers.AutoModelForCausalLM if name in CAUSAL else transformers.AutoModelForMaskedLM
        auto.from_config(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
        made[name] = root / name
    return made


def load(folder: Path, task: str) -> LoadedModel:
    return load_model(str(folder), num_labels=LABELS if task == "classify" else None, device="cpu")


def workload_of(loaded: LoadedModel, task: str) -> ClassificationWorkload | LanguageModelWorkload:
    if task == "classify":
        return ClassificationWorkload(loaded, CLASSIFY, batch_size=6, max_length=32, seed=0)
    return LanguageModelWorkload(loaded, LM, batch_size=4, context=16, seed=0)


def adapt(loaded: LoadedModel, max_rank: int = 4, seed: int = 0) -> NestedAdapter:
    return NestedAdapter(
        loaded.model,
        find_targets(loaded.model),
        max_rank=max_rank,
        alpha=2.0 * max_rank,
        head=loaded.head,
        seed=seed,
        base_fingerprint=loaded.fingerprint,
    )


def random_factors(adapter: NestedAdapter, seed: int = 0) -> Factors:
    """Factors with ranks 0, 1, 2, … in turn, as an edge may hold them."""
    rng = np.random.default_rng(seed)
    ranks = [index % (p.r_max + 1) for index, p in enumerate(adapter.schema.projections)]
    pairs = [
        (rng.normal(0, 0.3, (p.d_out, r)).astype(np.float32), rng.normal(0, 0.3, (r, p.d_in)).astype(np.float32))
        for p, r in zip(adapter.schema.projections, ranks, strict=True)
    ]
    head = {t.name: rng.normal(0, 0.3, t.shape).astype(np.float32) for t in adapter.schema.head}
    return Factors(adapter.schema, tuple(u for u, _ in pairs), tuple(v for _, v in pairs), head)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_targets_are_exactly_attention_and_feed_forward(family: str, folders: dict[str, Path]) -> None:
    _, _, blocks, maps = FAMILIES[family]
    for task in ("classify", "lm") if family in CAUSAL else ("classify",):
        found = set(find_targets(load(folders[family], task).model))
        assert found == {f"{blocks}.{index}.{name}" for index in range(2) for name in maps}


@pytest.mark.parametrize(("family", "task"), CASES)
def test_one_step_changes_adapter_and_head_alone(family: str, task: str, folders: dict[str, Path]) -> None:
    loaded = load(folders[family], task)
    workload = workload_of(loaded, task)
    adapter = adapt(loaded)
    trained = {id(p) for layer in adapter.layers.values() for p in layer.component_parameters()}
    trained |= {id(p) for p in loaded.head.values()}
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters() if id(p) not in trained}
    batch = workload.batch(0)
    optimizer = torch.optim.Adam([p for p in loaded.model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = workload.loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert {id(p) for p in loaded.model.parameters() if p.requires_grad} == trained
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, before[n]) for n, p in loaded.model.named_parameters() if n in before)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_is_found_and_starts_equal_everywhere(family: str, folders: dict[str, Path]) -> None:
    wanted = {
        "bert": {"bert.pooler.dense", "classifier"},
        "roberta": {"classifier"},
    }.get(family, {"score"})
    heads, logits = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (a library might draw from it)
        loaded = load(folders[family], "classify")
        assert set(loaded.head_modules) == wanted
        names = {name for name, _ in loaded.model.named_parameters()}
        assert set(loaded.head) == {n for n in names if any(n.startswith(module + ".") for module in wanted)}
        heads.append({name: p.detach().clone() for name, p in loaded.head.items()})
        workload = workload_of(loaded, "classify")
        with torch.no_grad():
            logits.append(loaded.model(**workload.batch(0).inputs).logits)
        assert all(p.dtype == torch.float32 for p in loaded.head.values())
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    assert torch.count_nonzero(logits[0]) == 0  # the last map starts at zero: no class is preferred
    inner = {"bert": "bert.pooler.dense.weight", "roberta": "classifier.dense.weight"}.get(family)
    assert inner is None or heads[0][inner].std() > 0.01  # a zero before a zero could never learn


@pytest.mark.parametrize(("family", "task"), CASES)
def test_the_export_answers_in_peft_as_the_edge_does(
    family: str, task: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    loaded = load(folders[family], task)
    workload = workload_of(loaded, task)
    batch = workload.batch(0)
    adapter = adapt(loaded)
    factors = random_factors(adapter)
    assert {0, 1, 4} <= set(factors.ranks.tolist())
    with adapter.serving(factors), torch.no_grad():
        wanted = loaded.model(**batch.inputs).logits
    export_peft(
        factors,
        tmp_path,
        task_type=workload.task_type,
        modules_to_save=workload.modules_to_save,
        fan_in_fan_out=family == "gpt2",
        base_model=str(folders[family]),
    )
    fresh = load(folders[family], task).model
    with torch.no_grad():
        base = fresh(**batch.inputs).logits
    served = PeftModel.from_pretrained(fresh, str(tmp_path)).eval()
    with torch.no_grad():
        found = served(**batch.inputs).logits
        merged = served.merge_and_unload()(**batch.inputs).logits
    assert float((wanted - base).abs().max()) > 0.05  # the adapter does something
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(merged, wanted, atol=1e-4, rtol=1e-4)


def test_the_export_loads_with_a_head_that_transformers_made(folders: dict[str, Path], tmp_path: Path) -> None:
    loaded = load(folders["roberta"], "classify")
    workload = workload_of(loaded, "classify")
    adapter = adapt(loaded)
    factors = random_factors(adapter)
    with adapter.serving(factors), torch.no_grad():
        wanted = loaded.model(**workload.batch(0).inputs).logits
    export_peft(factors, tmp_path, task_type="SEQ_CLS", modules_to_save=workload.modules_to_save)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folders["roberta"], num_labels=LABELS)
    served = PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    with torch.no_grad():
        torch.testing.assert_close(served(**workload.batch(0).inputs).logits, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_step_at_one_rank_is_a_step_of_lora(family: str, folders: dict[str, Path]) -> None:
    rank, max_rank = 2, 4
    ours = load(folders[family], "lm")
    workload = workload_of(ours, "lm")
    adapter = adapt(ours, max_rank)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in adapter.layers.values():
            layer.left.copy_(torch.randn(layer.left.shape, generator=generator) * 0.1)
    theirs: Any = load(folders[family], "lm").model
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,  # the same scale: ours is alpha / max_rank at every rank
        target_modules=list(adapter.layers),
        fan_in_fan_out=family == "gpt2",
        task_type="CAUSAL_LM",
    )
    theirs = get_peft_model(theirs, config)
    modules = dict(theirs.base_model.model.named_modules())
    with torch.no_grad():
        for name, layer in adapter.layers.items():
            modules[name].lora_A["default"].weight.copy_(layer.right[:rank])
            modules[name].lora_B["default"].weight.copy_(layer.left[:rank].T)
    adapter.set_ranks(rank)
    batch = workload.batch(0)
    loss = workload.loss(batch)
    loss.backward()
    logits = theirs(**batch.inputs, use_cache=False).logits.float()
    reference = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    reference.backward()
    torch.testing.assert_close(loss, reference, atol=1e-5, rtol=1e-5)
    for name, layer in adapter.layers.items():
        assert layer.left.grad is not None
        assert layer.right.grad is not None
        torch.testing.assert_close(
            layer.left.grad[:rank].T, modules[name].lora_B["default"].weight.grad, atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(
            layer.right.grad[:rank], modules[name].lora_A["default"].weight.grad, atol=1e-5, rtol=1e-4
        )
        assert not layer.left.grad[rank:].any()


@pytest.mark.parametrize(("family", "task"), [("llama", "classify"), ("bert", "classify"), ("gpt2", "lm")])
def test_a_bfloat16_base_trains_a_float32_adapter_and_head(family: str, task: str, folders: dict[str, Path]) -> None:
    full = load(folders[family], task)
    half = load(folders[family], task)
    half.model.to(torch.bfloat16)
    for parameter in half.head.values():
        parameter.data = parameter.data.float()
    losses = {}
    for name, loaded in (("full", full), ("half", half)):
        workload = workload_of(loaded, task)
        adapter = adapt(loaded)
        with adapter.serving(random_factors(adapter)):
            losses[name] = float(workload.loss(workload.batch(0)).detach())
        workload.loss(workload.batch(0)).backward()
        gradients = [layer.left.grad for layer in adapter.layers.values()] + [p.grad for p in loaded.head.values()]
        assert all(g is not None and g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
        assert np.isfinite(workload.evaluate("validation"))
    assert autocast(half.model)._enabled
    assert not autocast(full.model)._enabled
    assert losses["half"] == pytest.approx(losses["full"], rel=0.03)


def test_a_base_has_one_fingerprint_in_float32_and_bfloat16(folders: dict[str, Path], tmp_path: Path) -> None:
    prints = {load(folders["llama"], task).fingerprint for task in ("lm",)}
    model = transformers.AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.bfloat16)
    shutil.copytree(folders["llama"], tmp_path / "half")
    model.save_pretrained(tmp_path / "half")
    assert load(tmp_path / "half", "lm").fingerprint in prints
    assert load(folders["qwen2"], "lm").fingerprint not in prints


@pytest.mark.parametrize(
    ("family", "positions"),
    [("opt", 64), ("gpt2", 64), ("bert", 64), ("roberta", 62)],  # RoBERTa's first position is its padding index + 1
)
def test_the_longest_text_that_a_model_takes(family: str, positions: int, folders: dict[str, Path]) -> None:
    loaded = load(folders[family], "classify")
    pad = loaded.tokenizer.pad_token_id
    assert context_tokens(loaded.model, 10) == 10
    expected = 64 - pad - 1 if family == "roberta" else positions
    assert context_tokens(loaded.model, 999) == expected
    long = {split: tuple("open the window " * 60 for _ in TEXTS) for split in CLASSIFY.texts}
    workload = ClassificationWorkload(
        loaded, Dataset("classify", CLASSIFY.labels, long, CLASSIFY.targets), batch_size=2, max_length=999, seed=0
    )
    assert workload.batch(0).inputs["input_ids"].shape == (2, expected)
    assert np.isfinite(float(workload.loss(workload.batch(0)).detach()))


@pytest.mark.parametrize("family", ["bert", "opt", "llama"])
def test_rows_without_words_are_classified_all_the_same(family: str, folders: dict[str, Path]) -> None:
    loaded = load(folders[family], "classify")
    blank = ("​", "</s>", "<pad>", "stop", "é", "​​")
    texts = dict.fromkeys(CLASSIFY.texts, blank)
    workload = ClassificationWorkload(
        loaded, Dataset("classify", CLASSIFY.labels, texts, CLASSIFY.targets), batch_size=6, max_length=32, seed=0
    )
    workload._tokens["train"][0] = []  # as a tokenizer without an unknown token may give
    adapt(loaded)
    loss = workload.loss(workload.batch(0))
    loss.backward()
    assert np.isfinite(float(loss.detach()))
    assert all(p.grad is None or p.grad.isfinite().all() for p in loaded.model.parameters())
    alone = workload._collate("train", np.array([0]))
    assert alone.inputs["input_ids"].shape == (1, 1)
    assert np.isfinite(float(workload.loss(alone).detach()))


def test_smooth_quality_is_accuracy_under_noise_and_does_not_count_sureness(folders: dict[str, Path]) -> None:
    """With logits ten times as large the probabilities of the right labels move, the answers do not."""
    loaded = load(folders["bert"], "classify")
    workload = workload_of(loaded, "classify")
    assert isinstance(workload, ClassificationWorkload)
    with torch.no_grad():
        for name, parameter in loaded.head.items():
            parameter.normal_(0, 0.3 if "weight" in name else 0.0, generator=torch.Generator().manual_seed(0))
    found = workload.validate(6)
    assert found.quality == workload.evaluate("validation", 6)
    logits = workload._logits(workload._collate("validation", np.arange(6)), slice(None)).detach().numpy()
    targets = CLASSIFY.targets["validation"]
    right = logits[np.arange(6), targets]
    others = np.where(np.arange(LABELS) == targets[:, None], -np.inf, logits).max(axis=1)
    noise = 0.25 / np.sqrt(2) * np.sqrt(np.mean((right - others) ** 2))
    noisy = logits + np.random.default_rng(0).normal(0, noise, (100_000, 6, LABELS))
    assert found.smooth_quality == pytest.approx(np.mean(noisy.argmax(-1) == targets), abs=3e-3)
    with torch.no_grad():
        for parameter in loaded.head.values():
            parameter *= 10
    surer = workload.validate(6)
    assert abs(surer.objective - found.objective) > 0.01
    assert surer.smooth_quality == pytest.approx(found.smooth_quality, abs=1e-3)
    assert surer.quality == found.quality


def test_a_head_of_zeros_knows_one_label_in_so_many(folders: dict[str, Path]) -> None:
    """As the untouched model does: bytes are priced by what an update wins over it."""
    workload = workload_of(load(folders["bert"], "classify"), "classify")
    with torch.no_grad():
        for parameter in workload.head.values():
            parameter.zero_()
    assert workload.validate(6).smooth_quality == pytest.approx(1 / LABELS, abs=1e-6)
    for labels in (2, 3, 150):
        ties = torch.zeros(4, labels - 1, dtype=torch.float64)
        assert noisy_accuracy(ties, 0.0) == pytest.approx(1 / labels, rel=0.02)
    leads = torch.tensor([[0.3], [-0.1]], dtype=torch.float64)
    assert noisy_accuracy(leads, 0.2) == pytest.approx(float(torch.special.ndtr(leads / 0.2).mean()), abs=1e-6)


@pytest.mark.parametrize(("family", "task"), [("bert", "classify"), ("opt", "lm")])
def test_rows_apart_are_all_the_others_and_then_the_sample(folders: dict[str, Path], family: str, task: str) -> None:
    """A mean over a sample and the mean over the rows apart from it are that over all, by their sizes."""
    loaded = load(folders[family], task)
    workload = workload_of(loaded, task)
    with torch.no_grad():
        for parameter in workload.head.values():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    total = 6 if isinstance(workload, ClassificationWorkload) else len(workload._starts("validation"))
    sample = total // 3
    apart, few = workload.validate(total - sample, apart=sample), workload.validate(sample)
    everything = workload.validate(total)
    for name in ("objective", "quality"):
        mean = (getattr(apart, name) * (total - sample) + getattr(few, name) * sample) / total
        assert mean == pytest.approx(getattr(everything, name), rel=1e-5)
    assert workload.validate(total, apart=sample).objective == pytest.approx(everything.objective, rel=1e-5)
    assert few.quality == pytest.approx(workload.evaluate("validation", sample), rel=1e-6)
    assert rows_apart(9, np.array([1, 3]), 8, 0).tolist()[7:] == [1]
    assert set(rows_apart(9, np.array([1, 3]), 7, 0)) == {0, 2, 4, 5, 6, 7, 8}
    assert rows_apart(9, np.array([1, 3]), 3, 0).tolist() == rows_apart(9, np.array([1, 3]), 7, 0).tolist()[:3]


def test_padding_changes_no_answer(folders: dict[str, Path]) -> None:
    for family in FAMILIES:
        loaded = load(folders[family], "classify")
        workload = workload_of(loaded, "classify")
        with torch.no_grad():
            for parameter in loaded.head.values():
                parameter.normal_(generator=torch.Generator().manual_seed(1))
            together = loaded.model(**workload._collate("train", np.arange(6)).inputs).logits
            alone = [loaded.model(**workload._collate("train", np.array([row])).inputs).logits for row in range(6)]
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


# --- faults ---------------------------------------------------------------------------------------


def copy(folders: dict[str, Path], tmp_path: Path, family: str = "opt") -> Path:
    return Path(shutil.copytree(folders[family], tmp_path / family))


def refused(folder: Path, task: str, match: str) -> None:
    with pytest.raises(ModelError, match=match) as error:
        load(folder, task)
    assert "\n" not in str(error.value)


def test_a_missing_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "lm", "is not a folder; give builtin:NAME")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    refused(tmp_path / "model.bin", "lm", "is not a folder")


@pytest.mark.parametrize("task", ["classify", "lm"])
def test_no_config(task: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(folders, tmp_path)
    (folder / "config.json").unlink()
    refused(folder, task, "no config.json")


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "no-such-model"}', "{}"])
def test_a_broken_config(content: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(folders, tmp_path)
    (folder / "config.json").write_text(content)
    refused(folder, "lm", "cannot be loaded")


@pytest.mark.parametrize("task", ["classify", "lm"])
def test_no_weights(task: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(folders, tmp_path)
    (folder / "model.safetensors").unlink()
    refused(folder, task, "cannot be loaded")


@pytest.mark.parametrize("keep", [0, 100, 2000])
def test_cut_off_weights(keep: int, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(folders, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    refused(folder, "classify", "cannot be loaded")


@pytest.mark.parametrize("task", ["classify", "lm"])
def test_weights_that_lack_a_layer_are_not_taken_for_a_head(
    task: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy(folders, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    refused(folder, task, r"lacks \d+ weights of \w+, among them 'model.decoder.layers.2")


def test_no_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(folders, tmp_path)
    for file in folder.glob("*token*"):
        file.unlink()
    refused(folder, "lm", "has no tokenizer; put one of these files there: .*tokenizer.json")


def test_the_tokenizer_of_a_larger_model(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(folders, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"extra-{index}" for index in range(9)])
    tokenizer.save_pretrained(folder)
    refused(folder, "classify", "has 1033 tokens, the model 1032")


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_model_that_sees_the_future_is_no_language_model(family: str, folders: dict[str, Path]) -> None:
    refused(folders[family], "lm", "reads in both directions")


def test_the_bases_dtype_is_as_asked_and_the_heads_float32() -> None:
    for dtype, wanted in (("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        loaded = load_model("builtin:tiny-opt", num_labels=3, device="cpu", dtype=dtype)
        found = {p.dtype for name, p in loaded.model.named_parameters() if name not in loaded.head}
        assert found == {wanted}
        assert {p.dtype for p in loaded.head.values()} == {torch.float32}


def test_no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ModelError, match="use --device cpu"):
        load_model("builtin:tiny-opt", num_labels=None, device="cuda")


def test_no_adaptable_projection() -> None:
    with pytest.raises(ModelError, match="no adaptable projection"):
        find_targets(torch.nn.Sequential(torch.nn.Conv1d(3, 3, 1)))


def test_an_unknown_target_lists_those_there_are(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="'wq' matches no projection; there are: c_attn, c_fc, c_proj"):
        find_targets(load(folders["gpt2"], "lm").model, ["c_attn", "wq"])


@pytest.mark.slow
def test_a_model_from_elsewhere_runs_as_a_job(shared: Path) -> None:
    from airlora.config import RunConfig

    config = RunConfig(
        model=str(shared / "models" / "stories260K"),
        data="builtin:vehicle-logs,characters=20000",
        rounds=1,
        steps_per_round=1,
        batch_size=2,
        max_rank=2,
    )
    job = build_job(config, make_policy("fit", 0), make_link(config.link, 0))
    assert {p.name.rsplit(".", 1)[-1] for p in job.adapter.schema.projections} == {n.split(".")[1] for n in LLAMA_MAPS}
    assert isinstance(job.initial_edge, EdgeState)
    assert 0 < job.workload.evaluate("validation", 2) < 20
