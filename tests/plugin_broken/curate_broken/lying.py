from dataclasses import replace

from curate.exports import Made, PartsOnly, write_lines


class EXPORTER(PartsOnly):
    def part(self, rows, folder):
        part = write_lines(folder / f"{rows.index}.jsonl", [{"row": 1}])
        return Made((replace(part, sha256="0" * 64),), 1)
