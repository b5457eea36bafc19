"""Static files come from the apps, and nothing else does."""

import pytest

from project.static import static_files
from tests.project.asgi import ask

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/static/admin/css/base.css", "text/css"),
        ("/static/tollgate/portal.css", "text/css"),
        ("/static/tollgate/mark.svg", "image/svg+xml"),
    ],
)
async def test_files_of_every_app_are_served(path: str, content_type: str) -> None:
    answer = await ask(static_files(), path)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/static/../settings.py", "/static/../../manage.py", "/static//etc/passwd", "/static/"]
)
async def test_what_lies_outside_is_not(path: str) -> None:
    assert (await ask(static_files(), path)).status == 404
