"""The markup in a module's html`…` templates, with each ${…} as a hole."""

from __future__ import annotations

from dataclasses import dataclass, field

HOLE = "\0"


@dataclass
class Scanner:
    """Reads JavaScript as far as strings, patterns, comments, templates and braces."""

    source: str
    at: int = 0
    markup: list[str] = field(default_factory=list)

    def code(self, until: str = "") -> None:
        """Read code up to the brace that ends it, or to the end."""
        depth = 0
        while self.at < len(self.source):
            rest = self.source[self.at : self.at + 2]
            char = rest[:1]
            if char == until and depth == 0:
                self.at += 1
                return
            if rest == "//":
                self.at = self._after("\n")
            elif rest == "/*":
                self.at = self._after("*/")
            elif char == "/" and self.source[: self.at].rstrip()[-1:] in "(,=:[!&|?{};":
                self._pattern()
            elif char in "\"'":
                self._string(char)
            elif char == "`":
                is_html = self.source[: self.at].endswith("html")
                text = self._template()
                if is_html:
                    self.markup.append(text)
            else:
                depth += (char == "{") - (char == "}")
                self.at += 1

    def _after(self, end: str) -> int:
        found = self.source.find(end, self.at)
        return len(self.source) if found < 0 else found + len(end)

    def _string(self, quote: str) -> None:
        self.at += 1
        while self.source[self.at] != quote:
            self.at += 2 if self.source[self.at] == "\\" else 1
        self.at += 1

    def _pattern(self) -> None:
        """A regular expression, whose classes may hold slashes."""
        self.at += 1
        in_class = False
        while in_class or self.source[self.at] != "/":
            char = self.source[self.at]
            in_class = (in_class or char == "[") and char != "]"
            self.at += 2 if char == "\\" else 1
        self.at += 1

    def _template(self) -> str:
        self.at += 1
        text = ""
        while self.source[self.at] != "`":
            if self.source.startswith("${", self.at):
                self.at += 2
                self.code("}")
                text += HOLE
            elif self.source[self.at] == "\\":
                text += self.source[self.at : self.at + 2]
                self.at += 2
            else:
                text += self.source[self.at]
                self.at += 1
        self.at += 1
        return text


def markup_of(source: str) -> list[str]:
    scanner = Scanner(source)
    scanner.code()
    return scanner.markup
