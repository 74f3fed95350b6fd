"""Nothing is lost: the lines that see to it broken on purpose, and the quick test that must notice each."""

from __future__ import annotations

import pytest

from tests.mutants import Copy, Mutant
from tests.tally import Tally

SAVE, CHECKPOINT, RESUME = "system/test_files.py", "train/test_checkpoint.py", "train/test_resume.py"
LOCKS, RECORD, CRASH = "registry/test_locks.py", "registry/test_record.py", "registry/test_crash.py"

MUTANTS: dict[str, tuple[Mutant, str]] = {
    "a file is named before it is on disk": (
        Mutant("system/files", "                os.fsync(stream.fileno())\n", ""),
        f"{SAVE}::test_everything_is_on_disk_before_it_has_its_name",
    ),
    "a folder is named before it is on disk": (
        Mutant("system/files", "for path in [*temporary.rglob", "for path in [] and [*temporary.rglob"),
        f"{SAVE}::test_everything_is_on_disk_before_it_has_its_name",
    ),
    "a new name is not made durable": (
        Mutant("system/files", "    new.rename(folder)\n    sync(folder.parent)", "    new.rename(folder)"),
        f"{SAVE}::test_everything_is_on_disk_before_it_has_its_name",
    ),
    "a folder is deleted in place": (
        Mutant("system/files", "folder.rename(old)", "shutil.rmtree(folder)"),
        f"{SAVE}::test_the_old_folder_leaves_its_name_in_one_piece",
    ),
    "the newest checkpoints are dropped": (
        Mutant("train/checkpoint", "[:-KEPT]", "[KEPT:]"),
        f"{CHECKPOINT}::test_the_newest_two_are_kept_by_number",
    ),
    "the oldest checkpoint is loaded": (
        Mutant("train/checkpoint", 'load_file(folders[-1] / "tensors', 'load_file(folders[0] / "tensors'),
        RESUME,
    ),
    "the random state is lost": (
        Mutant("train/trainer", '        _set_random_state(groups["random"], self.model.device)\n', ""),
        f"{RESUME}::test_stopped_once",
    ),
    "the optimiser's state is lost": (
        Mutant("train/trainer", '        load_state(self.optimizer, self.model, groups["optimizer"])\n', ""),
        f"{RESUME}::test_stopped_once",
    ),
    "the average is lost": (
        Mutant("train/trainer", 'self.ema.load(groups["ema"], self.ticks)', "pass"),
        f"{RESUME}::test_stopped_once",
    ),
    "steps that were skipped count": (
        Mutant("train/trainer", 'found.step, found.state["ticks"]', "found.step, found.step"),
        f"{RESUME}::test_a_skipped_step_is_remembered",
    ),
    "a step is taken twice": (
        Mutant("train/trainer", "step == self.last.step", "False"),
        "train/test_trainer.py::test_repeating_the_last_step_changes_nothing",
    ),
    "a step is logged twice": (
        Mutant("registry/runs", "if step not in self._steps(run_id, key)", "if self._steps(run_id, key) is not None"),
        "registry/test_runs.py::test_steps_are_logged_once",
    ),
    "a lock is shared": (Mutant("registry/locks", "kind: int = fcntl.LOCK_EX", "kind: int = fcntl.LOCK_SH"), LOCKS),
    "a lock is not let go": (Mutant("registry/locks", "            fcntl.flock(stream, fcntl.LOCK_UN)\n", ""), LOCKS),
    "HEAD is moved without a lock": (
        Mutant(
            "registry/head",
            "    with head_lock(store, family):\n        current",
            "    if head_lock(store, family):\n        current",
        ),
        "registry/test_concurrent.py::test_no_promotion_is_lost",
    ),
    "HEAD is not compared": (
        Mutant("registry/head", "if (found and found.version) !=", "if False and (found and found.version) !="),
        "registry/test_head.py::test_head_that_moved_meanwhile_is_left_alone",
    ),
    "a move is written down afterwards": (
        Mutant(
            "registry/head",
            "    event = history.open_event(store, kind, origin, target, reason)\n"
            "    store.client.set_registered_model_alias(family, versions.HEAD, str(target.version))\n",
            "    store.client.set_registered_model_alias(family, versions.HEAD, str(target.version))\n"
            "    event = history.open_event(store, kind, origin, target, reason)\n",
        ),
        f"{CRASH}::test_a_fault_at_a_durable_step",
    ),
    "what did not happen is history": (
        Mutant("registry/history", "happened = _happened(", "happened = True or _happened("),
        f"{CRASH}::test_an_interrupted_promotion_is_shown_before_it_is_settled",
    ),
    "a settled promotion is not marked": (
        Mutant("registry/history", '            if run.data.tags[_EVENT] == "promote":', "            if False:"),
        f"{CRASH}::test_a_fault_at_a_durable_step",
    ),
    "a run ends before its version is written down": (
        Mutant(
            "registry/head",
            "    artifacts.link_version(store, generation)\n",
            "    runs.finish_run(store, generation.run_id, generation.verdict)\n"
            "    artifacts.link_version(store, generation)\n",
        ),
        f"{CRASH}::test_every_durable_step_is_known",
    ),
    "a child is registered twice": (
        Mutant("registry/record", "    if found := recorded(store, candidate):\n", "    if found := None:\n"),
        f"{RECORD}::test_a_child_that_another_process_registered_meanwhile_is_found",
    ),
    "what was stored is not looked at": (
        Mutant("registry/record", "    _prove(store, candidate, model.model_id, inventory)\n", ""),
        f"{RECORD}::test_a_sidecar_that_is_stored_wrong_is_not_registered",
    ),
    "stored files are not made durable": (
        Mutant("registry/artifacts", "            sync(path)\n", "            pass\n"),
        f"{CRASH}::test_stored_files_are_durable_before_their_version_is",
    ),
    "a store is made in its place": (
        Mutant("registry/store", 'with_name(f".{path.name}.{uuid.uuid4().hex}.new")', "with_name(path.name)"),
        "registry/test_concurrent.py::test_a_first_open_that_was_killed",
    ),
    "a damaged cache is trusted": (
        Mutant("registry/cache", "        if _problems(folder, generation):\n            return False\n", ""),
        "registry/test_cache.py::test_a_damaged_cache_is_built_again",
    ),
    "a signal's checksum is not compared": (
        Mutant("teachers/cache", "if expected != _checksum(", "if None is _checksum("),
        "teachers/test_cache.py",
    ),
    "six deaths are five": (
        Mutant("run/recovery", "if deaths > DEATHS:", "if deaths >= DEATHS:"),
        "evolve/test_deaths.py::test_deaths_without_progress_end_a_run",
    ),
    "progress does not count": (
        Mutant("run/recovery", "deaths + 1 if reached == before else 1", "deaths + 1"),
        "evolve/test_deaths.py::test_deaths_with_progress_between_them_do_not",
    ),
    "a lack of memory is tried again": (
        Mutant("actors/session", "if is_out_of_memory(cause) or isinstance", "if isinstance"),
        "actors/test_session.py",
    ),
}
"""What is broken, and the tests that must notice."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("mutants"))


@pytest.mark.long
def test_whole_they_pass(copy: Copy) -> None:
    assert copy.passes(*sorted({guard for _, guard in MUTANTS.values()}))


@pytest.mark.long
@pytest.mark.parametrize("name", MUTANTS)
def test_broken_they_do_not(copy: Copy, tally: Tally, name: str) -> None:
    mutant, guard = MUTANTS[name]
    with copy.broken(mutant):
        killed = not copy.passes(guard)
    tally("T18, mutants of what keeps things", tried=1, killed=int(killed))
    assert killed
