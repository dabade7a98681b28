"""Where the next page of a list is: a link that stays right while jobs are added."""

from urllib.parse import urlencode

from cryomamba_apiserver.ports.job_store import JobPage, JobStatus


def next_page(path: str, page: JobPage, status: JobStatus | None, limit: int) -> dict[str, str]:
    """Return the `Link` header (RFC 8288) of a page of a list, nothing where it is the last one.

    Offsets count from the newest job and so shift whenever one is added; the next page begins after this one's last.
    """
    if not page.more:
        return {}
    query = {"status": status, "limit": limit, "before": page.jobs[-1].job_id}
    given = urlencode({name: value for name, value in query.items() if value is not None})
    return {"Link": f'<{path}?{given}>; rel="next"'}
