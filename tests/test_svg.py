"""Charts: well-formed, and in the page's own colours."""

import re
import xml.etree.ElementTree as ET

from leancnn.svg import Series, interval_chart, line_chart, point_chart
from tests.report_pages import HOSTILE


def test_charts_are_well_formed_and_in_the_pages_colours():
    series = [Series(word, [1, 2], [3, 4], [(0.5, 0.2), (0.1, 0.1)]) for word in HOSTILE]
    charts = [
        line_chart("label", series, "x", "y"),
        point_chart("label", series, "x", "y", log_x=True),
        interval_chart("label", HOSTILE, series, "x", log=True),
    ]
    for chart in charts:
        root = ET.fromstring(chart)
        assert root.tag == "svg"
        words = " ".join(root.itertext())
        assert "<script>" in words
        assert "var(--c0)" in chart
        assert not re.search("#0[123]00", chart)
        assert "DejaVu" not in chart
