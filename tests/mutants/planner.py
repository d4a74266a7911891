"""Faults in arms, budgets, tuning, plans and the account of what was spent."""

from __future__ import annotations

from mutants import Mutant

ARMS = ("tests/test_arms.py",)
ORIGINS = ("tests/test_origins.py",)
BUDGET = ("tests/test_budget.py",)
TUNING = ("tests/test_tuning.py",)
COSTS = ("tests/test_compare_costs.py",)
PROGRESS = ("tests/test_compare_progress.py",)
SHARE = ("tests/test_gpu_share.py",)
LOST = ("tests/invariants/test_ray_cluster.py::test_a_stage_that_is_lost_every_time_is_an_error_in_the_end",)
ORDER = ("tests/test_packed.py::test_rows_put_in_another_order_keep_their_labels",)
PADDING = ("tests/test_packed.py::test_padding_may_be_a_document_of_its_own",)
STAGES = ("tests/test_stages.py",)
ACCOUNT = ("tests/test_held_equal.py::test_time_that_a_study_lay_still_does_not_count",)


def plan(name: str) -> tuple[str, ...]:
    return (f"tests/test_plan.py::{name}",)


MUTANTS = [
    # Origins
    Mutant(
        "adaptkit/study/mixture.py",
        "mixed.repetitions * domain_tokens / num_tokens",
        "domain_tokens / num_tokens",
        ORIGINS,
    ),
    Mutant("adaptkit/study/mixture.py", "share < LEAST_SHARE", "share > LEAST_SHARE", ORIGINS),
    Mutant(
        "adaptkit/compare/stages/pretraining_jobs.py",
        '"replay_share": 1 - self.domain_share(order)',
        '"replay_share": self.domain_share(order)',
        ORIGINS,
    ),
    Mutant(
        "adaptkit/compare/stages/pretraining_jobs.py", "dict.fromkeys(texts[part])", "texts[part]", ORIGINS
    ),
    Mutant("adaptkit/study/tasks/rows.py", 'if message["role"] != "assistant"', "if message", ORIGINS),
    Mutant("adaptkit/study/tasks/rows.py", 'if role != "completion"', "if role", ORIGINS),
    Mutant("adaptkit/study/arms.py", "return task if self.origin.per_task else None", "return None", ORIGINS),
    Mutant(
        "adaptkit/study/preference.py",
        "return own if own in results.forgetting else arm.origin",
        "return arm.origin",
        ORIGINS,
    ),
    Mutant(
        "adaptkit/study/controls.py", "if name in task.controls]", "if name not in task.controls]", ORIGINS
    ),
    Mutant(
        "adaptkit/compare/stages/pretraining_jobs.py", "return config.extend_vocabulary", "return 0", ORIGINS
    ),
    Mutant(
        "adaptkit/data/extension.py",
        ' or "".join(self._heap[0][1]) in self._reserved',
        "",
        (
            "tests/test_data_tokenizers.py::test_no_entry_is_spelt_like_a_control_token_and_texts_keep_spelling_it",
        ),
    ),
    # Two ledgers
    Mutant(
        "adaptkit/study/arms.py",
        'return "text" if self.adaptation is None else "jobs"',
        'return "jobs"',
        ARMS,
    ),
    Mutant(
        "adaptkit/study/arms.py",
        "origins = [Origin.GENERIC, *(arm.origin for arm in arms)]",
        "origins = [arm.origin for arm in arms]",
        ARMS,
    ),
    Mutant("adaptkit/study/arms.py", "return self not in (Origin.GENERIC, Origin.API)", "return True", ARMS),
    # One budget per arm, task and seed
    Mutant(
        "adaptkit/study/budget.py",
        "return self.flops - self.text if origin.learns_text else self.flops",
        "return self.flops - self.text",
        BUDGET,
    ),
    Mutant(
        "adaptkit/study/budget.py",
        "return self.trials + 1 if self.trials > 1 else 0",
        "return self.trials if self.trials > 1 else 0",
        BUDGET,
    ),
    Mutant(
        "adaptkit/study/budget.py",
        "return 1 - self.num_trials * self.trial_share / self.num_seeds",
        "return 1 - self.num_trials * self.trial_share",
        BUDGET,
    ),
    Mutant(
        "adaptkit/study/budget.py",
        "(MIN_STEPS * flops_per_step + scoring)",
        "(MIN_STEPS * flops_per_step)",
        BUDGET,
    ),
    # Learning rates
    Mutant("adaptkit/study/tuning.py", "    if best == 0:", "    if best == -1:", TUNING),
    Mutant(
        "adaptkit/study/tuning.py",
        "neighbour = min(tried[best - 1], tried[best + 1]",
        "neighbour = max(tried[best - 1], tried[best + 1]",
        TUNING,
    ),
    Mutant("adaptkit/study/tuning.py", "(tried / run) ** HORIZON", "(run / tried) ** HORIZON", TUNING),
    Mutant(
        "adaptkit/compare/stages/language.py",
        "return for_length(best.learning_rate, min(budget.trial(budget.text), most), min(order.flops, most))",
        "return best.learning_rate",
        STAGES,
    ),
    Mutant(
        "adaptkit/compare/stages/language.py",
        "default_learning_rate(job.subject(order).params)",
        "default_learning_rate(1_000_000)",
        STAGES,
    ),
    # The plan
    Mutant(
        "adaptkit/compare/build_stages.py",
        'last = stage(budget.trials, f"learning rate {num} of {num}", tuple(trial.key for trial in grid))',
        'last = stage(budget.trials, f"learning rate {num} of {num}", ())',
        plan("test_the_last_trial_waits_for_the_grid"),
    ),
    Mutant(
        "adaptkit/compare/usable_base.py",
        'if len(reasons) == len(config.tasks_of(arm)) else ""',
        'if reasons else ""',
        ("tests/test_arms_of_tasks.py",),
    ),
    Mutant(
        "adaptkit/compare/fixed.py",
        "self.without.get(task.name, task.without)",
        "task.without",
        ("tests/test_arms_of_tasks.py",),
    ),
    Mutant(
        "adaptkit/compare/plan.py",
        "read_fixed(path) if path.exists() else measured.decide()",
        "measured.decide()",
        plan("test_a_dry_run_keeps_nothing_and_a_resumed_study_its_budget_but_not_its_speed"),
    ),
    Mutant(
        "adaptkit/compare/choose_arms.py",
        "if not unwanted & {arm.name, arm.origin.value}",
        "if arm.name not in unwanted",
        plan("test_what_is_not_wanted_is_named_by_arm_or_origin"),
    ),
    Mutant(
        "adaptkit/study/base_model.py",
        "if task.max_length > positions:",
        "if task.max_length > 2 * positions:",
        plan("test_more_tokens_than_a_model_has_positions_for_are_refused_with_both_numbers"),
    ),
    Mutant(
        "adaptkit/compare/predict.py",
        "max(ready, *places) + seconds",
        "max(places) + seconds",
        plan("test_the_wall_time_of_stages_follows_what_they_need_and_how_many_run_at_once"),
    ),
    Mutant(
        "adaptkit/compare/predict.py",
        "flops = min(stage.flops, steps + scoring)",
        "flops = stage.flops",
        COSTS,
    ),
    Mutant(
        "adaptkit/compare/costs.py",
        "passes = EVAL_PASSES_ON_TEXT - 1 + _overlap(length)",
        "passes = 1",
        COSTS,
    ),
    Mutant(
        "adaptkit/compare/settles.py",
        "num_arms = len(config.arms_on(task)) + 1",
        "num_arms = len(config.arms_on(task))",
        COSTS,
    ),
    Mutant(
        "adaptkit/compare/account.py",
        "total += max(0.0, ended - max(begun, reached))",
        "total += ended - begun",
        ACCOUNT,
    ),
    Mutant(
        "adaptkit/compare/progress.py",
        "        if result.score is None:\n            return\n",
        "        return\n",
        PROGRESS,
    ),
    # Several GPUs and machines
    Mutant(
        "adaptkit/compare/gpu_share.py",
        "self.divided / number + self.each > USABLE",
        "(self.divided + self.each) / number > USABLE",
        SHARE,
    ),
    Mutant("adaptkit/compare/gpu_share.py", "FROZEN_BYTES if adapted else STATE_BYTES", "STATE_BYTES", SHARE),
    Mutant(
        "adaptkit/compare/executor.py",
        "able = [gpu for gpu in self.gpus if gpu not in whole]",
        "able = list(self.gpus)",
        SHARE,
    ),
    Mutant("adaptkit/compare/predict.py", "seconds(stage) / len(places)", "seconds(stage)", SHARE),
    Mutant(
        "adaptkit/compare/ray_pool.py", "self.lost[stage.key] == TRIES", "self.lost[stage.key] > TRIES", LOST
    ),
    # Rows of a batch on a GPU
    Mutant(
        "adaptkit/trainer/objective.py",
        "        batch = with_bounds(batch)  # which may put rows in another order\n"
        '        return {**batch, ROWS: label_rows(shifted(batch["labels"]))}',
        '        return {**with_bounds(batch), ROWS: label_rows(shifted(batch["labels"]))}',
        ORDER,
    ),
    Mutant(
        "adaptkit/models/packed.py",
        "paddings = (starts + sizes)[sizes < length]",
        "paddings = (starts + sizes)[sizes < 0]",
        PADDING,
    ),
]
