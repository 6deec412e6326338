"""Which matrices get Muon."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from thalweg.diagnosis.families import ORTHOGONAL
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight
from thalweg.groups import blocks
from thalweg.groups.places import RECURRENT


def orthogonal(known: Preflight) -> Iterator[Finding | Fine]:
    """Embeddings, heads and fused matrices that are orthogonalized as one."""
    names = []
    for name in known.subject.trainable:
        owner = known.subject.owner(name)
        if owner and owner.family is ORTHOGONAL:
            names.append(name)
    if not names:
        return
    wrong = [n for n in names if n in known.roles and known.roles[n].kind in ("embedding", "head")]
    if wrong and any(role.kind == "hidden" for role in known.roles.values()):
        kinds = ", ".join(f"{n}: {known.roles[n].kind}" for n in wrong)
        owner = known.subject.owner(wrong[0])
        assert owner is not None
        yield finding(
            "muon_on_wrong_matrix",
            f"{len(wrong)} of {len(names)} matrices that Muon orthogonalizes are no hidden ones ({kinds}).",
            wrong,
            lr=f"{known.peaks[owner.number][owner.place]:g}",
        )
    yield Fine("Muon", f"orthogonalizes {len(names)} of {len(known.subject.trainable)} parameters")
    fused = {n: shapes for n, shapes in _cut(known).items() if n in names and _is_attention(known, n, shapes)}
    if fused:
        name, shapes = next(iter(fused.items()))
        text = (
            f"{name} of shape {tuple(known.subject.parameters[name].shape)} holds {len(shapes)} matrices, of shapes "
            f"{', '.join(map(str, shapes[:4]))}, and is orthogonalized as one"
        )
        if _is_ours(known, name):
            yield Fine("fused matrices", text, note=True)
        else:
            yield finding("fused_matrix", f"{text}.", list(fused))


def _cut(known: Preflight) -> dict[str, list[tuple[int, int]]]:
    inputs = known.first.inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return blocks(known.subject.model, (inputs[1] or tuple(inputs[0])) if inputs else None)
        except Exception:  # whatever a copy of the user's model may raise
            return {}


def _is_attention(known: Preflight, name: str, shapes: list[tuple[int, int]]) -> bool:
    """Whether it holds q, k and v; of the gates of a recurrent layer no race has shown that it matters."""
    owner = known.subject.model.get_submodule(name.rpartition(".")[0])
    return len(shapes) > 1 and not isinstance(owner, RECURRENT)


def _is_ours(known: Preflight, name: str) -> bool:
    """Whether the optimizer is one of ours, which cuts weights where it was told to."""
    owner = known.subject.owner(name)
    return owner is not None and type(owner.optimizer).__module__.startswith("thalweg.")


CHECKS = (orthogonal,)
