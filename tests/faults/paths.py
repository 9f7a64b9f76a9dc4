"""Paths that try to leave the folder in which they are looked up (S01–S09), and what lies there.

`lay_out` makes a root with one good image, links, pipes and devices of every kind in it, and beside
it a folder with what must never be read. `hostile_paths` are names that lead there, or might.
"""

import os
from pathlib import Path

from PIL import Image

CANARY = "canary-4711"  # text of what lies outside; its picture is of one colour
COLOUR = (255, 0, 255)
GOOD = "val/0/a.png"
_OUTSIDE = "img-secret"  # begins as the root's own name does


def lay_out(folder: Path) -> Path:
    """Make `img`, the root, and `img-secret` beside it; return the root."""
    folder = folder.resolve()
    root, outside = folder / "img", folder / _OUTSIDE
    (root / "val" / "0").mkdir(parents=True)
    outside.mkdir()
    Image.new("RGB", (40, 30), (0, 200, 0)).save(root / GOOD)
    for name in ("s.png", "a.png"):
        Image.new("RGB", (40, 30), COLOUR).save(outside / name)
    # as a model, a report, a line, a checkpoint or a static file would have it
    for name in (
        "model.json",
        "card.json",
        "report.html",
        "secret.txt",
        "s.css",
        "evaluation.json",
    ):
        (outside / name).write_text(f'{{"said": "{CANARY}"}}')
    links = {
        "out.png": outside / "s.png",
        "up.png": f"../{_OUTSIDE}/s.png",
        "outer": outside,
        "val/up": f"../../{_OUTSIDE}",
        "here": ".",
        "alias.png": GOOD,
        "dangling.png": "nothing.png",
        "itself.png": "itself.png",
        "null.png": "/dev/null",
        "zero.png": "/dev/zero",
        "environ.png": "/proc/self/environ",
        "cwd": "/proc/self/cwd",
        "root": "/",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.png")
    return root


def hostile_paths(folder: Path) -> list[str]:
    """Return what names something outside the root of `lay_out`, or is no plain name in it."""
    out = folder.resolve() / _OUTSIDE
    ups = [f"{'../' * n}{_OUTSIDE}{end}" for n in (1, 2, 3, 4) for end in ("", "/s.png")]
    return [
        *ups,
        "", ".", "..", "...", "/", "//", "./", "../", "../..", "val/..", "val/../..",
        f"val/../../{_OUTSIDE}/s.png", f"val/0/../../../{_OUTSIDE}/s.png", f"./../{_OUTSIDE}/s.png",
        f"....//{_OUTSIDE}/s.png", f"..././{_OUTSIDE}/s.png", f"..//{_OUTSIDE}//s.png",
        "../" * 40 + "etc/passwd", "..;/etc/passwd",
        "./val/0/a.png", "val//0/a.png", "val/./0/a.png", "val/0/a.png/", "val/0/a.png/.",
        "val/0/a.png ", " val/0/a.png", "val/0/a.png.", "val/0./a.png", "VAL/0/A.PNG",
        "out.png", "up.png", "outer/s.png", "outer", "val/up/s.png", "here/val/0/a.png",
        "alias.png", "dangling.png", "itself.png", "null.png", "zero.png", "environ.png",
        "cwd/README.md", "root/etc/passwd", "pipe.png", "val", "val/0",
        "/etc/passwd", "//etc/passwd", "///etc/passwd", f"{out}/s.png", f"/{out}/s.png", str(out),
        "/proc/self/environ", "/proc/self/fd/0", f"/proc/self/{'root'}/etc/passwd", "/dev/zero",
        "/dev/stdin", "/dev/fd/0",
        f"..\\{_OUTSIDE}\\s.png", f"..\\..\\{_OUTSIDE}\\s.png", f"val\\..\\..\\{_OUTSIDE}\\s.png",
        "C:\\Windows\\win.ini", "C:/Windows/win.ini", "C:secret", "\\\\host\\share\\s.png",
        "\\\\?\\C:\\s.png", "//host/share/s.png", "CON", "NUL.png", "a.png::$DATA",
        f"%2e%2e%2f{_OUTSIDE}%2fs.png", f"%2e%2e/{_OUTSIDE}/s.png", f"..%2f{_OUTSIDE}%2fs.png",
        f"%252e%252e%252f{_OUTSIDE}%252fs.png", f"..%252f{_OUTSIDE}%252fs.png",
        f"..%c0%af{_OUTSIDE}%c0%afs.png", f"%c0%ae%c0%ae/{_OUTSIDE}/s.png",
        f"%e0%80%ae%e0%80%ae/{_OUTSIDE}/s.png", f"..%5c{_OUTSIDE}%5cs.png", "%00", "a.png%00.jpg",
        f"%u002e%u002e/{_OUTSIDE}/s.png", "%", "%zz", "%ff%fe",
        f"．．／{_OUTSIDE}／s.png", f"‥/{_OUTSIDE}/s.png", f"․․/{_OUTSIDE}/s.png",
        f"..∕{_OUTSIDE}∕s.png", f"..\u200b/{_OUTSIDE}/s.png",
        f"file://{out}/s.png", "file:///etc/passwd", "FILE:/etc/passwd",
        "http://169.254.169.254/latest/meta-data/", "https://localhost/s.png", "s3://bucket/s.png",
        "ftp://host/s.png", "data:image/png;base64,AAAA", "gopher://host/", "jar:file:///s.zip!/a",
        "~/s.png", "~root/s.png", "$HOME/s.png", "${HOME}/s.png", "$(id)", "`id`", "|id", ";id",
        "*", "val/*/a.png", "val/[0-9]/a.png", "?", "a.png?x=1", "a.png#x", "{a,b}",
        "a" * 5_000 + ".png", "a/" * 2_500 + "a.png", "é" * 200 + ".png",
        "-rf", "--help", "<script>alert(1)</script>.png", "' or 1=1 --", '"; drop table image; --',
        "\u202egnp.a", "a\u2028b.png", "\ufeffa.png", "\U0001f4a9.png",
    ]  # fmt: skip


# names that a feature file may not hold, and a system call not take
CONTROLS = [
    "val/0/a.png\0", "val/0/a\0.png", "\0", "val/0/\n", "a\r\nSet-Cookie: x=1.png", "\x1b[31mred",
    "\x1b]0;title\x07", "tab\t.png", "del\x7f.png", "\x85.png",
]  # fmt: skip
SURROGATES = ["\udc80.png", "\ud800", "val/\udcff/a.png"]  # text that no UTF-8 has
