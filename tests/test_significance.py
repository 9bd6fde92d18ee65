"""What a comparison says: a difference is one when it is larger than its noise."""

from leancnn.prune.significance import Row, conclusion


def rows(label, kind, *after):
    return [
        Row(label=label, kind=kind, seed=seed, before=None, after=value, macs=1, trainable=1,
            microseconds=None, epochs=1.0)
        for seed, value in enumerate(after)
    ]  # fmt: skip


def test_the_conclusion_calls_a_difference_by_its_noise():
    mine = rows("se_gate", "criterion", 0.90, 0.91, 0.92)
    text = conclusion(
        mine
        + rows("random", "criterion", 0.905, 0.91, 0.915)
        + rows("scratch", "baseline", 0.80, 0.81, 0.82)
        + rows("smaller_model", "baseline", 0.97, 0.98, 0.98),
        10_000,
    )
    assert "level with random" in text
    assert "better than scratch (+10.00" in text
    assert "worse than smaller_model" in text
    assert "level with scratch" in conclusion(mine + rows("scratch", "baseline", 0.80), 20)
    alike = rows("l1", "criterion", *[0.906] * 9) + rows("scratch", "baseline", *[0.9] * 9)
    assert "level with" in conclusion(alike, 10_000), "more runs are not more test images"
    assert "better than" in conclusion(alike, 40_000)
