import dataclasses
import importlib
import io
import re
import sys
from html.parser import HTMLParser
from importlib import resources

import pytest
import torch
from PIL import Image

from kshot.core import Batch, Episode, one_hot
from kshot.evaluation import Evaluation
from kshot.report import (
    Panel,
    Section,
    drawn_episode,
    episode,
    figures,
    learning_curve,
    results_table,
    wave_figure,
    write_report,
)
from kshot.report.figures import save_figure, save_wave_figure

VOID = {"meta", "link", "img", "wbr", "br"}
HOSTILE = "<script>alert('x')</script> & \"co\""


class Tags(HTMLParser):
    """Collects what a browser would see, and fails where a tag is not closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.attributes, self.text = [], [], ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


def task(ways=3, shots=1, queries=2, channels=1):
    torch.manual_seed(0)

    def batch(each):
        y = one_hot(torch.arange(ways).repeat_interleave(each), ways)
        return Batch(torch.rand(len(y), channels, 8, 8), y)

    return Episode(batch(shots), batch(queries))


def logits(task, wrong=()):
    """Answer every query rightly but for some, which are taken for the next class."""
    true = task.query.y.argmax(-1)
    true[list(wrong)] = (true[list(wrong)] + 1) % task.query.y.shape[1]
    return one_hot(true, task.query.y.shape[1])


def metrics(steps=4):
    return [
        {"step": s, "seconds": 30.0 * s, "loss": 1 / s, "tasks": s, "val_accuracy": 0.8, "val_ci95": 0.01}
        for s in range(1, steps + 1)
    ]


def panel(title="MAML", scale=1.0):
    x = torch.linspace(-5, 5, 50)[:, None]
    support = Batch(x[::10], x[::10].sin())
    return Panel(title, x, x.sin(), support, {"before": 0 * x, "after 1 step": scale * x.sin()})


def evaluation(stamp=None, score=0.9):
    return Evaluation("accuracy", True, torch.full((1200,), score, dtype=torch.float64), stamp or {})


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "report.html"
    sections = [
        Section(HOSTILE, drawn_episode(task(), logits(task(), [0]), [HOSTILE, "b/c", "d"], noun=HOSTILE)),
        Section("Results", results_table({HOSTILE: evaluation({HOSTILE: HOSTILE}), "other": evaluation()})),
        Section("Curve", learning_curve(metrics())),
        Section("Waves", wave_figure([panel(HOSTILE), panel("b", 0.5)])),
    ]
    write_report(path, HOSTILE, sections, HOSTILE)
    return path.read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere(page):
    tags = Tags(page)
    assert not re.search(r"https?://|@import", page)
    assert all(value.startswith("data:") for value in tags.values("src"))
    assert all(value.startswith(("#", "data:")) for value in tags.values("href") + tags.values("xlink:href"))
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", page))


def test_the_page_escapes_what_users_named(page):
    assert "<script" not in page
    assert Tags(page).text.count(HOSTILE) >= 6


def test_pictures_and_figures_have_a_text(page):
    tags = Tags(page)
    pictures = [value for tag, key, value in tags.attributes if (tag, key) == ("img", "src")]
    assert len(tags.values("alt")) == len(pictures) == 9
    assert len(tags.values("aria-label")) == tags.values("role").count("img") == 4


def test_ids_are_unique(page):
    ids = Tags(page).values("id")
    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for value in re.findall(r"url\(#?(.*?)\)", page)} <= set(ids)


def test_both_schemes_are_there(page):
    assert '<meta name="color-scheme" content="light dark">' in page
    assert "prefers-color-scheme: dark" in page
    assert page.count('<div class="light-only">') == page.count('<div class="dark-only">') == 4


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("position", "scheme"), [(0, "light"), (1, "dark")])
def test_text_has_contrast(position, scheme):
    style = resources.files("kshot.report").joinpath("style.css").read_text(encoding="utf-8")
    blocks = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)]
    css = blocks[position]
    for name in ("ink", "muted", "right", "wrong"):
        assert contrast(css[name], css["paper"]) > 4.5, name
    assert contrast(css["wrong"], css["wrong-paper"]) > 4.5
    palette = figures._PALETTES[scheme]
    for colour in (palette.ink, palette.muted, palette.main, palette.other):
        assert contrast(colour, css["paper"]) > 4.5
    for colour in palette.curves:  # lines need less than text
        assert contrast(colour, css["paper"]) > 2.5


def test_write_report_replaces_the_whole_file(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, "first", [])
    write_report(str(path), "second", [])
    assert "second" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_right_answers_are_counted_and_wrong_ones_marked():
    html = drawn_episode(task(), logits(task(), [0, 5]), ["sun", "moon", "star"], noun="signs")
    assert "Shown one example of each of 3 signs it had never seen" in html
    assert "<b>4 of 6</b> correctly" in html
    titles = Tags(html).values("title")
    assert [title for title in titles if title.startswith("wrong")] == [
        "wrong: taken for A (sun), but it is C (star)",
        "wrong: taken for B (moon), but it is A (sun)",
    ]
    assert len(titles) == html.count('class="tile ') == 6
    assert (html.count(">✓</span>"), html.count(">✗ A</span>"), html.count(">✗ C</span>")) == (4, 1, 1)


def test_a_class_that_nothing_was_taken_for_says_so():
    assert drawn_episode(task(), logits(task(), [0, 1])).count("<small>nothing</small>") == 1


def test_unlabelled_examples_are_left_out():
    whole = task()
    for batch in whole:
        batch.y[0] = 0
    html = drawn_episode(whole, logits(whole))
    assert "a few examples" in html
    assert "of 5</b> correctly" in html
    assert html.count("<img ") == 2 + 5


def test_long_rows_are_cut_and_keep_the_wrong_answers():
    long = task(ways=2, shots=7, queries=10)
    html = drawn_episode(long, logits(long, range(10, 13)), most=4)
    assert html.count(">✗ B<") == 3
    assert html.count("and 9 more, all of them right") == 1
    assert html.count("and 3 more, all of them right") == 1
    assert html.count("and 2 more</small>") == 2  # of the support
    assert "and 11 more, 1 of them wrong" in drawn_episode(long, logits(long, range(10, 13)), most=2)


def test_many_ways_have_numbers():
    many = task(ways=30, queries=1)
    assert '<span class="key">30</span>' in drawn_episode(many, logits(many))


@pytest.mark.parametrize(("flip", "channels"), [(False, 1), (True, 1), (False, 3)])
def test_pictures_are_dark_ink_on_light_paper(flip, channels):
    x = torch.zeros(2, channels, 8, 8)
    x[:, :, 2] = 1
    support = Batch(1 - x if flip else x, one_hot([0, 1], 2))
    drawn = episode._pictures(Episode(support, support))[0][0]
    read = Image.open(io.BytesIO(drawn.png))
    assert read.mode == ("L" if channels == 1 else "RGB")
    paper, ink = (255, 0) if channels == 1 else ((0, 0, 0), (255, 255, 255))
    assert (read.getpixel((0, 0)), read.getpixel((0, 2))) == (paper, ink)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, p: (t, p[:1], None), "predictions must be logits"),
        (lambda t, p: (t, p, ["one"]), "classes must name each of 3"),
        (
            lambda t, p: (Episode(*(b._replace(x=b.x.flatten(1)) for b in t)), p, None),
            "support.x must be pictures",
        ),
        (lambda t, p: (Episode(*(Batch(b.x[None], b.y[None]) for b in t)), p, None), "one-hot"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        drawn_episode(*change(task(), logits(task())))


def test_results_show_interval_tasks_and_protocol():
    rows = {
        "one": evaluation({"data": "omniglot", "tasks": "5-way"}),
        "two": evaluation({"data": "omniglot", "tasks": "20-way"}),
    }
    html = results_table(rows)
    assert html.count("90.00 % ± 0.00") == 2
    assert html.count(">1,200</td>") == 2
    assert html.count("data: omniglot") == 1  # what rows share is said once
    assert "<small>tasks: 5-way</small>" in html
    assert "<small>tasks: 20-way</small>" in html
    with pytest.raises(ValueError, match="at least one evaluation"):
        results_table({})


def test_learning_curve_tells_the_last_value():
    assert "Validation accuracy in %: 80 ± 1 after 2.0 minutes" in Tags(learning_curve(metrics())).values("aria-label")


def test_learning_curve_without_validation_or_interval():
    only_loss = [{key: value for key, value in line.items() if "val" not in key} for line in metrics()]
    assert learning_curve(only_loss).count("<svg") == 2
    single_task = [{**line, "val_ci95": float("inf")} for line in metrics(1)]
    assert learning_curve(single_task + only_loss).count("<svg") == 4
    with pytest.raises(ValueError, match="at least one line"):
        learning_curve([])


def test_waves_share_one_scale_that_no_diverging_curve_spoils():
    limits = figures._common_limits
    calm = panel()
    assert limits([calm, panel("b", 1e9)])[1] < 5
    assert limits([calm, panel("b", float("nan"))]) == limits([calm])
    flat = Panel("flat", calm.x, 0 * calm.x, Batch(calm.x, 0 * calm.x), {})
    assert wave_figure([flat]).count("<svg") == 2
    with pytest.raises(ValueError, match="at least one panel"):
        wave_figure([])


def test_a_band_is_drawn_within_the_common_scale():
    plain = panel()
    banded = dataclasses.replace(plain, band=(plain.truth - 1, plain.truth + 1))
    low, high = figures._common_limits([banded])
    assert low < -1.9
    assert high > 1.9
    drawn, bare = (wave_figure([one]).count("<path") for one in (banded, plain))
    assert drawn > bare


def test_figures_are_the_same_bytes_again():
    assert wave_figure([panel()]) == wave_figure([panel()])


def test_panels_of_a_saved_figure_stand_in_columns(tmp_path):
    places = []
    save_figure(
        tmp_path, "grid", (4.0, 4.0), [lambda axes, _: places.append(axes.get_subplotspec().rowspan.start)] * 5, 2
    )
    assert places == [0, 0, 1, 1, 2] * 2  # once for each scheme
    save_wave_figure(tmp_path, "waves", [panel("a"), panel("b"), panel("c")], columns=2)
    assert all("a</text>" in (tmp_path / f"waves-{scheme}.svg").read_text() for scheme in ("light", "dark"))


def test_a_missing_matplotlib_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("matplotlib", "kshot.report"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'kshot\[report\]'"):
        importlib.import_module("kshot.report")
