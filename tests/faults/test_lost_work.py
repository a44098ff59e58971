"""Work is done once and nothing is lost, whoever is killed in the middle of it."""

from __future__ import annotations

from tests.faults.conftest import System, until

WISH = """
from pathlib import Path
from retailers import services
from retailers.models import Brand, Retailer
from rmn.lib import tenancy
path = Path({path!r})
with tenancy.everyone(), path.open("rb") as file:
    run = services.request_feed_load(
        brand=Brand.objects.get(slug="acme-corp"), retailer=Retailer.objects.get(slug="retailer-abc"),
        file_name=path.name, chunks=iter(lambda: file.read(2**20), b""), mapping={mapping!r})
print("RUN", run.pk.hex)
"""
FEEDS = """
from pathlib import Path
from retailers.domain.demo_feeds import find_data, write_demo_feeds
for name, path in write_demo_feeds(find_data(), Path({folder!r})).items():
    print("FEED", name, path)
"""


def feeds(system: System) -> dict[str, str]:
    said = system.command("shell", "-c", FEEDS.format(folder=str(system.folder / "feeds")))
    return {line.split()[1]: line.split()[2] for line in said.splitlines() if line.startswith("FEED")}


def load(system: System, path: str, mapping: str) -> str:
    said = system.command("shell", "-c", WISH.format(path=path, mapping=mapping))
    return next(line.split()[1] for line in said.splitlines() if line.startswith("RUN"))


def state(system: System, run: str) -> tuple[str, float, int, str, int]:
    found = system.rows(
        "select status, progress, attempts, error, rows_accepted from retailers_feedload where id = ?", run
    )
    return found[0]  # type: ignore[return-value]


def test_a_worker_killed_in_the_middle_of_a_load_is_followed_by_one_that_ends_it_once(system: System) -> None:
    run = load(system, feeds(system)["sales"], "completejourney/sales")
    until(lambda: state(system, run)[0] == "running" and state(system, run)[1] > 0, 60, "the load runs")
    before = system.rows("select count(*) from retailers_performancemetric")[0][0]
    assert system.kill("celery -A rmn worker") >= 1
    until(lambda: state(system, run)[0] in ("succeeded", "failed"), 240, "the load has ended")
    status, _, attempts, error, accepted = state(system, run)
    assert (status, error) == ("succeeded", "")
    assert attempts == 2
    after = system.rows("select count(*), count(distinct row_key) from retailers_performancemetric")[0]
    assert before == 0, "a load writes all its rows in one transaction"
    assert after == (accepted, accepted)


def test_a_wish_made_while_the_broker_is_dead_is_done_when_it_is_back(system: System) -> None:
    path = feeds(system)["circular"]
    system.kill("valkey")
    run = load(system, path, "completejourney/circular")
    until(lambda: state(system, run)[0] in ("succeeded", "failed"), 240, "the load has ended")
    assert state(system, run)[0] == "succeeded", state(system, run)
