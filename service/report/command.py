"""`gapscope report`: PDF, page and numbers, beside each other."""

import argparse
from pathlib import Path

from service.analysis import Analysis, resources_of
from service.errors import UnusedOption
from service.report.bundle import write_bundle
from service.report.kept import write_beside
from service.report.making import make_report
from service.report.own_words import read_texts
from service.report.title_page import TitlePage, read_title_page
from service.settings import Settings
from service.terminal import progress_bar


def run_report(arguments: argparse.Namespace, settings: Settings) -> list[Path]:
    """Make a report and write its files; return where they are.

    Raises
    ------
    UnusedOption, BadTitlePage, BadText, NotFound, NotATest, BundleTooLarge
    """
    if not arguments.models:
        raise UnusedOption(
            "wanted a model to report on, got none. Name one, or several: the first is what the "
            "report is about."
        )
    pdf = arguments.out
    if pdf.suffix.lower() != ".pdf":
        raise UnusedOption(f"wanted a file that ends in .pdf, got {pdf}. Name one with -o.")
    page = (
        TitlePage.model_validate({})
        if arguments.title_page is None
        else read_title_page(arguments.title_page)
    )
    text = {} if arguments.text is None else read_texts(arguments.text)
    bundle = arguments.bundle
    if bundle is not None and bundle.suffix.lower() != ".zip":
        raise UnusedOption(f"wanted a file that ends in .zip, got {bundle}. Name one: --bundle.")
    analysis = Analysis(settings.data, resources_of(settings))
    with progress_bar(f"report on {arguments.models[0]}") as progress:
        made = make_report(
            analysis,
            arguments.models,
            reference=arguments.reference,
            target=arguments.target,
            title_page=page,
            text=text,
            progress=progress,
        )
    files = write_beside(made, pdf)
    if bundle is not None:
        write_bundle(bundle, analysis, made.files)
        files.append(bundle)
    return files
