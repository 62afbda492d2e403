from aligned.cli import run

run()
