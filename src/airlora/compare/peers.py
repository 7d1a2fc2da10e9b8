"""What a user would do today: adapters that PEFT trains and saves, each described by a SPEC.

    lora:rank=8,file=fp16        a plain LoRA, its file cast to half precision
    adalora:rank=4,file=fp32     trained as AdaLoRA prunes it, saved as PEFT saves it
    lora:rank=8,steps=3          three times the training steps in every round

Every peer adapts the same projections and head as our arms. A ``Peer`` is a plain value; PEFT is imported by what
trains it (``peer_training``).
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from airlora.errors import ModelError
from airlora.spec import build

FileKind = Literal["fp32", "fp16", "fp16+zstd"]
FILE_KINDS: tuple[FileKind, ...] = ("fp32", "fp16", "fp16+zstd")

HIDDEN_SIZE_OF_RATES = 64
"""The built-in learning rates were tuned on a model of this hidden size; they scale with its inverse."""

PREFIX = "peft-"
"""Marks a peer's name, so that PEFT's AdaLoRA and our policy of that name are told apart."""


@dataclass(frozen=True)
class Target:
    """One projection that is adapted, as PEFT's configurations need to know it."""

    name: str
    d_out: int
    d_in: int
    transposed: bool


@dataclass(frozen=True)
class Peer(ABC):
    """One method of PEFT, how it is trained and in what file it is sent.

    Attributes:
        step_cost: measured time of a training step over that of plain LoRA, for estimates.
        file: ``fp32`` as ``save_pretrained`` writes it, ``fp16`` with its tensors cast, ``fp16+zstd`` compressed too.
        lr: learning rate of the adapter; None takes a tuned rate, or the built-in one.
        head: learning rate of the head over that of the adapter; None takes a tuned ratio, or 1.
        schedule: of the learning rate over all steps: ``linear`` to zero (the default of the Transformers trainer) or
            ``constant``.
        steps: training steps in each round, as a multiple of the job's.
    """

    method: ClassVar[str]
    default_lr: ClassVar[float]
    step_cost: ClassVar[float] = 1.0

    file: FileKind = "fp16"
    lr: float | None = None
    head: float | None = None
    schedule: Literal["linear", "constant"] = "linear"
    steps: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lr", "head", "steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be a finite number above 0")
        for field in self.shape_fields():
            value = getattr(self, field)
            if value < 1:
                raise ValueError(f"{field}={value} must be at least 1")

    @abstractmethod
    def peft_config(self, targets: tuple[Target, ...], total_steps: int, options: dict[str, Any]) -> Any:
        """PEFT's configuration.

        Args:
            targets: projections to adapt.
            total_steps: training steps in all.
            options: keyword arguments for every method: ``target_modules``, ``task_type``, ``modules_to_save``.

        Raises:
            ModelError: the method cannot adapt these projections.
        """

    @classmethod
    def shape_fields(cls) -> tuple[str, ...]:
        """Fields that decide the adapter's shape: those that the method adds."""
        common = {field.name for field in dataclasses.fields(Peer)}
        return tuple(field.name for field in dataclasses.fields(cls) if field.name not in common)

    @property
    def tuning_key(self) -> str:
        """What a learning rate is tuned for: the method, its shape, its schedule and its steps, as a SPEC."""
        return self._spec(*self._tuning_fields())

    @property
    def training_key(self) -> str:
        """Everything that decides the training: two peers with one key differ in their files only."""
        return PREFIX + self._spec(*self._tuning_fields(), "lr", "head")

    @property
    def spec(self) -> str:
        """The whole SPEC."""
        return PREFIX + self._spec(*self.shape_fields(), *(field.name for field in dataclasses.fields(Peer)))

    def rated(self, rates: Mapping[str, Mapping[str, float]]) -> Self:
        """The peer with what is known of its learning rates filled in; a rate tuned for ``steps=1`` serves any."""
        tuned = rates.get(self.tuning_key) or rates.get(dataclasses.replace(self, steps=1.0).tuning_key) or {}
        lr = tuned.get("lr") if self.lr is None else self.lr
        head = tuned.get("head") if self.head is None else self.head
        return dataclasses.replace(self, lr=lr, head=head)

    def rate(self, hidden_size: int) -> float:
        """The learning rate, or the built-in one for a model of this hidden size."""
        built_in = self.default_lr * HIDDEN_SIZE_OF_RATES / hidden_size
        return float(f"{built_in:.2g}") if self.lr is None else self.lr

    def _tuning_fields(self) -> tuple[str, ...]:
        varied = [name for name, usual in (("schedule", "linear"), ("steps", 1.0)) if getattr(self, name) != usual]
        return (*self.shape_fields(), *varied)

    def _spec(self, *names: str) -> str:
        values = {name: getattr(self, name) for name in names}
        text = ",".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in values.items()
            if value is not None
        )
        return f"{self.method}:{text}" if text else self.method


@dataclass(frozen=True)
class Lora(Peer):
    """LoRA (Hu et al. 2022) at alpha = 2 rank."""

    method = "lora"
    default_lr = 5e-3

    rank: int = 8

    def peft_config(self, targets: tuple[Target, ...], total_steps: int, options: dict[str, Any]) -> Any:
        """A plain LoRA."""
        return self._config(targets, options)

    def _config(self, targets: tuple[Target, ...], options: dict[str, Any], **special: Any) -> Any:
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank, lora_alpha=2 * self.rank, fan_in_fan_out=targets[0].transposed, **special, **options
        )


@dataclass(frozen=True)
class Dora(Lora):
    """DoRA (Liu et al. 2024): LoRA plus a trained magnitude for every output."""

    method = "dora"
    step_cost = 1.5

    def peft_config(self, targets: tuple[Target, ...], total_steps: int, options: dict[str, Any]) -> Any:
        """LoRA with ``use_dora``."""
        return self._config(targets, options, use_dora=True)


@dataclass(frozen=True)
class Eva(Lora):
    """LoRA initialised by EVA (Paischer et al. 2024): A from the activations' singular vectors, ranks redistributed."""

    method = "eva"

    def peft_config(self, targets: tuple[Target, ...], total_steps: int, options: dict[str, Any]) -> Any:
        """LoRA whose weights ``initialize_lora_eva_weights`` sets."""
        from peft import EvaConfig

        return self._config(targets, options, init_lora_weights="eva", eva_config=EvaConfig())


@dataclass(frozen=True)
class AdaLora(Peer):
    """AdaLoRA (Zhang et al. 2023): pruned from 1.5 times the mean rank down to it, at 10 to 70 % of the steps."""

    method = "adalora"
    default_lr = 1e-2

    rank: int = 8

    def peft_config(self, targets: tuple[Target, ...], total_steps: int, options: dict[str, Any]) -> Any:
        """AdaLoRA on a schedule of ``total_steps``."""
        from peft import AdaLoraConfig

        if total_steps < 10:
            raise ModelError(f"peer adalora needs at least 10 training steps for its schedule, found {total_steps}")
        initial = math.ceil(1.5 * self.rank)
        return AdaLoraConfig(
            target_r=self.rank,
            init_r=initial,
            lora_alpha=2 * initial,
            tinit=total_steps // 10,
            tfinal=math.ceil(0.3 * total_steps),
            deltaT=max(1, total_steps // 40),
            total_step=total_steps,
            fan_in_fan_out=targets[0].transposed,
            **options,
        )


@dataclass(frozen=True)
class Vera(Peer):
    """VeRA (Kopiczko et al. 2024): scales of shared random projections, which are drawn again at the edge, not sent."""

    method = "vera"
    default_lr = 2e-2

    rank: int = 64

    def peft_config(self, targets: tuple[Target, ...], total_steps: int, options: dict[str, Any]) -> Any:
        """VeRA without its projections in the file."""
        from peft import VeraConfig

        return VeraConfig(r=self.rank, save_projection=False, fan_in_fan_out=targets[0].transposed, **options)


@dataclass(frozen=True)
class C3A(Peer):
    """C3A (Chen et al. 2024): block-circular convolution, its blocks the largest that fit, divided by ``divide``."""

    method = "c3a"
    default_lr = 2e-1
    step_cost = 4.0

    divide: int = 1

    def peft_config(self, targets: tuple[Target, ...], total_steps: int, options: dict[str, Any]) -> Any:
        """C3A with a block size for every projection."""
        from peft import C3AConfig

        _refuse_transposed(self.method, targets)
        sizes: dict[str, int] = {}
        for target in targets:
            largest = math.gcd(target.d_out, target.d_in)
            if largest % self.divide:
                raise ModelError(
                    f"peer c3a: divide={self.divide} does not divide {largest}, the largest block of {target.name}"
                    f" ({target.d_out} × {target.d_in}); give a divisor of it"
                )
            sizes[target.name] = largest // self.divide
        usual = max(set(sizes.values()), key=list(sizes.values()).count)
        pattern = {name: size for name, size in sizes.items() if size != usual}
        return C3AConfig(block_size=usual, block_size_pattern=pattern, **options)


@dataclass(frozen=True)
class LoKr(Peer):
    """LoKr (Yeh et al. 2024): a Kronecker product of a small and a low-rank factor, alpha = 2 rank."""

    method = "lokr"
    default_lr = 1e-2

    rank: int = 4

    def peft_config(self, targets: tuple[Target, ...], total_steps: int, options: dict[str, Any]) -> Any:
        """LoKr with PEFT's own choice of factor."""
        from peft import LoKrConfig

        _refuse_transposed(self.method, targets)
        return LoKrConfig(r=self.rank, alpha=2 * self.rank, **options)


@dataclass(frozen=True)
class IA3(Peer):
    """(IA)³ (Liu et al. 2022): scales of every projection's output, of its input where that is the feed-forward's."""

    method = "ia3"
    default_lr = 2e-2

    def peft_config(self, targets: tuple[Target, ...], total_steps: int, options: dict[str, Any]) -> Any:
        """(IA)³; the maps back from the wide feed-forward layer count as feed-forward."""
        from peft import IA3Config

        inward = [target.name for target in targets if target.d_in > target.d_out]
        return IA3Config(feedforward_modules=inward, fan_in_fan_out=targets[0].transposed, **options)


def _refuse_transposed(method: str, targets: tuple[Target, ...]) -> None:
    if any(target.transposed for target in targets):
        raise ModelError(
            f"peer {method} cannot adapt {targets[0].name}: PEFT has no {method} for GPT-2's Conv1D; leave it out"
        )


PEERS: dict[str, type[Peer]] = {cls.method: cls for cls in (Lora, AdaLora, Dora, Vera, Eva, C3A, LoKr, IA3)}
"""SPEC name -> peer."""


def make_peer(spec: str) -> Peer:
    """Build the peer that a SPEC names; its name may carry the tables' prefix ``peft-``.

    Raises:
        SpecError: an unknown name or key, or an impossible value.
    """
    peer: Peer = build(PEERS, spec.removeprefix(PREFIX), "peer")
    return peer
