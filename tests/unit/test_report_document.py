"""A report's blocks: numbering, references, own words, title page, and text that is only text."""

import io
from datetime import UTC, datetime

import pytest
from markupsafe import escape
from pypdf import PdfReader

from service import charts
from service.errors import BadText, BadTitlePage
from service.report import html, pdf
from service.report.document import (
    Author,
    Bullets,
    Chapter,
    Cite,
    Column,
    Document,
    Figure,
    Front,
    Heading,
    Paragraph,
    Quote,
    Ref,
    Table,
    Text,
    Verbatim,
    numbered,
    plain,
    words,
)
from service.report.numbers import FORMS, Answer, Number, Source, report_json
from service.report.own_words import own_words
from service.report.references import METHODS, OF_HEAD, PAPERS
from service.report.title_page import EXAMPLE, TitlePage, read_title_page

HOSTILE = [
    '#import "@preview/x:1.0.0"', "$x$ and \\$",
    "*b* _e_ `raw` ~ -- ---", "<script>alert(1)</script>",
    "@x <label> [a] {b} // c /* d */", "= heading\n- item\n+ item",
    '"quoted" \'single\' \\"', "\\\\u{1f}",
    "\u200f\u202eright to left", "nul \x00 and \x1b[31m", "#(1+1);)]}", "]#panic()[", "&lt;b&gt;",
    "http://x.y/z?a=b&c=d#e", "{{ 7 * 7 }} {% raw %}",
]  # fmt: skip


def figure(key, text="what"):
    rows = [{"name": text, "estimate": 0.1, "low": 0.0, "high": 0.2}]
    return Figure(key, charts.forest(rows, title=text, x_title="points"), words(text), text)


def table(key, text="what"):
    return Table(key, words(text), (Column(text, wide=True),), ((words(text),),))


def document(*blocks, appendix=()):
    front = Front("Title", None, None, "1 May 2026", (), ())
    return Document(front, (), (Chapter("one", "One", tuple(blocks)),), appendix)


def number(value, form="count", pointer="/n"):
    return Number(value, FORMS[form](value), Source("/x", pointer), form)


def test_figures_tables_and_papers_are_numbered_in_the_order_of_the_text():
    found = numbered(
        document(
            Paragraph(words(Ref("b"), Ref("t"), Ref("a"), Ref("one"), Cite(("wilson1927",)))),
            figure("a"),
            table("t"),
            figure("b"),
            Paragraph(words(Cite(("newcombe1998", "wilson1927")))),
        )
    )
    assert found.label(Ref("a")) == "Figure 1"
    assert found.label(Ref("b")) == "Figure 2"
    assert found.label(Ref("t")) == "Table 1"
    assert found.label(Ref("one")) == "Chapter 1"
    assert found.papers == ("wilson1927", "newcombe1998")
    assert found.cited(Cite(("newcombe1998", "wilson1927"))) == "[1, 2]"


def test_a_number_has_one_id_however_often_it_is_written():
    found = numbered(
        document(
            Paragraph(words(number(3), number(4, pointer="/m"), number(3))),
            Bullets(((Paragraph(words(number(5, pointer="/k"))),),)),
        )
    )
    assert [found.id_of(one) for one in found.numbers] == ["N1", "N2", "N3"]
    assert [one.text for one in found.numbers] == ["3", "4", "5"]


@pytest.mark.parametrize(
    "blocks",
    [
        (Paragraph(words(Ref("nowhere"))),),
        (figure("never-named"),),
        (Paragraph(words(Ref("a"))), figure("a"), figure("a")),
    ],
    ids=["leads nowhere", "never referred to", "twice"],
)
def test_a_reference_that_does_not_fit_is_a_fault(blocks):
    with pytest.raises(ValueError, match=r"called|referred"):
        numbered(document(*blocks))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_only_text_in_the_pdf_and_on_the_page(text):
    shown = Text(text)
    front = Front(text, text, text, "1 May 2026", (Author(text, text, "100 %", text),), words(text))
    blocks = (
        Paragraph((Ref("f"), Ref("t"), shown, Text(text, "code"), Text(text, "strong"))),
        Heading(words(text)),
        Bullets(((Paragraph(words(text)),),)),
        Quote((Paragraph(words(text)),)),
        Verbatim(text),
        figure("f", text),
        table("t", text),
        Paragraph(words(Number(text, text, Source(text, text), "text"))),
    )
    found = numbered(Document(front, (), (Chapter("one", text, blocks),)))
    made = pdf.to_pdf(found, (), made_at=datetime(2026, 5, 1, tzinfo=UTC))
    read = "".join(page.extract_text() for page in PdfReader(io.BytesIO(made)).pages)
    letters = "".join(c for c in text if c.isalnum() and c.isascii() and c not in "\x00\x1b")
    kept = "".join(c for c in read if c.isalnum() and c.isascii())
    assert kept.count(letters) >= 8
    page = html.to_html(found, ())
    assert "<script" not in page
    assert "\x00" not in page
    assert str(escape(plain(text))) in page


def test_a_long_word_stays_on_the_page_and_a_long_line_is_broken():
    assert "\u200b" in pdf.string("n01440764/" + "x" * 90)
    assert "\u200b" not in pdf.string("an ordinary sentence of short words")
    assert max(len(line) for line in pdf._wrapped("y" * 300).split("\n")) <= 84


def test_own_words_open_the_chapter_until_their_first_heading():
    found = own_words({"1": "Before.\n\n# Mine\n\nAfter.\n\n## Deeper\n", "results": "- a\n- b\n"})
    assert [type(b) for b in found["discovery"].opening] == [Paragraph]
    headings = [b for b in found["discovery"].sections if isinstance(b, Heading)]
    assert [h.level for h in headings] == [2, 3]
    assert isinstance(found["results"].opening[0], Bullets)
    assert found["conclusions"].opening == ()


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("a <b>b</b>", "a <b>b</b>"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("![alt](http://x/y.png)", "[image not taken: alt]"),
        ("[here](http://x/y)", "here (http://x/y)"),
        ("<http://x/y>", "http://x/y"),
        ("*e* **s** `c`", "e s c"),
        ("one\ntwo", "one two"),
    ],
)
def test_markdown_is_shown_as_text(markdown, shown):
    (block,) = own_words({"1": markdown})["discovery"].opening
    assert "".join(one.text for one in block.words) == shown


def test_a_table_and_code_of_the_authors_are_taken():
    blocks = own_words({"4": "| a | n |\n|---|--:|\n| x | 1 |\n\n```\nx = 1\n```\n"})[
        "building"
    ].opening
    assert [c.align for c in blocks[0].columns] == ["left", "right"]
    assert blocks[1] == Verbatim("x = 1")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"7": "x"}, "6 or conclusions"),
        ({"../../etc/passwd": "x"}, "wanted a text of a chapter"),
        ({"1": "x", "discovery": "y"}, "two"),
        ({"1": "x" * 300_000}, "Shorten"),
    ],
)
def test_a_text_of_no_chapter_is_refused(texts, said):
    with pytest.raises(BadText, match=said):
        own_words(texts)


def test_deeply_nested_markdown_ends(tmp_path):
    own_words({"1": "> " * 500 + "x", "2": "[" * 5000, "3": "- " * 400 + "x"})


def test_the_example_of_a_title_page_is_one(tmp_path):
    file = tmp_path / "title.yaml"
    file.write_text(EXAMPLE, encoding="utf-8")
    page = read_title_page(file)
    assert [author.id for author in page.authors] == ["1234567", "7654321"]
    assert page.timesheet[0].hours == 3.5


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("authors: [{name: A, id: 1, share: 70}, {name: B, id: 2, share: 20}]", "70 \\+ 20 = 90"),
        ("authors: [{name: A, share: 100}]", "authors.0.id"),
        ("colour: red", "colour.*Known names: title"),
        ("- a\n- b", "got a list"),
        ("", "got nothing"),
        ("a: [", "which is none"),
        ("!!python/object/apply:os.system ['true']", "which is none"),
        ("timesheet: [{date: 2026-01-01, member: A, what: x, hours: .nan}]", "hours"),
        ("timesheet: [{date: today, member: A, what: x, hours: 2}]", "date"),
    ],
)
def test_a_title_page_with_faults_is_refused_in_words(tmp_path, yaml, said):
    file = tmp_path / "title.yaml"
    file.write_text(yaml, encoding="utf-8")
    with pytest.raises(BadTitlePage, match=said):
        read_title_page(file)


def test_shares_may_be_rounded_thirds():
    authors = [{"name": n, "id": n, "share": s} for n, s in (("a", 33.3), ("b", 33.3), ("c", 33.3))]
    assert len(TitlePage.model_validate({"authors": authors}).authors) == 3


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.0731, "points", "7.3"),
        (-0.0731, "signed_points", "−7.3"),
        (0.0731, "signed_points", "+7.3"),
        (-0.0001, "signed_points", "0.0"),
        (0.5, "percent", "50.0 %"),
        (1281167, "count", "1,281,167"),
        (0.0004, "p", "below .001"),
        (0.25, "p", ".250"),
        (1.0, "p", "1"),
        (0.9996, "p", "1"),
        (0.012345, "significant", "0.0123"),
        (None, "points", "unknown"),
        ("2d22706dfcdcc596", "digest", "2d22706dfcdc"),
    ],
)
def test_a_number_is_written_by_its_form(value, form, text):
    assert FORMS[form](value) == text


def test_report_json_names_each_number_and_only_answers_that_were_used():
    used = Answer("/gap/m", {"gap": {"estimate": 0.07}, "seconds_s": 1.0}, {"val": "ab"}, 0)
    other = Answer("/splits", [], {}, None)
    found = report_json(
        [used, other],
        [used.number("/gap/estimate", "points")],
        version="0",
        made_at=datetime(2026, 5, 1, tzinfo=UTC),
        models=["m"],
        reference="val",
        target="v2",
    )
    assert list(found["endpoints"]) == ["/gap/m"]
    assert found["numbers"] == [
        {"id": "N1", "text": "7.0", "value": 0.07, "endpoint": "/gap/m",
         "pointer": "/gap/estimate", "form": "points"}
    ]  # fmt: skip


def test_every_method_has_papers_and_every_paper_a_method():
    cited = {key for _, _, keys in METHODS.values() for key in keys}
    cited |= {key for keys in OF_HEAD.values() for key in keys}
    assert cited <= set(PAPERS)
    elsewhere = {"recht2019", "guo2017"}  # the problem, and the temperature of every head
    assert set(PAPERS) - cited == elsewhere
