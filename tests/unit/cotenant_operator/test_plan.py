import hashlib

import msgspec
import pytest
from tests.builders.operator import KEY, SOURCE, facts, model, pool, secret, tenant, worker, world

from cotenant_cache.errors import CorruptWeightsError, HubUnreachableError
from cotenant_operator.estimate import PAGE_TOKENS, RUNTIME_BYTES, estimate_generate
from cotenant_operator.objects import World
from cotenant_operator.plan import DeviceFacts, ModelPlan, plan
from cotenant_operator.quantity import GIB, MIB, parse_bytes
from cotenant_operator.render.desired import render_desired
from cotenant_operator.render.gateway import render_gateway
from cotenant_serving.contract import Desired, Reason
from cotenant_serving.contract_gateway import GatewayConfig

NO_CUDA = DeviceFacts(count=0, memory_bytes=0, problem="NVML: library not found")


def planned(given: World, **devices: DeviceFacts) -> ModelPlan:
    """The one model of the one pool."""
    (found,) = plan(given, {"default": devices}).models
    return found


def accepted(given: World, **devices: DeviceFacts) -> ModelPlan:
    found = planned(given, **devices)
    assert found.refusal is None, found.refusal
    return found


def refused(given: World, reason: Reason, **devices: DeviceFacts) -> str:
    found = planned(given, **devices)
    assert found.engine is None
    assert found.refusal is not None
    assert found.refusal.reason is reason
    return found.refusal.message


def shares(found: ModelPlan) -> dict[str, int]:
    assert found.engine is not None
    return {candidate.group: candidate.share_bytes for candidate in found.engine.candidates}


def test_kv_cache_is_sized_from_the_layers() -> None:
    estimate = estimate_generate(facts(), context_tokens=1000, concurrency=4, device="cuda")

    assert estimate.kv_bytes_per_token == 2 * 16 * 8 * 128 * 2
    assert estimate.kv_floor_tokens == 1024
    assert estimate.kv_wanted_tokens == 4 * 1024


def test_a_model_without_gpu_gets_what_it_wants() -> None:
    found = accepted(world(model()))
    assert found.estimate is not None
    assert found.engine is not None

    assert shares(found) == {"cpu": found.estimate.wanted_bytes}
    assert found.engine.candidates[0].kv_cache_bytes == 8 * 2048 * 65536


def test_a_model_without_gpu_shrinks_to_the_device() -> None:
    found = accepted(world(model(engine={"concurrency": 64}), pool(worker(memory="4Gi"))))
    assert found.estimate is not None

    assert found.estimate.floor_bytes < 4 * GIB < found.estimate.wanted_bytes
    assert shares(found) == {"cpu": 4 * GIB}


def test_the_parts_of_a_share_fit_into_it() -> None:
    found = accepted(world(model(gpu={"memory": "3Gi"})))
    assert found.engine is not None
    assert found.estimate is not None
    kv = found.engine.candidates[0].kv_cache_bytes
    tokens = kv // found.estimate.kv_bytes_per_token
    beside = tokens * found.estimate.scratch_bytes_per_token

    assert tokens % PAGE_TOKENS == 0
    assert tokens >= 2048
    room = 3 * GIB - found.estimate.fixed_bytes - kv - beside
    assert 0 <= room < PAGE_TOKENS * found.estimate.bytes_per_token


def test_kv_cache_beyond_what_all_slots_fill_is_not_taken() -> None:
    found = accepted(world(model(gpu={"memory": "8Gi"}, engine={"contextTokens": 512, "concurrency": 2})))
    assert found.engine is not None

    assert found.engine.candidates[0].kv_cache_bytes == 2 * 512 * 65536


def test_fraction_and_whole_follow_each_group() -> None:
    groups = pool(worker("small", memory="8Gi"), worker("large", memory="16Gi"))

    assert shares(accepted(world(model(gpu={"fraction": 0.5}), groups))) == {"small": 4 * GIB, "large": 8 * GIB}
    assert shares(accepted(world(model(gpu={"whole": True}), groups))) == {"small": 8 * GIB, "large": 16 * GIB}


def test_mig_takes_a_whole_slice_of_that_profile_only() -> None:
    mig = worker("slice", device="cuda", memory="9856Mi", resource="nvidia.com/mig-1g.10gb", sharing="mig")
    groups = pool(worker("shared", device="cuda", memory="80Gi"), mig)

    assert shares(accepted(world(model(gpu={"mig": "1g.10gb"}), groups))) == {"slice": 9856 * MIB}
    message = refused(world(model(gpu={"mig": "2g.20gb"}), groups), Reason.DOES_NOT_FIT)
    assert "asked gpu.mig 2g.20gb; pool default has MIG profiles 1g.10gb" in message


def test_the_first_group_that_fits_decides_the_kind_of_device() -> None:
    groups = pool(
        worker("tiny", device="cuda", memory="1Gi"), worker("cpu"), worker("big", device="cuda", memory="80Gi")
    )
    found = accepted(world(model(gpu={"memory": "4Gi"}), groups))
    assert found.engine is not None

    assert found.engine.device == "cpu"
    assert shares(found) == {"cpu": 4 * GIB}


def test_a_missing_gpu_never_means_the_cpu() -> None:
    given = world(model(), pool(worker("gpu", device="cuda", memory="80Gi"), worker("cpu")))
    message = refused(given, Reason.NO_CUDA_DEVICE, gpu=NO_CUDA)

    assert "NVML: library not found" in message
    assert plan(given, {"default": {"gpu": NO_CUDA}}).warnings


def test_a_group_that_is_there_serves_for_one_that_is_not() -> None:
    groups = pool(worker("a", device="cuda", memory="80Gi"), worker("b", device="cuda", memory="40Gi"))

    assert list(shares(accepted(world(model(), groups), a=NO_CUDA, b=DeviceFacts(1, 40 * GIB)))) == ["b"]


def test_the_device_has_the_last_word_on_its_memory() -> None:
    given = world(model(gpu={"whole": True}), pool(worker(memory="8Gi")))
    result = plan(given, {"default": {"cpu": DeviceFacts(1, 4 * GIB)}})

    assert shares(result.models[0]) == {"cpu": 4 * GIB}
    assert result.pools[0].groups[0].memory_bytes == 4 * GIB
    assert "the device has only 4 GiB" in result.warnings[0]


def test_what_is_too_small_says_what_is_missing_and_what_would_fit() -> None:
    message = refused(world(model(gpu={"memory": "2Gi"})), Reason.DOES_NOT_FIT)
    suggestion = message.partition("set gpu.memory: ")[2].partition(" ")[0]

    assert "weights 1 GiB" in message
    assert "asked gpu.memory 2 GiB" in message
    assert "the largest share of pool default is 8 GiB on group cpu" in message
    accepted(world(model(gpu={"memory": suggestion})))
    with pytest.raises(AssertionError):
        accepted(world(model(gpu={"memory": parse_bytes(suggestion) - 2 * MIB})))


def test_the_suggested_context_fits() -> None:
    message = refused(world(model(gpu={"memory": "2352Mi"})), Reason.DOES_NOT_FIT)
    context = int(message.rpartition("lower engine.contextTokens to ")[2])

    accepted(world(model(gpu={"memory": "2352Mi"}, engine={"contextTokens": context})))
    refused(world(model(gpu={"memory": "2352Mi"}, engine={"contextTokens": context + 1})), Reason.DOES_NOT_FIT)


def test_the_suggested_fraction_fits() -> None:
    message = refused(world(model(gpu={"fraction": 0.1})), Reason.DOES_NOT_FIT)
    fraction = float(message.partition("set gpu.fraction: ")[2].split()[0])

    accepted(world(model(gpu={"fraction": fraction})))


def test_a_model_larger_than_every_device_is_told_so() -> None:
    known = {SOURCE: facts(weights_bytes=100 * GIB)}

    assert "use a pool with a device of at least" in refused(world(model(), known=known), Reason.DOES_NOT_FIT)


def test_more_than_the_model_can_read_is_refused() -> None:
    message = refused(world(model(engine={"contextTokens": 9000})), Reason.DOES_NOT_FIT)

    assert "engine.contextTokens is 9000, the model has at most 8192" in message


def test_the_default_context_is_no_longer_than_the_models() -> None:
    found = accepted(world(model(), known={SOURCE: facts(max_position_embeddings=512)}))
    assert found.engine is not None

    assert found.engine.context_tokens == 512


def test_an_unknown_pool_is_named_with_its_near_match() -> None:
    message = refused(world(model(pool="defualt")), Reason.POOL_NOT_FOUND)

    assert "there is no pool 'defualt'; did you mean 'default'?" in message


def test_a_namespace_the_pool_does_not_admit_is_refused() -> None:
    message = refused(world(model(namespace="ads"), pool(namespaces=("search",))), Reason.NOT_ALLOWED)

    assert "namespace 'ads' may not place models in pool 'default'; allowed: search" in message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CorruptWeightsError("cut off"), Reason.CORRUPT_WEIGHTS),
        (HubUnreachableError("no answer"), Reason.HUB_UNREACHABLE),
    ],
)
def test_files_that_cannot_be_read_are_the_reason(
    error: CorruptWeightsError | HubUnreachableError, reason: Reason
) -> None:
    assert refused(world(model(), known={SOURCE: error}), reason) == error.message


def test_facts_that_are_not_there_yet_are_pending() -> None:
    refused(world(model(), known={}), Reason.FACTS_PENDING)


def test_echo_needs_no_files() -> None:
    found = accepted(world(model(task="echo", engine={"allocate": "1Gi", "loadSeconds": 2})))
    assert found.engine is not None
    assert found.engine.echo is not None

    assert shares(found) == {"cpu": GIB + RUNTIME_BYTES["echo", "cpu"]}
    assert (found.engine.echo.load_s, found.engine.echo.allocate_bytes, found.engine.source) == (2.0, GIB, "")


def revision(given: World) -> str:
    found = accepted(given)
    assert found.engine is not None
    return found.engine.revision


def test_the_revision_stays_when_nothing_that_runs_changes() -> None:
    assert revision(world(model())) == revision(world(model(replicas={"max": 3, "idleAfter": "1m"}), tenant()))


@pytest.mark.parametrize(
    "other",
    [
        world(model(engine={"contextTokens": 1024})),
        world(model(gpu={"memory": "5Gi"})),
        world(model(), known={SOURCE: facts(fingerprint="b" * 40)}),
    ],
)
def test_the_revision_changes_with_what_runs(other: World) -> None:
    assert revision(world(model())) != revision(other)


def test_desired_holds_accepted_and_refused_models() -> None:
    given = world(model("good"), model("bad", gpu={"memory": "1Gi"}))
    desired = render_desired(plan(given, {}).pool("default"), generation=7)
    bad, good = desired.models

    assert (desired.generation, bad.refused, bad.engine) == (7, Reason.DOES_NOT_FIT, None)
    assert good.engine is not None
    assert msgspec.json.decode(msgspec.json.encode(desired), type=Desired) == desired


def gateway(given: World) -> GatewayConfig:
    return render_gateway(plan(given, {}), given.manifests, generation=1, conductors=(), pool_token_file="t")


def test_the_gateway_gets_hashes_and_never_keys() -> None:
    config = gateway(world(model(), tenant(), secret()))

    assert KEY.encode() not in msgspec.json.encode(config)
    assert config.tenants[0].key_sha256 == (hashlib.sha256(KEY.encode()).hexdigest(),)
    assert config.tenants[0].models == ("default/small",)


def test_white_space_around_a_key_does_not_count() -> None:
    plain = gateway(world(tenant(), secret(key=KEY)))
    padded = gateway(world(tenant(), secret(key=f"{KEY}\n")))

    assert plain.tenants == padded.tenants


def test_no_key_is_in_a_plan() -> None:
    assert KEY not in repr(plan(world(model(), tenant(), secret()), {}))
