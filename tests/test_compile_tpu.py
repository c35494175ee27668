"""Programs compiled for a slice of chips: what is counted of them. The compiler for TPUs need not be there."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from asyncpatch.train import make_mesh
from experiments import compile_tpu
from experiments.parts import slices
from experiments.parts.chips import CHIPS, GIB, chip, roofline
from experiments.parts.hlo import group_size, moved
from experiments.parts.slice_programs import Blank, experiment_of, sample_program, train_program
from experiments.parts.slice_tables import hours, markdown, one_line, share_of_peak
from experiments.parts.slices import DoesNotFitError, Program, compile_here, does_not_fit

WIDTH, LAYERS, DEVICES = 16, 5, 4


def compiled_text(function):
    """Of a program of several devices, each of which has `WIDTH` numbers."""
    spec = PartitionSpec("data")
    mapped = jax.shard_map(function, mesh=make_mesh(DEVICES), in_specs=spec, out_specs=spec, check_vma=False)
    return jax.jit(mapped).lower(jax.ShapeDtypeStruct((DEVICES * WIDTH,), jnp.float32)).compile().as_text()


def test_collectives_in_a_loop_count_as_often_as_they_run():
    """The wrong twin reads the text, where the body of the loop stands once."""

    def layers(x):
        return jax.lax.scan(lambda x, _: (jnp.sin(x) + jax.lax.psum(x, "data"), None), x, None, length=LAYERS)[0]

    text = compiled_text(layers)
    traffic = moved(text).collectives["all-reduce"]
    size = 4 * WIDTH
    assert (traffic.count, traffic.bytes, traffic.sent) == (LAYERS, LAYERS * size, LAYERS * 2 * 3 / 4 * size)
    assert text.count(" all-reduce(") + text.count(" all-reduce-start(") == 1


def test_each_kind_of_collective_sends_what_a_ring_sends():
    def all_kinds(x):
        x = jax.lax.psum_scatter(jax.lax.all_gather(x, "data", tiled=True) * 2, "data", tiled=True)
        x = jax.lax.ppermute(x, "data", [(i, (i + 1) % DEVICES) for i in range(DEVICES)])
        return jax.lax.all_to_all(jnp.sin(x).reshape(DEVICES, -1), "data", 0, 0).reshape(-1)

    found = moved(compiled_text(all_kinds))
    part = 4 * WIDTH
    sent = {kind: traffic.sent for kind, traffic in found.collectives.items()}
    assert sent == {
        "all-gather": 3 * part,
        "reduce-scatter": 3 * part,
        "collective-permute": part,
        "all-to-all": 3 / 4 * part,
    }
    assert found.sent == sum(sent.values())


def test_the_tpu_compilers_reduce_scatter_is_one():
    text = """HloModule step, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (input: f32[64,16]) -> f32[16,16] {
  %input = f32[64,16]{0,1:T(8,128)} parameter(0)
  %all-reduce.2 = f32[64,16]{0,1:T(8,128)} all-reduce(%input), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %zero = u32[] constant(0)
  ROOT %part = f32[16,16]{0,1:T(8,128)} dynamic-slice(%all-reduce.2, %zero, %zero), dynamic_slice_sizes={16,16}
}

ENTRY %main (x: f32[64,16]) -> f32[16,16] {
  %x = f32[64,16]{0,1:T(8,128)} parameter(0)
  ROOT %fusion = f32[16,16]{0,1:T(8,128)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
    (kind, traffic), *others = moved(text).collectives.items()
    assert (kind, traffic.count, traffic.sent, others) == ("reduce-scatter", 1, 3 / 4 * 64 * 16 * 4, [])


def test_what_lies_on_the_chip_is_sent_but_is_no_memory_traffic():
    text = """HloModule step, num_partitions=4

ENTRY %main (x: f32[64,16]) -> f32[64,16] {
  %x = f32[64,16]{1,0} parameter(0)
  %start = (f32[64,16]{1,0:S(1)}, f32[64,16]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %near = f32[64,16]{1,0:S(1)} copy-done(%start)
  %sine = f32[64,16]{1,0:S(1)} sine(%near)
  ROOT %sum = f32[64,16]{1,0} all-reduce(%sine), replica_groups={}, to_apply=%add
}
"""
    found = moved(text)
    size = 4 * 64 * 16
    assert (found.memory, found.sent) == (size, 2 * 3 / 4 * size)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        (", replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add", 4),
        (", replica_groups=[32,2]<=[16,2,2]T(1,0,2), dimensions={1}", 2),
        (", replica_groups=mesh['a'=16,'b'=2,'c'=2] {'b','c'}, dimensions={1}", 4),
        (", replica_groups={}, to_apply=%add", 64),
    ],
)
def test_groups_of_devices_however_they_are_written(attributes, size):
    assert group_size(attributes, 64) == size


def test_memory_traffic_of_stacked_layers_is_that_of_their_slices():
    """A loop over stacked weights reads each once. The wrong twin reads the whole stack in every round."""

    def run(x, weights):
        return jax.lax.scan(lambda x, weight: (x + jnp.sin(weight), None), x, weights)[0]

    layer = 4 * 1024
    shapes = jax.ShapeDtypeStruct((1024,), jnp.float32), jax.ShapeDtypeStruct((8, 1024), jnp.float32)
    memory = moved(jax.jit(run).lower(*shapes).compile().as_text()).memory
    assert 8 * 3 * layer <= memory <= 8 * 5 * layer + 1024 < 8 * 8 * layer


def test_a_slice_in_a_fusion_inside_a_fusion_is_read_as_a_slice():
    """As the TPU compiler reads a layer's weights; the wrong twin uses the stack beside its slice, and reads all."""
    text = """HloModule step

%slice (stack: f32[30,64], layer: s32[]) -> f32[1,64] {
  %stack = f32[30,64]{1,0} parameter(0)
  %layer = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %own = f32[1,64]{1,0} dynamic-slice(%stack, %layer, %zero), dynamic_slice_sizes={1,64}
}

%outer (weights: f32[30,64], number: s32[]) -> f32[1,64] {
  %weights = f32[30,64]{1,0} parameter(0)
  %number = s32[] parameter(1)
  %cast = f32[30,64]{1,0} bitcast(%weights)
  %row = f32[1,64]{1,0} fusion(%cast, %number), kind=kLoop, calls=%slice
  ROOT %sine = f32[1,64]{1,0} sine(%row)
}

ENTRY %main (x: f32[30,64], i: s32[]) -> f32[1,64] {
  %x = f32[30,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %fusion = f32[1,64]{1,0} fusion(%x, %i), kind=kLoop, calls=%outer
}
"""
    row, number = 4 * 64, 4
    assert moved(text).memory == row + number + row
    twin = text.replace("ROOT %sine", "%all = f32[30,64]{1,0} sine(%cast)\n  ROOT %sine")
    assert moved(twin).memory == 30 * row + number + row


def test_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="give that of a compiled program"):
        moved("nothing")


def test_the_roofline_is_the_slowest_of_three():
    v6e = chip("v6e:8x8")
    least = roofline(v6e, flops=v6e.flops, memory=2 * v6e.bandwidth, sent=3 * v6e.ring)
    assert (least.seconds, least.apart, least.bound) == (3.0, 6.0, "sending")
    assert v6e.ring == 200e9
    assert all(figures.source.startswith("https://") for figures in CHIPS.values())
    with pytest.raises(ValueError, match="v5e, v5p, v6e"):
        chip("h100:8")


def test_without_the_compiler_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="nox -s compile_tpu"):
        compile_here()


@pytest.mark.parametrize(
    "said",
    [
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (55.50G) exceeds available HBM (31.25G). HLO module: jit_step.",
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 55.50G of "
        "31.25G hbm. Exceeded hbm capacity by 24.25G.",
    ],
)
def test_the_compilers_refusal_is_read_as_numbers(said):
    found = does_not_fit(said)
    assert found is not None
    assert (found.needed, found.there) == (55.5 * GIB, 31.25 * GIB)
    assert does_not_fit(said.replace("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")) is None
    assert does_not_fit("RESOURCE_EXHAUSTED: too many threads") is None


def test_programs_are_traced_for_devices_and_their_flops_are_those_of_the_network():
    """Two of three passes are backward: all but the input's gradient at the first layer is computed."""
    experiment = experiment_of("digits", 16, 1, None, Blank(8, 1, 10))
    traced = train_program(experiment, make_mesh(2, 2))
    assert traced.network_flops * 0.95 < traced.program_flops
    # Muon multiplies matrices of the size of the weights, whatever the batch.
    assert traced.program_flops < traced.network_flops + 60 * 5 * 128 * traced.parameters
    sampled = sample_program(experiment, make_mesh(4))
    assert sampled.network_flops == pytest.approx(
        sampled.program_flops, rel=0.05
    )  # the branches of guidance share what they make of the times
    with pytest.raises(ValueError, match="12 equal parts"):
        train_program(experiment_of("digits", 16, 3, None, Blank(8, 1, 10)), make_mesh(4))


def test_blocks_are_recomputed_on_devices_that_share_weights_as_on_those_that_do_not():
    """To gather weights anew and to recompute blocks are two policies, of which the outer one would prevail."""
    experiment = experiment_of("miniature-transformer", 16, 1, None, Blank(8, 1, 10))
    recomputing = dataclasses.replace(experiment.network, rematerialise=True)
    flops = {
        (fsdp, network.rematerialise): train_program(
            dataclasses.replace(experiment, network=network), make_mesh(4 // fsdp, fsdp)
        ).program_flops
        for fsdp in (1, 2)
        for network in (experiment.network, recomputing)
    }
    assert flops[2, True] == flops[1, True] > 1.2 * flops[1, False]
    assert flops[2, False] == flops[1, False]


def test_the_sampler_of_devices_that_share_weights_gathers_them_layer_by_layer():
    """As the samples of a run in training do; the wrong twin is a mesh whose devices share nothing."""
    experiment = experiment_of("miniature-transformer", 16, 1, None, Blank(8, 1, 10))
    gathers = {
        fsdp: sample_program(experiment, make_mesh(4 // fsdp, fsdp)).lowered.as_text().count("sharding_constraint")
        for fsdp in (1, 2)
    }
    assert gathers[2] > gathers[1] == 0


def test_a_row_is_made_once_and_what_does_not_fit_is_an_error(monkeypatch, tmp_path):
    compiled, room = [], 64

    def compile_program(lowered):
        compiled.append(lowered)
        images = lowered.in_avals[0][1].image.shape[0]
        if images > room:
            raise DoesNotFitError(images * GIB, room * GIB)
        text = jax.jit(jnp.sin).lower(1.0).compile().as_text()
        return Program(text, images * GIB, GIB, 1e9, 2.0)

    monkeypatch.setattr(compile_tpu, "compile_here", lambda: None)
    monkeypatch.setattr(compile_tpu, "devices_of", lambda topology: jax.devices()[:DEVICES])
    monkeypatch.setattr(compile_tpu, "compile_program", compile_program)
    monkeypatch.setattr(compile_tpu, "version", lambda name: "0")
    monkeypatch.setattr(compile_tpu, "EFFORT", jax.config.values["jax_optimization_level"])
    monkeypatch.setattr(compile_tpu, "SOURCE", Blank(8, 1, 10))
    rows = tmp_path / "rows.jsonl"
    compile_tpu.largest(rows, presets=("digits",), fsdp=2, batch_size=32)
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(row["batch_size"], row["fits"]) for row in found] == [(32, True), (64, True), (128, False)]
    ask = {"presets": ("digits",), "programs": ("train",), "fsdp": 2}
    compile_tpu.fit(rows, batch_size=64, **ask)
    assert len(compiled) == 3
    with pytest.raises(RuntimeError, match=r"would need 128\.0 GiB and has 64\.0; give fewer images"):
        compile_tpu.fit(rows, batch_size=128, **ask)
    with pytest.raises(ValueError, match="fsdp=3 does not divide the 4 chips"):
        compile_tpu.fit(rows, batch_size=64, **(ask | {"fsdp": 3}))
    with pytest.raises(ValueError, match="choose from train, sample"):
        compile_tpu.fit(rows, **(ask | {"programs": ("paint",)}))
    compile_tpu.table(rows, tmp_path / "table.md")
    assert "128.0: does not fit" in (tmp_path / "table.md").read_text()
    with pytest.raises(ValueError, match="compile something first"):
        compile_tpu.table(tmp_path / "none.jsonl", tmp_path / "table.md")


def test_tables_say_the_least_time_and_the_hours():
    row = {
        "program": "train",
        "preset": "60m",
        "topology": "v6e:8x8",
        "fsdp": 4,
        "chips": 64,
        "batch_size": 512,
        "accumulation": 2,
        "compute_dtype": "float32",
        "fits": True,
        "peak_bytes": 2 * GIB,
        "argument_bytes": GIB,
        "network_flops": 9.18e11,
        "program_flops": 9.18e11,
        "xla_flops": 1e9,
        "memory_traffic": 16.38e9,
        "sent": 2e8,
        "collectives": {"all-gather": {"count": 3, "bytes": 4e8, "sent": 2e8}},
        "compiling_seconds": 35.0,
    }
    assert hours(row) == pytest.approx(0.01 * 1e6 / 3600)
    assert share_of_peak(row) == pytest.approx(0.1)
    text = markdown([row])
    assert "| train | 60m | v6e:8x8 | 16 x 4 | 512 | 2 | float32 | 56 | 1 | 10 | 1 | 10 | 12 | 10% | 2.8 |" in text
    assert "| all-gather | 3 | 0.4 | 0.2 |" in text
    assert "at least 10.0 ms (memory)" in one_line(row)


def test_what_is_no_slice_is_refused(monkeypatch):
    def refuse(**_):
        raise RuntimeError("INVALID_ARGUMENT: no such topology")

    monkeypatch.setattr(slices.topologies, "get_topology_desc", refuse)
    with pytest.raises(ValueError, match="name one such as v6e:8x8"):
        slices.devices_of("v6e:7x7")
