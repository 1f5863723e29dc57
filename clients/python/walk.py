"""Works an incident through with the client that openapi-python-client makes of Wardroom's OpenAPI document.

The plan is rejected, so that the incident is escalated, and a person closes it.
Arguments: the URL of the server, a token of an approver, the id of an incident whose plan awaits an approval.
"""

import sys
import time
from http import HTTPStatus

from wardroom_client import AuthenticatedClient
from wardroom_client.api.access import whoami
from wardroom_client.api.incidents import (
    acknowledge_incident,
    assign_incident,
    close_incident,
    comment_incident,
    get_incident,
    get_incident_history,
    list_incidents,
    reject_plan,
)
from wardroom_client.models import (
    AssignRequest,
    CloseRequest,
    CommentRequest,
    EmptyBody,
    IncidentDetail,
    Problem,
    RejectRequest,
)


def expect(what, answer, status=HTTPStatus.OK):
    """Returns the parsed body of an answer that has the status."""
    if answer.status_code != status or answer.parsed is None:
        raise SystemExit(f"{what}: {answer.status_code} {answer.content!r}")
    return answer.parsed


def history(client, incident):
    """Returns all entries of an incident's history, page by page."""
    entries, cursor = [], None
    while True:
        query = {"limit": 3} if cursor is None else {"limit": 3, "cursor": cursor}
        page = expect("history", get_incident_history.sync_detailed(incident, client=client, **query))
        entries += page.history
        cursor = page.next_
        if cursor is None:
            return entries


def walk(client, incident):
    me = expect("whoami", whoami.sync_detailed(client=client))
    assert "respond" in me.may, me
    page = expect("list", list_incidents.sync_detailed(client=client, state="awaiting_approval", limit=10))
    assert incident in [row.id for row in page.incidents], page
    shown = expect("show", get_incident.sync_detailed(incident, client=client))
    assert isinstance(shown, IncidentDetail) and shown.plan is not None and shown.hypotheses, shown

    expect("acknowledge", acknowledge_incident.sync_detailed(incident, client=client, body=EmptyBody()))
    comment = CommentRequest(text="seen from Python")
    for _ in range(2):
        # The repetition changes nothing.
        answer = comment_incident.sync_detailed(incident, client=client, body=comment, idempotency_key="walk-1")
        expect("comment", answer)
    late = comment_incident.sync_detailed(incident, client=client, body=comment, if_match='"0"')
    problem = expect("late comment", late, HTTPStatus.PRECONDITION_FAILED)
    assert isinstance(problem, Problem) and problem.code == "changed_since", problem
    expect("assign", assign_incident.sync_detailed(incident, client=client, body=AssignRequest(owner=me.principal)))

    rejected = reject_plan.sync_detailed(incident, client=client, body=RejectRequest(reason="planned load test"))
    expect("reject", rejected)
    deadline = time.monotonic() + 20
    while expect("show", get_incident.sync_detailed(incident, client=client)).state != "escalated":
        assert time.monotonic() < deadline, "the incident is not escalated"
        time.sleep(0.1)
    closed = expect("close", close_incident.sync_detailed(incident, client=client, body=CloseRequest(reason="over")))
    assert closed.state == "closed", closed
    again = reject_plan.sync_detailed(incident, client=client, body=RejectRequest())
    problem = expect("reject again", again, HTTPStatus.CONFLICT)
    assert isinstance(problem, Problem) and problem.code == "wrong_state", problem

    shown = expect("show", get_incident.sync_detailed(incident, client=client))
    assert shown.acknowledged_by == shown.owner == me.principal, shown
    assert [comment.text for comment in shown.comments] == ["seen from Python"], shown.comments
    entries = history(client, incident)
    reached = [entry.to for entry in entries if entry.kind == "transition"]
    assert reached[-2:] == ["escalated", "closed"], entries
    assert any(entry.kind == "comment" and entry.by == me.principal for entry in entries), entries
    return len(entries)


if __name__ == "__main__":
    server, credential, incident_id = sys.argv[1:]
    with AuthenticatedClient(base_url=server, token=credential) as connection:
        print(f"walked: {walk(connection, incident_id)} entries of history")
