"""
Which of the use cases' recoveries a corpus has run: every `except` of theirs is one, and one that
no seed ever comes to is code that nobody has tried. Each tells so itself: the functions get the
code that they have, with one more statement at the head of every handler.
"""

import ast
import importlib
import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial, reduce
from pathlib import Path
from types import CodeType, FunctionType

USE_CASES = (
    *("auditing", "data_accounts", "delivery", "dispatch", "holding", "keeping", "lending"),
    *("looks", "minting", "outbox", "quarantine", "reclaiming", "registration", "repairs"),
    *("revocation", "sweep", "together", "training_runs", "verification"),
)
_TELL = "tell_of_a_recovery"


def recoveries() -> frozenset[str]:
    """Every handler, as a reader would name it."""
    return frozenset(what for name in USE_CASES for what in _telling(name)[0])


@contextmanager
def watched(seen: Counter[str]) -> Iterator[None]:
    """Count which recoveries are run while inside."""

    def tell(what: str) -> None:
        seen[what] += 1

    with ExitStack() as undo:
        for name in USE_CASES:
            module = importlib.import_module(f"sublet.{name}")
            setattr(module, _TELL, tell)
            undo.callback(delattr, module, _TELL)
            for function, code in _telling(name)[1]:
                undo.callback(partial(setattr, function, "__code__", function.__code__))
                function.__code__ = code
        yield


@cache
def _telling(name: str) -> tuple[frozenset[str], list[tuple[FunctionType, CodeType]]]:
    """The recoveries of a module, and its functions with the code that tells of them."""
    module = importlib.import_module(f"sublet.{name}")
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    told = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            told |= {_told(name, function, node) for node in ast.walk(function) if _recovers(node)}
    codes = _functions_of(compile(ast.fix_missing_locations(tree), module.__file__, "exec"))
    return frozenset(told), [
        (inspect.unwrap(reduce(getattr, code.co_qualname.split("."), module)), code)
        for code in codes
        if _TELL in code.co_names
    ]


def _recovers(node: ast.AST) -> bool:
    return isinstance(node, ast.ExceptHandler)


def _told(module: str, function: ast.FunctionDef, handler: ast.ExceptHandler) -> str:
    caught = ast.unparse(handler.type) if handler.type else "everything"
    what = f"{module}.{function.name}: except {caught}"
    tell = ast.Call(func=ast.Name(_TELL, ast.Load()), args=[ast.Constant(what)], keywords=[])
    handler.body.insert(0, ast.copy_location(ast.Expr(tell), handler.body[0]))
    return what


def _functions_of(code: CodeType) -> Iterator[CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield inner
            yield from _functions_of(inner)
