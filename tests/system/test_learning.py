"""How LEARN learns, seen from outside."""

from __future__ import annotations

from tests.system.installation import Installation, until


def test_avalanche_takes_the_steps_once_it_is_imported(installation: Installation) -> None:
    until(lambda: "learning through Avalanche from step" in installation.log("learn"), "Avalanche is imported")
    before = installation.scenarios()["travel"]["examples"]
    for number in range(60):
        installation.event("travel", f"traveller-{number % 7}", f"stay-{number % 11}")
    installation.flush()
    until(lambda: installation.scenarios()["travel"]["examples"] == before + 60, "all of it is learnt")
    assert installation.scenarios()["travel"]["model"]["step"] > 0
    assert "Traceback" not in installation.log("learn")
