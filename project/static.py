"""Static files straight from the installed apps: nothing to collect, nothing from elsewhere."""

from collections.abc import Sequence

from django.contrib.staticfiles.finders import AppDirectoriesFinder
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import ASGIApp, Scope

CACHE = "public, max-age=300"


class AppStaticFiles(StaticFiles):
    """Serves the `static` folders of these apps, the first that has a file wins."""

    def __init__(self, folders: Sequence[str]) -> None:
        super().__init__()
        self.all_directories = list[PathLike](folders)

    def get_path(self, scope: Scope) -> str:
        return str(super().get_path({**scope, "path": scope["path"].removeprefix("/static")}))

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:  # no framework stands around this app to answer it
            return PlainTextResponse(error.detail, error.status_code)
        response.headers["cache-control"] = CACHE
        response.headers["x-content-type-options"] = "nosniff"
        return response


def static_files() -> ASGIApp:
    """The static files of all installed apps, below `/static/`."""
    finder = AppDirectoriesFinder()
    return AppStaticFiles([str(finder.storages[app].location) for app in finder.apps])
