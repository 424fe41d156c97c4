"""How long work may be kept from others: an attempt past the limit is taken to hang."""

from __future__ import annotations

from dataclasses import dataclass, field

from tussis.shared.settings import Settings

#: Seconds beyond the deadlines of all stages: for the claim, the commit and the steps between.
_SLACK_S = 60.0


def age_limit_s(settings: Settings) -> float:
    """Seconds for which an attempt may work before its message and its lease are left to expire."""
    deadlines_s = settings.download_timeout_s + 2 * settings.decode_timeout_s + settings.inference_timeout_s
    return deadlines_s + _SLACK_S


@dataclass
class Beats:
    """How long each delivered message has been in work, not counting the time that its process was held up."""

    limit_s: float
    ages: dict[str, float] = field(default_factory=dict)

    def advance(self, tags: list[str], elapsed_s: float, held: bool) -> list[str]:
        """Age the messages and say which still deserve a beat: one past the limit is hung, and is left to go back."""
        self.ages = {tag: self.ages.get(tag, 0.0) + (0.0 if held else elapsed_s) for tag in tags}
        return [tag for tag in tags if self.ages[tag] <= self.limit_s]
