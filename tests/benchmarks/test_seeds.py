"""Seeds are data directories that the daemon accepts as its own."""

import json
from pathlib import Path

from benchmarks import seeds
from benchmarks.uplinkd import serving

FILES = 1_000


def test_a_seed_is_a_data_directory_whose_files_can_be_read_and_verified(tmp_path: Path) -> None:
    template = seeds.make_template(tmp_path)
    with seeds.borrowed(tmp_path / "borrowed", template, FILES) as seed, serving(seed.directory) as daemon:
        complete = json.loads(daemon.ask("GET", "/v1/files?limit=1000&state=complete"))["files"]
        assert len(complete) == FILES - seeds.PAGE_FILES
        assert len({file["id"] for file in complete}) == len(complete)
        assert len({(file["device"], file["name"]) for file in complete}) == len(complete)
        assert daemon.ask("GET", f"/v1/files/{complete[0]['id']}/content") == seeds.CONTENT


def test_files_that_a_borrower_added_are_removed_when_it_returns_the_seed(tmp_path: Path) -> None:
    template = seeds.make_template(tmp_path)
    for borrower in ("one", "other"):
        with seeds.borrowed(tmp_path / borrower, template, FILES) as seed:
            files = seed.directory / "data" / "files"
            assert sum(len(list(shard.iterdir())) for shard in files.iterdir()) == FILES
            (next(files.iterdir()) / f"{1:016x}").write_bytes(b"of this borrower")
        assert not files.exists()
