r"""Texts that a page, a chart, a report, a spreadsheet, a log or a query could take for commands.

Each of the 40 is a possible name of a class, a feature, a file or a title; wherever one is shown it
is text, and `window.hacked` stays undefined.
"""

_DO = "window.hacked=1"

STRINGS = {
    "script": f"<script>{_DO}</script>",
    "end of a script": f"</script><script>{_DO}</script>",
    "end of an attribute": f'"><img src=x onerror={_DO}>',
    "end of a quoted attribute": f"'><svg onload={_DO}>",
    "attribute": f"x' onmouseover={_DO} y=\" autofocus onfocus={_DO} ",
    "address": f"javascript:{_DO}",
    "other host": "//evil.example/x.js",
    "end of a style": "</style><style>*{display:none}</style>",
    "end of a title": f"</title></textarea><script>{_DO}</script>",
    "comment": "<!--",
    "end of a comment": "--><marquee>",
    "end of CDATA": "]]>",
    "character reference": "&amp; &lt;script&gt; &#60;i&#62; &copy",
    "template": "{{7*7}}${7*7}#{7*7}",
    "template's own": "{% raw %}{# <%= 7*7 %>",
    "right to left": "gpj.\u202egpj.exe\u2066",
    "unseen": "zero\u200bwidth\u200d\u2060",
    "byte order mark": "a\ufeffb",
    "line separators": "a\u2028b\u2029c\u0085d",
    "ANSI": "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "formula": '=HYPERLINK("http://x","y")',
    "plus": "+1+1",
    "minus": "-1+1",
    "at": "@SUM(1)",
    "tab first": "\t=1+1",
    "CR first": "\r=1+1\r\n=2",
    "backslashes": r"\\ \" \' \u0022 C:\new\table",
    "backslash before a quote": 'a\\"+warn(1)+"b',
    "backslash at the end": "ends with \\",
    "escapes as letters": r"\n\t\r\x41%00%s%n$1",
    "back ticks": "`code` ```",
    "Markdown": "*bold* _it_ [a](http://x) ![i](http://x/y.png) # h",
    "Typst": '#eval("1") $x$ @label <label> /* // */',
    "SQL": "'; drop table image; --",
    "long": "long " * 400,
    "not Latin": "🦊👩‍👩‍👧 e\u0301\u0323 ÅÅ 漢字 ﷽",
    "Vega": "datum.x + event.view.location",
    "Vega's places": "a.b[c]['d'] \"e\"",
    "prototype": "__proto__",
    "constructor": "constructor",
}
