"""
The faults that can be planted into a module, as changes of its syntax tree: a comparison is moved by one, a condition
turned round, C{and} becomes C{or}, a constant another one, C{+} becomes C{-}, a function returns nothing, a statement
goes.

Annotations, texts of exceptions, names of states and of codecs are left alone: what they say is for people, or for no
test to tell. It runs nothing; L{mutants<tests.mutants>} does.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from attrs import frozen

_MOVED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
# Their arguments are what people read, names of codecs, and how attrs makes a class.
_FOR_PEOPLE = ("_break", "encode", "decode", "frozen", "define", "field")
_ORDERING = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip


@frozen
class Fault:
    """
    @ivar what: what is changed, C{"< to <="}.
    @ivar plant: changes the tree.
    """

    line: int
    what: str
    plant: Callable[[], None]


def _left_alone(tree: ast.Module) -> set[int]:
    """Nodes in which no constant is changed, and no operator: annotations, docstrings, texts of exceptions, names."""
    alone: set[int] = set()

    def leave(node: ast.AST | None) -> None:
        if node is not None:
            alone.update(id(inner) for inner in ast.walk(node))

    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.Assert | ast.ImportFrom):
            leave(node)
        elif isinstance(node, ast.AnnAssign | ast.arg):
            leave(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            leave(node.returns)
            if node.name == "__repr__":
                leave(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            leave(node)
        elif isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Enum" for base in node.bases):
            for statement in node.body:
                if isinstance(statement, ast.Assign):
                    leave(statement)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _FOR_PEOPLE:
            for argument in (*node.args, *node.keywords):
                leave(argument)
    return alone


def faults(tree: ast.Module) -> Iterator[Fault]:
    """All faults of a module, in the order of its text."""
    alone = _left_alone(tree)
    found = [fault for node in ast.walk(tree) if id(node) not in alone for fault in _faults_of(node)]
    return iter(sorted(found, key=lambda fault: fault.line))


def _faults_of(node: ast.AST) -> Iterator[Fault]:
    if isinstance(node, ast.Compare):
        yield from _comparisons(node)
    elif isinstance(node, ast.BoolOp):
        yield _setting(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _setting(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _ARITHMETIC:
        yield _setting(node, "op", _ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.Return) and node.value is not None:
        # Of True and False the constant is changed.
        if not (isinstance(node.value, ast.Constant) and node.value.value in (None, True, False)):
            yield _setting(node, "value", ast.Constant(None))
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not _is_turned_elsewhere(node.test):
        yield _setting(node, "test", ast.UnaryOp(ast.Not(), node.test))
    for statements in (getattr(node, "body", None), getattr(node, "orelse", None)):
        if isinstance(statements, list) and not isinstance(node, ast.Module | ast.ClassDef):
            yield from _removals(statements)


def _removals(statements: list[ast.stmt]) -> Iterator[Fault]:
    """What is done for its effect is not done."""
    for index, statement in enumerate(statements):
        match statement:
            case ast.Expr(value=ast.Call() | ast.YieldFrom()) | ast.AugAssign() | ast.Delete() | ast.Continue():
                pass
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
                pass
            case _:
                continue

        def plant(index: int = index) -> None:
            statements[index] = ast.Pass()

        yield Fault(statement.lineno, "removed", plant)


def _is_turned_elsewhere(test: ast.expr) -> bool:
    """Whether turning this condition is a fault of the comparison, or of the C{not}, that it consists of."""
    if isinstance(test, ast.Compare):
        return not isinstance(test.ops[0], _ORDERING)
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _comparisons(node: ast.Compare) -> Iterator[Fault]:
    for index, operator in enumerate(node.ops):
        moved = _MOVED[type(operator)]()

        def plant(index: int = index, moved: ast.cmpop = moved) -> None:
            node.ops[index] = moved

        yield Fault(node.lineno, f"{type(operator).__name__} to {type(moved).__name__}", plant)


def _constants(node: ast.Constant) -> Iterator[Fault]:
    value = node.value
    if isinstance(value, bool):
        yield _setting(node, "value", not value)
    elif isinstance(value, int | float):
        yield _setting(node, "value", value + 1)
    elif isinstance(value, str):
        yield _setting(node, "value", value + "?")
    elif isinstance(value, bytes):
        yield _setting(node, "value", value + b"?")


def _setting(node: ast.expr | ast.stmt, name: str, value: object) -> Fault:
    old = getattr(node, name)
    return Fault(node.lineno, f"{_shown(old)} to {_shown(value)}", lambda: setattr(node, name, value))


def _shown(part: object) -> str:
    if isinstance(part, ast.operator | ast.boolop | ast.cmpop):
        return type(part).__name__
    return ast.unparse(part) if isinstance(part, ast.AST) else repr(part)
