"""Takes the pictures of the status page for the documents: `make screenshots`."""

import subprocess
from pathlib import Path

from chromium import Look, chromium, visiting
from status_pages import address, serving

_FOLDER = Path(__file__).parents[2] / "docs/images"
_PICTURES = {
    "status-healthy": ("healthy", "en", Look("light", 1_280)),
    "status-source-failing": ("source-failing", "en", Look("dark", 1_280)),
    "status-parked-ja": ("parked", "ja", Look("light", 390)),
}


def main() -> None:
    """Take all pictures anew; those of a narrow window show what stands on its first screen."""
    _FOLDER.mkdir(exist_ok=True)
    with chromium() as browser, serving() as server:
        for name, (state, language, look) in _PICTURES.items():
            with visiting(browser, address(server, state, language), look) as visit:
                file = _FOLDER / f"{name}.png"
                visit.page.screenshot(path=file, full_page=look.width > 1_000)
                # The page has few colours: a third of the size without a visible difference.
                subprocess.run(["pngquant", "--strip", "--force", "--ext=.png", "64", file], check=True)
                print(f"{file.relative_to(Path.cwd())}  {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
