from curate.exports import PartsOnly


class EXPORTER(PartsOnly):
    def part(self, rows, folder):
        return rows.table["no such column"]
