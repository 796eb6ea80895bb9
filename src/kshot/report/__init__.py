"""A report that is one HTML file: what a learner answered, how it learned, how good it is. The extra ``report``."""

from kshot.report.episode import drawn_episode as drawn_episode
from kshot.report.figures import Panel as Panel
from kshot.report.figures import learning_curve as learning_curve
from kshot.report.figures import wave_figure as wave_figure
from kshot.report.page import Section as Section
from kshot.report.page import results_table as results_table
from kshot.report.page import write_report as write_report
