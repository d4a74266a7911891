"""The kinds of task that come with adaptkit, and those that other installed packages bring.

A package registers a kind by an entry point of the group `adaptkit.task_kinds` that names its class.
"""

from importlib.metadata import entry_points

from adaptkit.study.task import register
from adaptkit.study.tasks.classify import Classify, LabelWords
from adaptkit.study.tasks.extract import Extract
from adaptkit.study.tasks.generate import Generate
from adaptkit.study.tasks.multi_label import MultiLabel
from adaptkit.study.tasks.pairs import Pairs
from adaptkit.study.tasks.regression import Regression
from adaptkit.study.tasks.retrieve import Retrieve
from adaptkit.study.tasks.spans import Spans

register(Classify())
register(LabelWords())
register(Generate())
register(Extract())
register(Retrieve())
register(MultiLabel())
register(Spans())
register(Regression())
register(Pairs())
for _entry in entry_points(group="adaptkit.task_kinds"):
    register(_entry.load()())
