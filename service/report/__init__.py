"""A report of what was found, as PDF and HTML, in which every number names where it comes from.

numbers      a number or sentence with its source; what stands in report.json
answers      what the report is written from: JSON of endpoints and rows of views
document     blocks of text, figures and tables, and the numbering of them
chapters     one module a chapter: from answers to blocks
references   the papers behind the methods used
title_page   who wrote it: the YAML file
own_words    the authors' own paragraphs: Markdown by chapter
html, pdf    a document as a page, and as a PDF made by Typst
making       all of it in order, and the files that come of it
kept         the reports of a data folder
asking       the addresses that a report.json from anywhere may ask for
afresh       a data folder in which nothing is computed yet
reproducing  every number computed anew, and what differs
bundle       report, recipe, heads and code as one zip
"""
