"""docs/architecture.md lists every file, and pages name only what exists."""

import ast
import importlib.util
import pathlib
import re

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for path in (REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md"))
)
CODE = re.compile(r"`([^`\n]+)`")
# Folders of the repository; other paths in pages are files of users and of data sets.
PATH = re.compile(
    r"(?:jaxalign|tests|configs|docs|launch|third_party|\.ci)/[\w./-]*|[\w]+/[\w/]+\.py"
)
LINK = re.compile(r"\]\(([^)#\s]+)\)")


def text(page):
    return (REPOSITORY / page).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def list_files():
    spec = importlib.util.spec_from_file_location("list_files", REPOSITORY / "docs/list_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_of_files_is_current(list_files):
    page = text("docs/architecture.md")
    assert page == list_files.with_files(page), "run launch/local.sh docs/list_files.py"


def test_every_module_says_in_a_line_what_it_is_for(list_files):
    for path in list_files.modules():
        line = list_files.first_line(path)
        assert line.endswith(".") and len(line) < 100, path


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in LINK.findall(text(page)):
        if not re.match(r"https?:", target):
            assert ((REPOSITORY / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    """Paths from the repository, or from jaxalign/ as the code's own comments have them."""
    for code in CODE.findall(text(page)):
        path = code.partition(":")[0].rstrip("/")
        if PATH.fullmatch(path):
            found = [REPOSITORY / path, REPOSITORY / "jaxalign" / path]
            assert any(x.exists() for x in found), code


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_package_exist(page):
    """`jaxalign.a.b.c`: modules as far as there are some, then attributes."""
    for name in re.findall(r"\bjaxalign(?:\.[A-Za-z_]\w*)+", text(page)):
        assert exists(name), name


def test_the_walks_name_functions_that_exist():
    """In architecture.md a function is named by its module and its name: `zoo.find`."""
    page = text("docs/architecture.md")
    modules = {}
    for path in (REPOSITORY / "jaxalign").rglob("*.py"):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        name = parts[-2] if parts[-1] == "__init__" else parts[-1]
        modules.setdefault(name, []).append(".".join(x for x in parts if x != "__init__"))
    named = re.findall(r"`(\w+)\.([A-Za-z_][\w.]*?)(?:\([^`]*\))?`", page)
    checked = [
        (x, y) for x, y in named if x in modules and y not in ("py", "md", "parquet", "json")
    ]
    assert len(checked) > 40
    lost = [
        f"{module}.{attribute}"
        for module, attribute in checked
        if not any(exists(f"{full}.{attribute}") for full in modules[module])
    ]
    assert not lost


def exists(name):
    """Whether a dotted name is a module, or what one defines; nothing is imported."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = REPOSITORY.joinpath(*parts[:count])
        file = next(
            (x for x in (path.with_suffix(".py"), path / "__init__.py") if x.is_file()), None
        )
        if file is not None:
            body = ast.parse(file.read_text(encoding="utf-8")).body
            return is_defined(body, parts[count:])
    return False


def is_defined(body, parts):
    """Whether statements define a name, which may be that of a class and one of its parts."""
    if not parts:
        return True
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == parts[0]:
            return is_defined(node.body, parts[1:])
        if parts[0] in names_of(node):
            return len(parts) == 1
        if isinstance(node, ast.If) and is_defined(node.body, parts):  # TYPE_CHECKING
            return True
    return False


def names_of(node):
    """Return the names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {x.id for x in targets for x in ast.walk(x) if isinstance(x, ast.Name)}
    return set()
