"""Tasks: every kernel once, with its calls."""

import kernels
import pytest
from tvmdet.targets import get_target

from tvmdet.tuning import extract_tasks, merge_tasks


@pytest.fixture(scope="module")
def target():
    return get_target("x86-64-v3")


def test_equal_kernels_are_one_task_whose_calls_add_up(target):
    tasks = extract_tasks(kernels.relax_module(), target)
    assert [(task.count, len(task.func.params)) for task in tasks] == [(3, 2), (1, 3)]
    assert all(task.anchor == task.workload.anchor for task in tasks)
    assert all(task.decisions for task in tasks)


def test_a_module_without_kernels_has_no_tasks(target):
    import tvm

    assert extract_tasks(tvm.IRModule(), target) == []
    assert merge_tasks([]) == []


def test_buckets_merge_by_fingerprint(target):
    tasks = extract_tasks(kernels.relax_module(), target)
    merged = merge_tasks([tasks, tasks[:1]])
    assert [task.count for task in merged] == [6, 1]


def test_a_template_with_one_decision_leaves_nothing_to_tune():
    assert not kernels.make_task(kernels.Kinds("fine"), kernels.doubled).tunable
    assert kernels.make_task(kernels.Kinds("fine", "other"), kernels.doubled).tunable
