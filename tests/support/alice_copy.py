"""A folder like the published one of Alice, to spoil."""

from jaxalign.data import datasets
from jaxalign.data.sets import alice

WORDS = (
    (0.0, 20.0, "sp"),
    (20.0, 20.5, "Alice"),
    (20.5, 21.0, "was "),
    (21.0, 21.5, ""),
    (21.5, 22.25, "beginning"),
    (22.25, 60.0, "sp"),
)


def text_grid(entries, *, name="word", points=False) -> str:
    """Return a TextGrid of one tier in Praat's long format."""
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        "xmax = 60",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        f'        class = "{"TextTier" if points else "IntervalTier"}"',
        f'        name = "{name}"',
        "        xmin = 0",
        "        xmax = 60",
        f"        {'points' if points else 'intervals'}: size = {len(entries)}",
    ]
    for i, (start, end, text) in enumerate(entries, start=1):
        if points:
            lines += [f"        points [{i}]:", f"            number = {start}"]
            lines += [f'            mark = "{text}"']
        else:
            lines += [f"        intervals [{i}]:", f"            xmin = {start}"]
            lines += [f"            xmax = {end}", f'            text = "{text}"']
    return "\n".join(lines) + "\n"


def table(values) -> str:
    return "".join(" ".join(map(str, row)) + "\n" for row in values)


class Copy:
    """A folder like the published one, with the subjects s18 and s22."""

    def __init__(self, root, rng):
        self.root = root
        self.rng = rng
        self.grid = root / alice.FOLDER / alice.TEXTGRID
        self.courses = root / alice.FOLDER / "alice_data_shared/10mm"
        self.grid.parent.mkdir(parents=True)
        self.courses.mkdir(parents=True)
        self.grid.write_text(text_grid(WORDS))
        for subject in ("s18", "s22"):
            self.write(subject, self.draw())

    def draw(self, num_trs=362):
        return self.rng.normal(size=(num_trs, 6)).round(6)

    def write(self, subject, values):
        path = self.courses / f"{subject}-timecourses.txt"
        path.write_text(values if isinstance(values, str) else table(values))
        return path

    def stimuli(self):
        return datasets.find("alice", self.root).stimuli

    def responses(self):
        return datasets.find("alice", self.root).responses
