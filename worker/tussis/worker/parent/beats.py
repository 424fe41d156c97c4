"""The age limit of attempts: an attempt past the limit counts as hung."""

from __future__ import annotations

from dataclasses import dataclass, field

from tussis.shared.settings import Settings

#: Seconds in addition to the deadlines of all stages: for the claim, the commit and the steps between.
_SLACK_S = 60.0


def age_limit_s(settings: Settings) -> float:
    """Seconds that an attempt may take. After that, message and lease are not renewed."""
    deadlines_s = settings.download_timeout_s + 2 * settings.decode_timeout_s + settings.inference_timeout_s
    return deadlines_s + _SLACK_S


@dataclass
class Beats:
    """How long each delivered message is in work, without the time during which a process of the worker is held up."""

    limit_s: float
    ages: dict[str, float] = field(default_factory=dict)

    def advance(self, tags: list[str], elapsed_s: float, held: bool) -> list[str]:
        """Age the messages and return those within the limit. The others count as hung and are no longer renewed."""
        self.ages = {tag: self.ages.get(tag, 0.0) + (0.0 if held else elapsed_s) for tag in tags}
        return [tag for tag in tags if self.ages[tag] <= self.limit_s]
