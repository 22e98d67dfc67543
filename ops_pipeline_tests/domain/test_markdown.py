"""Text of others breaks no table, and hides no link, image or HTML."""

import pytest

from ops_pipeline.domain.markdown import markdown_table, markdown_text, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lower | a try", r"lower \| a try"),
        ("`drop`", r"\`drop\`"),
        ("[here](http://evil.example)", r"\[here\](http://evil.example)"),
        ("![x](https://evil.example/a.png)", r"!\[x\](https://evil.example/a.png)"),
        ("see https://evil.example now", "see https://evil.example now"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("&lt;b>", "&amp;lt;b&gt;"),
        ("-->", "--&gt;"),
        ("a\n| b |\r\n\n# c", r"a \| b \| # c"),
        ("**bold** ~~gone~~", r"\*\*bold\*\* \~\~gone\~\~"),
        ("a\\|b", r"a\\\|b"),
        ("confidence_min: 0.7 -> 0.65", "confidence_min: 0.7 -> 0.65"),
    ],
)
def test_text_is_shown_as_it_stands(text: str, shown: str) -> None:
    assert markdown_text(text) == shown


def test_a_table_is_safe_whatever_its_cells_are() -> None:
    assert markdown_table(("a",), [("x|y",), (None,)]) == "| a |\n| --- |\n| x\\|y |\n| None |"


def test_one_line_has_nothing_that_moves_a_cursor() -> None:
    assert one_line("a\r\nb\tc\x1b[2J\u202ed  e") == "a b c [2J d e"
