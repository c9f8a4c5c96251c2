"""What regressions of reading times take: sums over participants on the host, story by story."""

from jaxalign.pricing.work import TABLES, Layout, Priced, Work

# Seconds for one predictor of one observation in one fit: of single participants' times, whose sums
# are gathered one by one, and of means. Measured on one core, with 60,000 and 240,000 times.
_MIXED_S, _MEAN_S = 1.7e-7, 1.0e-6
# Bytes of one observation beside its predictors: time, error, participant, and its story's name.
_BESIDE = 100.0


def of_reading(
    num_words: int, num_times: int, num_stories: int, predictors: tuple[int, int], num_sources: int
) -> Priced:
    """Return the work of scoring surprisal by reading times, in sample and on held-out stories.

    Args:
      num_words: that have a mean time.
      num_times: of single participants; 0: those are not fitted.
      num_stories: each is left out once.
      predictors: columns without surprisal, and with it.
      num_sources: whose surprisal is scored.
    """
    base, full = predictors
    columns = base + full + 2  # with an intercept each
    fits = num_sources * (num_stories + 1) * columns
    # The predictors of all observations, their design, its training rows, and those with the times.
    each = 8.0 * (base + full + 3 * (full + 1)) + _BESIDE

    def count(layout: Layout) -> Work:
        seconds = fits * (num_times * _MIXED_S + num_words * _MEAN_S)
        found = Work(host_s=seconds, host_bytes=each * max(num_times, num_words))
        return found + TABLES(layout)

    return count
