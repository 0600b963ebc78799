"""One self-contained HTML file about runs, and their steps and requests for Perfetto.

``contents`` is what a folder holds, ``figures`` draws it in the colours of ``theme``, ``page`` puts
all of it together, ``trace`` exports a run.
"""
