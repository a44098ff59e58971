"""A decoder of Llama's family, with LoRA for every token's own adapter in one pass.

Tokens of all requests lie flat, one row each: the big products run once for all of them. LoRA is
added from stacked weights: the adapters that are active lie side by side in one arena. A few tokens
are multiplied with all of them at once, and what is not a token's own is masked out between A and B:
no weight is gathered, no row is moved, and many adapters take as many products as one. Prompts on
the CPU take one product a run of tokens. Ranks and target modules may differ: what an adapter does
not have is zero in its slot.

Axes: N tokens, H hidden, V vocabulary, S slots of the arena, R rank, K parts of a fused module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its name in the trade
from safetensors.torch import load_file

from agents.inference.adapters import AdapterInfo, BaseShape
from agents.inference.errors import BadAdapter, NotSupported

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# fused products: one input, several outputs side by side
GROUPS: dict[str, tuple[str, ...]] = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
FEW_ROWS = 64  # tokens up to which one wide product beats many narrow ones on a CPU
LONG_RUN = 8  # tokens of one adapter in a row from which a product of their own pays on a CPU
RANKS = (4, 8, 16, 32, 64, 128, 256)

Tensor = torch.Tensor
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class LoadedAdapter:
    """An adapter's weights in memory, in the layout of the arena, scaling already in B."""

    def __init__(self, name: str, info: AdapterInfo, dtype: torch.dtype, device: str, layers: int) -> None:
        """Read the weights of a folder that passed ``adapters.check``.

        Raises:
            BadAdapter: a weight is not a number, or the file changed since it was checked.
        """
        self.name, self.info, self.digest, self.rank = name, info, info.digest, info.rank
        self.users = 0  # requests that hold it; not evicted while there are any
        try:
            weights = load_file(str(info.folder / "adapter_model.safetensors"))
        except Exception as error:  # noqa: BLE001  # whatever the reader raises, the file is at fault
            raise BadAdapter(f"{name}: the weights cannot be read: {str(error)[:100]}") from None
        for key, value in weights.items():
            if not torch.isfinite(value).all():
                raise BadAdapter(f"{name}: tensor {key[:100]!r} holds values that are not numbers")
        self.size = 0
        self.parts: list[dict[str, tuple[Tensor, Tensor] | None]] = []
        for layer in range(layers):
            parts: dict[str, tuple[Tensor, Tensor] | None] = {}
            for module in (module for group in GROUPS.values() for module in group):
                parts[module] = None
                if module in info.targets:
                    a = weights[info.tensors[layer, module, "A"]].float()
                    b = weights[info.tensors[layer, module, "B"]].float() * info.scaling
                    pair = (a.to(device, dtype).contiguous(), b.to(device, dtype).contiguous())
                    self.size += sum(tensor.numel() * tensor.element_size() for tensor in pair)
                    parts[module] = pair
            self.parts.append(parts)


@dataclass(frozen=True)
class Plan:
    """Which token takes which slot of the arena, worked out once for all layers and steps."""

    low: int
    high: int  # slots low .. high - 1 take part
    groups: frozenset[str]  # fused modules that any of the adapters changes
    runs: tuple[tuple[int, int, int], ...] | None  # (slot, first token, past the last); None: one wide product
    mask_NS: Tensor | None  # (N, slots, 1): 1 where a slot is the token's own; None where all slots are
    inner: dict[int, Tensor]  # room between A and B by number of parts: (K, N, slots, R)


class Arena:
    """The stacked weights of the adapters that are active now."""

    def __init__(self, shape: BaseShape, dtype: torch.dtype, device: str) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self.rank = 0
        self.slots: list[LoadedAdapter | None] = []
        self.a: list[dict[str, Tensor]] = []  # per layer and group: (S, K * R, inputs)
        self.b: list[dict[str, Tensor]] = []  # per layer and module: (outputs, S * R)
        self.changes = 0
        self._last: tuple[tuple[int, ...], Plan] | None = None

    def plan(self, adapters: Sequence[LoadedAdapter | None]) -> Plan | None:
        """Place the adapters of these tokens, and say which token goes where.

        Args:
            adapters: each token's adapter, None for the base model.
        """
        key = (self.changes, *map(id, adapters))
        if self._last is not None and self._last[0] == key:
            return self._last[1]  # the batch is as it was
        active = list(dict.fromkeys(adapter for adapter in adapters if adapter is not None))
        if not active:
            return None
        low, high = self._place(active)
        where = {id(self.slots[slot]): slot for slot in range(low, high)}
        slots = [where[id(adapter)] if adapter is not None else -1 for adapter in adapters]
        groups = frozenset(
            group
            for group, modules in GROUPS.items()
            if any(module in adapter.info.targets for adapter in active for module in modules)
        )
        plan = Plan(low, high, groups, *self._ways(slots, low, high))
        self._last = ((self.changes, *key[1:]), plan)
        return plan

    def _ways(
        self, slots: list[int], low: int, high: int
    ) -> tuple[tuple[tuple[int, int, int], ...] | None, Tensor | None, dict[int, Tensor]]:
        """Runs of tokens, or a mask and the room it is applied in; neither where one adapter has all tokens."""
        count = len(slots)
        edges = [token for token in range(count) if not token or slots[token] != slots[token - 1]]
        if len(edges) == 1:
            return None, None, {}
        if self.device == "cpu" and count > FEW_ROWS and count >= LONG_RUN * len(edges):
            runs = zip((slots[edge] for edge in edges), edges, [*edges[1:], count])
            return tuple(run for run in runs if run[0] >= 0), None, {}
        wanted = torch.tensor(slots, device=self.device).unsqueeze(1)
        mask = (torch.arange(low, high, device=self.device) == wanted).to(self.dtype).unsqueeze(2)
        inner = {}
        for parts in {len(modules) for modules in GROUPS.values()}:
            if _turns(self.device, count):  # lies as the product leaves it
                room = torch.empty(parts, high - low, self.rank, count, dtype=self.dtype).permute(0, 3, 1, 2)
            else:
                room = torch.empty(parts, count, high - low, self.rank, dtype=self.dtype, device=self.device)
            inner[parts] = room
        return None, mask, inner

    def _place(self, active: list[LoadedAdapter]) -> tuple[int, int]:
        """Have these adapters in slots that lie close together; returns the first, and the one past the last."""
        needed = next(rank for rank in RANKS if rank >= max(adapter.rank for adapter in active))
        if needed > self.rank or self.rank >= 4 * needed:
            self._rebuild(needed, max(len(active), len(self.slots), 4))
        coming = [adapter for adapter in active if adapter not in self.slots]
        free = [slot for slot, held in enumerate(self.slots) if held not in active and (held is None or not held.users)]
        if len(coming) > len(free):
            self._rebuild(self.rank, 2 * (len(self.slots) + len(coming)))
            coming, free = active, list(range(len(self.slots)))
        for slot, adapter in zip(free, coming):
            self._write(slot, adapter)
        held_at = [slot for slot, held in enumerate(self.slots) if held in active]
        if held_at[-1] - held_at[0] < max(len(active) + 1, 1.5 * len(active)):
            return held_at[0], held_at[-1] + 1
        far = [slot for slot in held_at if slot >= len(active)]
        for slot in range(len(active)):
            if self.slots[slot] not in active:
                source = far.pop()
                moved, self.slots[source] = self.slots[source], None
                assert moved is not None  # noqa: S101  # held_at lists filled slots
                self._write(slot, moved)
        return 0, len(active)

    def _rebuild(self, rank: int, slots: int) -> None:
        self.changes += 1
        self.rank, self.slots, self.a, self.b = rank, [None] * slots, [], []
        for _ in range(self.shape.layers):
            a, b = {}, {}
            for group, modules in GROUPS.items():
                inputs = self.shape.modules[modules[0]][0]
                a[group] = self._zeros(slots, rank * len(modules), inputs)
                for module in modules:
                    b[module] = self._zeros(self.shape.modules[module][1], slots * rank)
            self.a.append(a)
            self.b.append(b)

    def _zeros(self, *size: int) -> Tensor:
        return torch.zeros(size, dtype=self.dtype, device=self.device)

    def _write(self, slot: int, adapter: LoadedAdapter) -> None:
        self.changes += 1
        self.slots[slot] = None  # not whole until the last layer is written
        for a_of, b_of, parts in zip(self.a, self.b, adapter.parts):
            for group, modules in GROUPS.items():
                for number, module in enumerate(modules):
                    pair = parts[module]
                    a = a_of[group][slot, number * self.rank : (number + 1) * self.rank]
                    b = b_of[module][:, slot * self.rank : (slot + 1) * self.rank]
                    if pair is None:
                        a.zero_()
                        b.zero_()
                        continue
                    a[: adapter.rank] = pair[0]
                    a[adapter.rank :] = 0
                    b[:, : adapter.rank] = pair[1]
                    b[:, adapter.rank :] = 0
        self.slots[slot] = adapter

    def add(self, plan: Plan, layer: int, group: str, x: Tensor, y: Tensor) -> None:
        """y (N, outputs) += LoRA of each token's adapter on x (N, inputs)."""
        if group not in plan.groups:
            return
        a, b, modules = self.a[layer][group], self.b[layer], GROUPS[group]
        if plan.runs is not None:
            for slot, first, last in plan.runs:
                inner = _linear(x[first:last], a[slot], None)
                self._add_parts(
                    y[first:last], inner.unflatten(1, (len(modules), -1)).unbind(1), b, modules, slot, slot + 1
                )
            return
        inner = _linear(x, a[plan.low : plan.high].flatten(0, 1), None)
        if plan.mask_NS is None:
            parts = inner.unflatten(1, (len(modules), self.rank)).unbind(1)
        else:
            room = plan.inner[len(modules)]
            by_slot = inner.unflatten(1, (plan.high - plan.low, len(modules), self.rank))
            torch.mul(by_slot.permute(2, 0, 1, 3), plan.mask_NS, out=room)
            parts = room.flatten(2).unbind(0)
        self._add_parts(y, parts, b, modules, plan.low, plan.high)

    def _add_parts(
        self, y: Tensor, parts: Sequence[Tensor], b: dict[str, Tensor], modules: Sequence[str], low: int, high: int
    ) -> None:
        start = 0
        for part, module in zip(parts, modules):
            weight = b[module][:, low * self.rank : high * self.rank]
            y[:, start : start + weight.shape[0]].addmm_(part, weight.t())
            start += weight.shape[0]


class Decoder:
    """The base model's weights, and one pass over flat tokens."""

    def __init__(self, folder: Path, device: str = "cpu", dtype: torch.dtype | None = None) -> None:
        """Read a model folder (safetensors only; no code from the folder runs).

        Args:
            folder: ``config.json`` and ``*.safetensors`` of a model of Llama's family.
            device: cpu or cuda.
            dtype: float32 on the CPU and bfloat16 elsewhere, unless said otherwise.

        Raises:
            NotSupported: another family, or a sliding window; serve it with vLLM.
        """
        from transformers import AutoModelForCausalLM

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        family = str(config.get("model_type"))
        if family not in FAMILIES:
            raise NotSupported(f"{folder}: model type {family!r} ({', '.join(FAMILIES)} are served); use vLLM for it")
        if config.get("sliding_window") and config.get("use_sliding_window", family == "mistral"):
            raise NotSupported(f"{folder}: attention with a sliding window is not served; use vLLM for it")
        self.device = device
        self.dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
        self.shape = BaseShape.from_config(config)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=self.dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
        model.eval().to(device)
        facts = model.config
        self.heads = int(facts.num_attention_heads)
        self.kv_heads = int(getattr(facts, "num_key_value_heads", None) or self.heads)
        self.head = self.shape.modules["q_proj"][1] // self.heads
        self.vocabulary = int(model.lm_head.weight.shape[0])
        self.longest = int(facts.max_position_embeddings)
        self.eps = float(facts.rms_norm_eps)
        self.act = F.silu
        if facts.hidden_act not in ("silu", "swish"):
            raise NotSupported(f"{folder}: activation {facts.hidden_act!r} is not served; use vLLM for it")
        self.scale = 1 / math.sqrt(self.head)
        self.rope = model.model.rotary_emb
        self.embedding: Tensor = model.model.embed_tokens.weight.detach()
        self.norm: Tensor = model.model.norm.weight.detach()
        self.lm_head: Tensor = model.lm_head.weight.detach()
        self.layers = [self._fuse(layer) for layer in model.model.layers]
        self.arena = Arena(self.shape, self.dtype, device)

    def _fuse(self, layer: Any) -> dict[str, Tensor | None]:
        attention, mlp = layer.self_attn, layer.mlp
        fused: dict[str, Tensor | None] = {
            "norm1": layer.input_layernorm.weight.detach(),
            "norm2": layer.post_attention_layernorm.weight.detach(),
            # Qwen3 normalizes each head's query and key
            "q_norm": attention.q_norm.weight.detach() if hasattr(attention, "q_norm") else None,
            "k_norm": attention.k_norm.weight.detach() if hasattr(attention, "k_norm") else None,
        }
        for group, modules in GROUPS.items():
            owner = mlp if group in ("gate_up", "down") else attention
            linears = [getattr(owner, module) for module in modules]
            fused[group] = torch.cat([linear.weight.detach() for linear in linears]).contiguous()
            biases = [linear.bias for linear in linears]
            fused[group + "_bias"] = None
            if any(bias is not None for bias in biases):
                fused[group + "_bias"] = torch.cat(
                    [
                        bias.detach() if bias is not None else linear.weight.new_zeros(linear.weight.shape[0])
                        for bias, linear in zip(biases, linears)
                    ]
                )
            for linear in linears:  # the parts are in the fused tensor now: free them
                linear.weight = None
        return fused

    def forward(self, tokens_N: Tensor, positions_N: Tensor, attend: Attend, plan: Plan | None) -> Tensor:
        """Hidden states (N, H), after the last norm, of flat tokens.

        Args:
            tokens_N, positions_N: ids, and places in their own sequences.
            attend: called for each layer with (layer, q (N, heads, head), k and v (N, kv heads,
                head)); keeps k and v, and returns (N, heads * head).
            plan: which token takes which adapter; None for the base model alone.
        """
        x = F.embedding(tokens_N, self.embedding)
        cos, sin = self.rope(x, positions_N.unsqueeze(0))
        cos, sin = cos[0].unsqueeze(1), sin[0].unsqueeze(1)
        count = tokens_N.shape[0]
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        inner = self.shape.modules["gate_proj"][1]
        for number, layer in enumerate(self.layers):
            h = F.rms_norm(x, (x.shape[1],), layer["norm1"], self.eps)
            qkv = self._product(layer, "qkv", h, plan, number)
            q = qkv[:, :queries].reshape(count, self.heads, self.head)
            k = qkv[:, queries : queries + keys].reshape(count, self.kv_heads, self.head)
            v = qkv[:, queries + keys :].reshape(count, self.kv_heads, self.head)
            if layer["q_norm"] is not None:
                q = F.rms_norm(q, (self.head,), layer["q_norm"], self.eps)
                k = F.rms_norm(k, (self.head,), layer["k_norm"], self.eps)
            h = attend(number, _turn(q, cos, sin), _turn(k, cos, sin), v)
            x = x + self._product(layer, "o", h, plan, number)
            h = F.rms_norm(x, (x.shape[1],), layer["norm2"], self.eps)
            both = self._product(layer, "gate_up", h, plan, number)
            h = self.act(both[:, :inner]) * both[:, inner:]
            x = x + self._product(layer, "down", h, plan, number)
        return F.rms_norm(x, (x.shape[1],), self.norm, self.eps)

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Scores (N, V) in float32."""
        return _linear(hidden_NH, self.lm_head, None).contiguous().float()

    def _product(
        self, layer: dict[str, Tensor | None], group: str, x: Tensor, plan: Plan | None, number: int
    ) -> Tensor:
        weight = layer[group]
        assert weight is not None  # noqa: S101  # each layer has all groups
        y = _linear(x, weight, layer[group + "_bias"])
        if plan is not None:
            self.arena.add(plan, number, group, x, y)
        return y.contiguous()


def _turns(device: str, rows: int) -> bool:
    """Whether a product is taken the other way round: one and a half times as fast for a few rows on a CPU."""
    return device == "cpu" and 4 <= rows <= FEW_ROWS


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, inputs) times weight (outputs, inputs); a transposed view where that is faster."""
    if _turns(x.device.type, x.shape[0]):
        return (torch.mm(weight, x.t()) if bias is None else torch.addmm(bias.unsqueeze(1), weight, x.t())).t()
    return F.linear(x, weight, bias)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position: x (N, heads, head), cos and sin (N, 1, head)."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def _zeros(size: tuple[int, ...], decoder: Decoder) -> Tensor:
    """Zeroed memory: a shorter row reads past its end with weight 0, and 0 times a NaN left there is NaN.

    On the CPU by calloc, which takes pages only as they are written to.
    """
    if decoder.device == "cpu" and decoder.dtype == torch.float32:
        return torch.from_numpy(np.zeros(size, np.float32))
    return torch.zeros(size, dtype=decoder.dtype, device=decoder.device)


class Cache:
    """Keys and values: one row a sequence, rows of running sequences first and without gaps."""

    def __init__(self, decoder: Decoder, rows: int, length: int) -> None:
        size = (rows, decoder.kv_heads, length, decoder.head)
        self.keys = [_zeros(size, decoder) for _ in decoder.layers]
        self.values = [_zeros(size, decoder) for _ in decoder.layers]
        self.decoder = decoder

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first ``length`` tokens to another row."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]

    def step(self, lengths: list[int]) -> Attend:
        """Attention of one new token for each of the rows 0 .. B - 1.

        Args:
            lengths: for each row, the tokens it holds already.
        """
        decoder, batch, longest = self.decoder, len(lengths), max(lengths) + 1
        device = decoder.device
        at = torch.tensor(lengths, device=device)
        numbers = torch.arange(batch, device=device)
        mask = None
        if min(lengths) + 1 != longest:
            mask = (torch.arange(longest, device=device) <= at.unsqueeze(1)).view(batch, 1, 1, longest)
        shape = (batch, decoder.kv_heads, decoder.heads // decoder.kv_heads, decoder.head)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys[layer], self.values[layer]
            keys[numbers, :, at] = k
            values[numbers, :, at] = v
            # queries that share a key head stand where a longer query would: no key is copied
            out = F.scaled_dot_product_attention(
                q.reshape(shape),
                keys[:batch, :, :longest],
                values[:batch, :, :longest],
                attn_mask=mask,
                scale=decoder.scale,
            )
            return out.reshape(batch, -1)

        return attend

    def fill(self, pieces: Sequence[tuple[int, int, int]]) -> Attend:
        """Attention of pieces of prompts.

        Args:
            pieces: (row, tokens the row holds already, new tokens), in the order of the flat tokens.
        """
        decoder = self.decoder
        masks = []
        for _, held, new in pieces:
            mask = torch.ones(new, held + new, dtype=torch.bool, device=decoder.device).tril(held) if held else None
            masks.append(mask)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            outs, start = [], 0
            for (row, held, new), mask in zip(pieces, masks):
                end, total = start + new, held + new
                self.keys[layer][row, :, held:total] = k[start:end].transpose(0, 1)
                self.values[layer][row, :, held:total] = v[start:end].transpose(0, 1)
                out = F.scaled_dot_product_attention(
                    q[start:end].transpose(0, 1).unsqueeze(0),
                    self.keys[layer][row : row + 1, :, :total],
                    self.values[layer][row : row + 1, :, :total],
                    attn_mask=mask,
                    is_causal=mask is None,
                    scale=decoder.scale,
                    enable_gqa=decoder.heads != decoder.kv_heads,
                )
                outs.append(out[0].transpose(0, 1).reshape(new, -1))
                start = end
            return torch.cat(outs)

        return attend
