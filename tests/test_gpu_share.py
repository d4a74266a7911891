"""How many GPUs a stage gets, and what waits for what. Home of compare.gpu_share."""

from dataclasses import replace

from test_compare_costs import MACHINE, config, costs  # noqa: F401 (fixtures)

from adaptkit.compare import executor
from adaptkit.compare.gpu_share import USABLE, Needs, with_gpus
from adaptkit.compare.predict import wall_seconds
from adaptkit.compare.stage import Stage
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.stage_record import BASE, PREPARE, TOKENIZER, StageKey
from adaptkit.trainer.memory import STATE_BYTES

GIB = 2.0**30


def test_only_what_is_divided_shrinks_with_more_gpus():
    eight_billion = Needs(divided=8e9 * STATE_BYTES, each=10 * GIB)
    assert eight_billion.gpus(80 * GIB, most=8) == 2
    assert eight_billion.gpus(24 * GIB, most=8) == 8 and not eight_billion.fits(24 * GIB, 8)
    assert Needs(0, 100 * GIB).gpus(80 * GIB, most=8) == 8  # nothing helps: all, and it is said
    assert Needs(1 * GIB, 1 * GIB).gpus(80 * GIB, most=8) == 1


def test_trainings_that_do_not_fit_one_gpu_get_several_and_nothing_else_does(config, costs, capfd):  # noqa: F811
    full = Stage(StageKey.for_task("mood", Arm.parse("generic+full")), "full on mood")
    others = [
        Stage(PREPARE, ""),
        Stage(StageKey.for_task("mood", Arm.parse("generic+lora")), "lora on mood"),
        Stage(StageKey.for_task("mood", Arm.parse("generic+probe")), "probe on mood"),
    ]
    state = costs.params(Origin.GENERIC) * STATE_BYTES
    kept = with_gpus([full], config, costs, replace(MACHINE, gpus=1, gpu_bytes=1e12))
    assert [stage.gpus for stage in kept] == [1] and not capfd.readouterr().err
    memory = (state / 2 + 0.4 * state) / USABLE  # half the state and what layers keep of few tokens
    small = config.model_copy(update={"trainer": config.trainer.model_copy(update={"microbatch_size": 1})})
    machine = replace(MACHINE, gpus=8, gpu_bytes=memory)
    assert [stage.gpus for stage in with_gpus([full, *others], small, costs, machine)] == [2, 1, 1, 1]
    with_gpus([full], small, costs, replace(machine, gpu_bytes=state / 100))
    assert "full on mood: about" in capfd.readouterr().err
    assert [stage.gpus for stage in with_gpus([full], small, costs, MACHINE)] == [1]


def test_a_stage_of_several_gpus_has_them_alone_and_the_next_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "PRELOAD", [])
    monkeypatch.setattr(executor, "visible_gpus", lambda: ["0", "1", "2"])
    monkeypatch.setattr(executor, "_start_server", lambda: None)
    pool = executor.LocalPool(tmp_path, print, jobs=3)
    one, two, third = Stage(PREPARE, ""), Stage(TOKENIZER, "", gpus=2), Stage(BASE, "", gpus=2)
    taken = {}

    def start(stage):
        taken[stage.key] = pool.on_gpus[stage.key] = pool._gpus_for(stage)
        pool.processes[stage.key] = None

    start(one)
    assert pool.has_room(two)
    start(two)
    assert taken == {PREPARE: ["0"], TOKENIZER: ["1", "2"]}
    assert not pool.has_room(third) and pool.has_room(replace(one, key=BASE))
    assert pool._gpus_for(replace(one, key=BASE)) == ["0"]
    pool.on_gpus.pop(TOKENIZER), pool.processes.pop(TOKENIZER)
    assert pool.has_room(third)
    pool.on_gpus = {TOKENIZER: ["0", "1"], BASE: ["2"]}
    assert pool._gpus_for(one) == ["2"]  # the other two are not shared


def test_a_stage_of_two_gpus_takes_two_places_and_half_the_time():
    stages = [Stage(PREPARE, "", gpus=2), Stage(TOKENIZER, ""), Stage(BASE, "")]
    assert wall_seconds(stages, lambda stage: 4.0, jobs=2) == 2.0 + 4.0
    assert wall_seconds(stages, lambda stage: 4.0, jobs=1) == 12.0
