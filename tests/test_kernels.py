"""The kernels of training and ranking: on a GPU if there is one, else in Triton's interpreter; and compiled.

The interpreter treats bfloat16 as integers in products, so without a GPU, float16 is used for rounded factors.
"""

import contextlib
import json
import os
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import cross_entropy

pytest.importorskip("triton", reason="Triton is there for Linux only")

from ipsrec_bench.kernels import cross_entropy as fused
from ipsrec_bench.kernels import screen, support
from ipsrec_bench.ranking import rank
from ipsrec_bench.ranking.rank import count_ranks
from ipsrec_bench.training import softmax
from ipsrec_bench.training.softmax import full_cross_entropy

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROUNDED = torch.bfloat16 if DEVICE.type == "cuda" else torch.float16


def drawn(targets, items, d, first, scale=1.0):
    generator = torch.Generator().manual_seed(targets)
    users = torch.randn(targets, d, generator=generator) * scale
    table = torch.randn(items, d, generator=generator)
    wanted = torch.randint(first, items, (targets,), generator=generator)
    return users.to(DEVICE), table.to(DEVICE), wanted.to(DEVICE)


def plain(users, table, wanted, first):
    u, v = users.clone().requires_grad_(), table.clone().requires_grad_()
    loss = cross_entropy(u @ v[first:].T, wanted - first)
    loss.backward()
    return loss.detach(), u.grad, v.grad


@pytest.mark.parametrize(
    ("targets", "items", "d", "first"),
    [
        (1, 2, 1, 1),
        (5, 40, 7, 1),
        (64, 128, 16, 0),
        (65, 130, 64, 1),
        (130, 300, 50, 1),
        (20, 1000, 33, 0),
    ],
)
def test_kernels_give_the_plain_loss_and_gradients(monkeypatch, targets, items, d, first):
    drawn_ = drawn(targets, items, d, first)
    wanted = plain(*drawn_, first)
    for programs in (1, fused.PROGRAMS):  # all items in one part, and a part for each block
        monkeypatch.setattr(fused, "PROGRAMS", programs)
        found = fused.loss_and_gradients(*drawn_, first=first, dtype=torch.float32, gradients=True)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    loss, *gradients = fused.loss_and_gradients(*drawn_, first=first, dtype=torch.float32, gradients=False)
    torch.testing.assert_close(loss, wanted[0], rtol=1e-5, atol=1e-5)
    assert gradients == [None, None]


@pytest.mark.parametrize("d", [64, 100, softmax.WIDEST])
def test_rounded_factors_change_gradients_by_thousandths(d):
    drawn_ = drawn(70, 700, d, 1, scale=0.3)
    found = fused.loss_and_gradients(*drawn_, first=1, dtype=ROUNDED, gradients=True)
    for ours, theirs in zip(found, plain(*drawn_, 1), strict=True):
        assert 0 < (ours - theirs).norm() / theirs.norm() < 0.01


@pytest.mark.parametrize("shift", [-300.0, 300.0])
def test_scores_beyond_the_range_of_exponentials(shift):
    users, table, wanted = drawn(64, 128, 15, 0)  # whole blocks: numpy would warn of overflow beyond the last item
    users, table = (
        torch.nn.functional.pad(part, (0, 1), value=value) for part, value in ((users, shift), (table, 1.0))
    )
    found = fused.loss_and_gradients(users, table, wanted, first=0, dtype=torch.float32, gradients=True)
    for ours, theirs in zip(found, plain(users, table, wanted, 0), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_vectors_need_not_lie_in_rows():
    users, table, wanted = drawn(40, 200, 8, 1)
    turned = [part.T.contiguous().T for part in (users, table)]
    assert not any(part.is_contiguous() for part in turned)
    found, expected = (
        fused.loss_and_gradients(*factors, wanted, first=1, dtype=torch.float32, gradients=True)
        for factors in (turned, (users, table))
    )
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_losses_of_a_nearly_certain_model_are_not_negative():
    users, _, _ = drawn(64, 2, 64, 0)
    users *= 6 / users.norm(dim=1, keepdim=True)
    own = torch.arange(64, device=DEVICE)
    loss, *_ = fused.loss_and_gradients(users, users, own, first=0, dtype=ROUNDED, gradients=False)
    assert 0 <= loss < 1e-4


@pytest.mark.parametrize("length", [2.0, 2.5])
def test_gradients_of_a_nearly_certain_model_are_as_good_as_others(length):
    users, _, _ = drawn(64, 2, 64, 0)
    users *= length / users.norm(dim=1, keepdim=True)
    own = torch.arange(64, device=DEVICE)
    found = fused.loss_and_gradients(users * 2, users, own, first=0, dtype=ROUNDED, gradients=True)
    for ours, theirs in zip(found[1:], plain(users * 2, users, own, 0)[1:], strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 0.01


def test_what_the_kernels_take(monkeypatch):
    monkeypatch.setattr(softmax, "runs_kernels", lambda _: True)
    assert softmax._fit_kernels(torch.empty(1, softmax.WIDEST), torch.bfloat16)
    assert not softmax._fit_kernels(torch.empty(1, softmax.WIDEST + 1), torch.bfloat16)
    assert not softmax._fit_kernels(torch.empty(1, 8), torch.float32)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="there is a GPU, which Triton can bind")
def test_a_warning_says_that_triton_cannot_run(monkeypatch):
    assert not support.runs_kernels(torch.device("cpu"))
    support.runs_kernels.cache_clear()
    for capability, warns in (((7, 5), False), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        with pytest.warns(UserWarning, match="are used instead") if warns else contextlib.nullcontext():
            assert not support.runs_kernels(torch.device("cuda:0"))
        support.runs_kernels.cache_clear()


def test_training_uses_the_kernels_instead_of_tiles(monkeypatch):
    """Through autograd, as a term of a weighted sum; by dispatch on a GPU, as if on one elsewhere."""
    if DEVICE.type != "cuda":
        monkeypatch.setattr(softmax, "_fit_kernels", lambda _, dtype: dtype == ROUNDED)
    calls, original = [], fused.loss_and_gradients

    def counted(*arguments, **settings):
        calls.append(settings["dtype"])
        return original(*arguments, **settings)

    monkeypatch.setattr(fused, "loss_and_gradients", counted)
    users, table, wanted = drawn(40, 200, 8, 1)
    found = {}
    for dtype in (torch.float32, ROUNDED):
        u, v = users.clone().requires_grad_(), table.clone().requires_grad_()
        (3 * full_cross_entropy(u, v, wanted, first=1, dtype=dtype) + u.sum()).backward()
        found[dtype] = u.grad, v.grad
    assert calls == [ROUNDED]
    for tiles, ours in zip(*found.values(), strict=True):
        assert 0 < (ours - tiles).norm() / tiles.norm() < 0.01


def ranked(monkeypatch, users, items, targets, masked=None, *, kernel):
    with monkeypatch.context() as patch:
        patch.setattr(rank, "runs_kernels", lambda _: kernel)
        return count_ranks(users, items, targets, masked)


@pytest.mark.parametrize(
    ("users", "items", "d"), [(1, 2, 1), (64, 128, 16), (65, 200, 50), (9, 1500, 64), (130, 40, 100)]
)
def test_the_screen_finds_the_ranks_of_the_tiles_and_of_a_sort(monkeypatch, users, items, d):
    """Integers, whose scores often tie, and real numbers, with every seventh item a copy of the first."""
    generator = torch.Generator().manual_seed(users)
    targets = torch.randint(1, items + 1, (users,), generator=generator).to(DEVICE)
    for real in (False, True):
        user, table = (
            (torch.randn if real else lambda *s, generator: torch.randint(-2, 3, s, generator=generator).float())(
                rows, d, generator=generator
            )
            for rows in (users, items + 1)
        )
        table[1::7] = table[1].clone()
        user, table = user.to(DEVICE), table.to(DEVICE)
        wanted = ranked(monkeypatch, user, table, targets, kernel=False)
        scores = (user.double() @ table[1:].double().T).float()
        own = scores.gather(1, targets[:, None] - 1)
        assert torch.equal(wanted[0], (scores > own).sum(dim=1))
        for programs in (1, screen.PROGRAMS):
            monkeypatch.setattr(screen, "PROGRAMS", programs)
            found = ranked(monkeypatch, user, table, targets, kernel=True)
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))
        masked = torch.arange(users, device=DEVICE), targets % items + 1  # the item after the target
        masked = tuple(part[masked[1] != targets] for part in masked)
        both = [ranked(monkeypatch, user, table, targets, masked, kernel=kernel) for kernel in (False, True)]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*both, strict=True))


def test_tiles_are_used_if_near_ties_exceed_the_kernels_room(monkeypatch):
    users, items = torch.ones(70, 8, device=DEVICE), torch.ones(201, 8, device=DEVICE)
    targets = torch.arange(1, 71, device=DEVICE)
    own = torch.full((70,), 8.0, device=DEVICE)
    monkeypatch.setattr(screen, "ROOM", 70 * 199 - 1)
    assert screen.screen(users, items, targets, own - 1, own + 1) is None
    higher, ties = ranked(monkeypatch, users, items, targets, kernel=True)
    assert higher.tolist() == [0] * 70
    assert ties.tolist() == [199] * 70
    monkeypatch.setattr(screen, "ROOM", 70 * 199)
    above, row, item = screen.screen(users, items, targets, own - 1, own + 1)
    assert above.tolist() == [0] * 70
    assert set(zip(row.tolist(), item.tolist(), strict=True)) == {
        (user, other) for user in range(70) for other in range(1, 201) if other != user + 1
    }


COMPILE = """
import itertools, json, re, subprocess, sys, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ipsrec_bench.kernels import cross_entropy as fused
from ipsrec_bench.kernels import screen

factors = {"users": "*bf16", "items": "*bf16"}
sizes = {"count": "i32", "first": "i32", "end": "i32"}
kernels = {
    fused._partition_and_mean: factors | {"partitions": "*fp32", "means": "*fp32"} | sizes | {"each": "i32"},
    fused._item_gradient: factors | {"targets": "*i32", "partition": "*fp32", "gradient": "*fp32"} | sizes,
    screen._screen: {"users": "*fp32", "items": "*fp32", "targets": "*i32", "low": "*fp32", "high": "*fp32"}
    | dict.fromkeys(("above", "near_rows", "near_items"), "*i32") | {"found": "*i64"}
    | dict.fromkeys(("count", "end", "each"), "i32"),
}
found = []
variants = [*itertools.product((80, 90), (64, 256), (False,)), (90, 64, True)]
for (capability, d, ones), (kernel, arguments) in itertools.product(variants, kernels.items()):
    shape = (screen if kernel is screen._screen else fused).shape(d)
    if ones:  # an integer that is 1 is compiled in
        shape |= dict.fromkeys({"first", "each"} & set(arguments), 1)
    options = {name: shape.pop(name) for name in ("num_warps", "num_stages")}
    aligned = {(at,): [["tt.divisibility", 16]] for at, kind in enumerate(arguments.values()) if kind[0] == "*"}
    signature = arguments | dict.fromkeys(shape, "constexpr")
    source = ASTSource(kernel, signature, shape, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run([tool, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
    used = dict(re.findall(r"(REG|STACK|LOCAL):(\\d+)", usage))
    units = [name for name in ("mma.sync", "wgmma", "fma.rn.f32") if name in compiled.asm["ptx"]]
    spilled = int(used["STACK"]) + int(used["LOCAL"])
    found.append([capability, d, kernel.__name__, compiled.metadata.shared, spilled, units])
print(json.dumps(found))
"""


def test_kernels_compile_for_gpus_onto_tensor_cores_within_registers_and_shared_memory():
    """This needs no GPU. A block of 99 KiB of shared memory fits every GPU from Ampere on."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len(found) == 5 * 3
    for capability, d, kernel, shared, spilled, units in found:
        assert shared <= 99 << 10, (capability, d, kernel)
        # A block of the screen that spills nothing takes a quarter more time on an H100.
        assert spilled <= (56 if kernel == "_screen" else 0), (capability, d, kernel)
        assert ({80: "mma.sync", 90: "wgmma"}[capability] in units) == (kernel != "_screen")
        assert kernel != "_screen" or units == ["fma.rn.f32"]  # float32 as it is, not split or rounded for tensor cores
