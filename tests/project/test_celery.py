"""What runs when."""

from project.celery import app


def test_every_scheduled_job_exists() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)


def test_a_tick_that_nobody_took_expires_before_it_piles_up() -> None:
    assert all(entry["options"]["expires"] <= 3600 for entry in app.conf.beat_schedule.values())
