"""Faults put into the program by hand, each with the tests that must notice it.

(what stands in the program, once; what a mutant has instead; the test files). `test_mutants` runs
them. A mutant that no test notices is a rule that nobody holds.
"""

STEP = ["test_golden_steps.py"]

MUTANTS = [
    # train: the loop, its batches, its state
    ("loss = share * loss + (1 - share)", "loss = (1 - share) * loss + share", STEP),
    ("images = share * images + (1 - share)", "images = (1 - share) * images + share", STEP),
    ("min(recipe.ema, (1 + number) / (10 + number))", "recipe.ema", STEP),
    ("(1 + number) / (10 + number)", "(2 + number) / (10 + number)", STEP),
    ("recipe.clip or math.inf)", "math.inf)", STEP),
    ("learning_rate(recipe, number / plan.steps)", "learning_rate(recipe, 0.5)", STEP),
    ("alpha=-lr * group.lr_scale)", "alpha=-lr)", STEP),
    ("if group.decay:", "if not group.decay:", STEP),
    ("kind = (0.0, 2.0) if id(p) in last", "kind = (0.0, 1.0) if id(p) in last", STEP),
    ("weight_decay if p.ndim > 1 else 0.0", "weight_decay", STEP),
    ("torch._foreach_mul_(group.momentum, momentum)", "pass", STEP),
    ("moves = gradients if self.recipe.nesterov", "moves = group.momentum if True", STEP),
    ("1 - decay)\n    for mine", "decay)\n    for mine", STEP),
    ("return self.draws(step) % self.plan.images", "return self.draws(step)", STEP),
    ("sum(counts) / (len(counts) * count)", "sum(counts) / count", STEP),
    ("(each * self.class_weights[labels]).mean()", "each.mean()", STEP),
    # validation
    ('labels, reduction="sum").item()', "labels).item()", STEP),
    ("(world.sum(sums.to(device)) / len(split.labels))", "world.sum(sums.to(device))", STEP),
    # schedule
    ("if progress < recipe.warmup:", "if progress <= recipe.warmup / 2:", STEP),
    ("max(progress / recipe.warmup, 0.01)", "progress / recipe.warmup", STEP),
    (
        "recipe.factor ** sum(progress >= share",
        "recipe.factor ** sum(progress > share",
        ["test_recipes.py"],
    ),
    (
        "left = (1 - math.cos(math.pi * left)) / 2",
        "left = math.cos(math.pi * left / 2)",
        ["test_recipes.py"],
    ),
    # augmentation
    (
        "cut = cut.masked_fill(hole[..., None], 0)",
        "cut = cut.masked_fill(hole[..., None], 9)",
        STEP,
    ),
    (
        "part = [row % FINE if below else",
        "part = [row % FINE if not below else",
        ["test_augment.py"],
    ),
    # modes
    ("part.training = mode", "part.training = False", ["test_modes.py"]),
    # bench and scores
    ("shares = [macs * loop / turn", "shares = [turn / macs / loop", ["test_bench.py"]),
    (
        "        digest(network),\n    ]\n    return hashlib",
        "    ]\n    return hashlib",
        ["test_importance.py"],
    ),
    # lengths
    ("epoch - best_epoch >= patience", "epoch - best_epoch > patience", ["test_train_longer.py"]),
    ("plan.steps <= step", "plan.steps < step", ["test_train_longer.py"]),
    (
        "sure = answers.max(1) >= threshold",
        "sure = answers.max(1) <= threshold",
        ["test_error_analysis.py"],
    ),
    # which channels stay
    ("np.argsort(-importance, kind", "np.argsort(importance, kind", ["test_channels_select.py"]),
    (
        "if found.status == INFEASIBLE:",
        "if found.status != OPTIMAL:",
        ["test_channels_select.py"],
    ),
    ("self._run(-value, ceiling", "self._run(value, ceiling", ["test_channels_select.py"]),
    # loops of the compiler, and where values lie
    ("rest = vectors % many", "rest = 0", ["test_loops.py"]),
    (
        "return strided and pitch % (WIDEST // 2) == 0",
        "return strided",
        ["test_strided.py"],
    ),
    ("if read < place]:", "if read >= -1]:", ["test_compiler_verify.py"]),
    (
        "if meets and begin <= dies and born <= until:",
        "if meets and begin <= dies and born < until:",
        ["test_compiler_verify.py"],
    ),
    # scores of channels
    ("seed if member.seeded else 0", "seed", ["test_importance.py"]),
    ("np.random.default_rng(0).shuffle(order)", "pass", ["test_importance.py"]),
    ("min(BATCH, PIXELS // (height * width))", "BATCH", ["test_importance.py"]),
]
