"""The snippets of the guides run, page by page, from top to bottom."""

import contextlib
import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    "page",
    [
        "quickstart",
        "quantizers",
        "training",
        "custom_models",
        "losses",
        "vqvae2",
        "vqgan",
        "large_images",
        "distribution",
    ],
)
def test_snippets_run(page, tmp_path, capsys, mirrored_is_two_replicas):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert snippets
    namespace = {"__name__": page}
    with contextlib.chdir(tmp_path):
        for number, snippet in enumerate(snippets, start=1):
            code = compile(snippet, f"{page}.md, snippet {number}", "exec")
            exec(code, namespace)
    # What the comments beside a `print` say is what was printed.
    printed = capsys.readouterr().out
    for claim in re.findall(r"^print\(.*\)  # (.*)$", text, re.MULTILINE):
        value = re.match(r"\([^)]*\)|-?[\d.]+(?: [\d.]+)?|\w+", claim)
        if value and not claim.startswith(("sums", "raw")):
            assert value[0] in printed, claim
