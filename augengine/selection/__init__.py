from augengine.selection.conditions import Condition
from augengine.selection.folds import fold_of, folds_of
from augengine.selection.group import Group
from augengine.selection.labels import Labels
from augengine.selection.request import Request
from augengine.selection.select import Selected, select

__all__ = ["Condition", "Group", "Labels", "Request", "Selected", "fold_of", "folds_of", "select"]
