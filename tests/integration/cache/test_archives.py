"""torch.export archives in the cache: what is in one is known before it is fetched."""

from pathlib import Path

import pytest
from tests.builders.cache_processes import CacheProcesses
from tests.builders.cached_models import digests
from tests.builders.fake_hub import FakeHub
from tests.builders.folders import archive

pytestmark = pytest.mark.integration

WEIGHTS = bytes(3_000_000)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive(pickled=True, data__weights__more=WEIGHTS), "net.pt2: tensor 'weight' is stored as a pickle"),
        (
            archive(data__constants__custom_obj_0=b"x", data__weights__more=WEIGHTS),
            "net.pt2: 'data/constants/custom_obj_0' is a pickle",
        ),
        (archive(data__aotinductor__a=b"x", data__weights__more=WEIGHTS), "net.pt2: has compiled code"),
    ],
)
def test_an_archive_that_would_run_code_is_refused_by_its_name_before_it_is_fetched(
    content: bytes, said: str, hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    hub.put("org/p", {"net.pt2": content})
    [refused] = instances.run(tmp_path, ["ensure", "hf://org/p", "engine"]).of("ensure")
    assert (refused["error"], said in refused["message"]) == ("UnsafeFiles", True)
    assert hub.bytes_sent("org/p", "net.pt2") < len(WEIGHTS) / 10
    assert not list(tmp_path.glob("models--*/blobs/*"))


def test_an_archive_with_sample_inputs_comes_whole_for_little_more_than_its_bytes(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = {"net.pt2": archive(data__weights__more=WEIGHTS)}
    hub.put("org/p", {**files, "net.py": b"print('never')"})
    [done] = instances.run(tmp_path, ["ensure", "hf://org/p", "engine"]).of("ensure")
    assert done["files"] == digests(files)
    assert hub.bytes_sent("org/p", "net.pt2") < len(files["net.pt2"]) + len(WEIGHTS) / 10
