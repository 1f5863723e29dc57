"""Uses Google's official client against a server; its methods come from the published discovery files."""

import sys

from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build

url, token = sys.argv[1:]


def api(name, version, path=""):
    options = {"api_endpoint": url + path}
    return build(name, version, credentials=Credentials(token), client_options=options, cache_discovery=False)


run = api("run", "v2").projects().locations().services()
name = "projects/p/locations/europe-west1/services/cart"
service = run.get(name=name).execute()
assert service["traffic"][0]["percent"] == 100, service
assert run.revisions().get(name=name + "/revisions/cart-1").execute()["conditions"][0]["type"] == "Ready"
traffic = [{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": "cart-1", "percent": 100}]
body = {"name": name, "etag": service["etag"], "traffic": traffic, "annotations": {}}
assert run.patch(name=name, updateMask="traffic,annotations", body=body).execute()["name"]
assert run.get(name=name).execute()["traffic"] == traffic

compute = api("compute", "v1", "/compute/v1/")
place = {"project": "p", "zone": "europe-west1-b"}
assert compute.instances().get(instance="db-1", **place).execute()["status"] == "RUNNING"
request = "00000000-0000-4000-8000-000000000001"
assert compute.instances().reset(instance="db-1", requestId=request, **place).execute()["clientOperationId"] == request
listed = compute.zoneOperations().list(filter=f'clientOperationId = "{request}"', **place).execute()
assert [item["status"] for item in listed["items"]] == ["RUNNING"], listed

pools = api("container", "v1").projects().locations().clusters().nodePools()
pool = "projects/p/locations/europe-west1/clusters/shop/nodePools/pool"
assert len(pools.get(name=pool).execute()["instanceGroupUrls"]) == 2
assert pools.setSize(name=pool, body={"nodeCount": 4}).execute()["status"] == "RUNNING"
print("accepted")
