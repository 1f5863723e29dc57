"""Uses the official client of Kubernetes against a server: what the server answers must fit the client's models."""

import sys

from kubernetes import client

configuration = client.Configuration(host=sys.argv[1])
configuration.api_key = {"authorization": "Bearer " + sys.argv[2]}
api = client.ApiClient(configuration)
apps, core = client.AppsV1Api(api), client.CoreV1Api(api)

deployment = apps.read_namespaced_deployment("cart", "shop")
assert deployment.spec.template.spec.containers[0].image == "shop:2", deployment
assert deployment.status.available_replicas == 3, deployment.status
sets = apps.list_namespaced_replica_set("shop").items
assert sorted(s.metadata.annotations["deployment.kubernetes.io/revision"] for s in sets) == ["1", "2"], sets

patch = [{"op": "replace", "path": "/spec/replicas", "value": 4}]
dry = apps.patch_namespaced_deployment("cart", "shop", patch, dry_run="All", field_manager="test")
assert dry.spec.replicas == 4 and apps.read_namespaced_deployment("cart", "shop").spec.replicas == 3
stale = patch + [{"op": "replace", "path": "/metadata/resourceVersion", "value": "999"}]
try:
    apps.patch_namespaced_deployment("cart", "shop", stale)
    raise AssertionError("a stale version is accepted")
except client.ApiException as error:
    assert error.status == 409, error
assert apps.patch_namespaced_deployment("cart", "shop", patch).spec.replicas == 4
assert apps.read_namespaced_stateful_set("queue", "shop").spec.service_name == "queue"

assert len(core.list_namespaced_pod("shop").items) == 3
assert core.list_pod_for_all_namespaces(field_selector="spec.nodeName=node-a").items[0].spec.node_name == "node-a"
eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="cart-2-0", namespace="shop"))
core.create_namespaced_pod_eviction("cart-2-0", "shop", eviction)
options = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
try:
    core.delete_namespaced_pod("cart-2-1", "shop", body=options)
    raise AssertionError("another pod is deleted")
except client.ApiException as error:
    assert error.status == 409, error
assert core.patch_node("node-a", [{"op": "add", "path": "/spec/unschedulable", "value": True}]).spec.unschedulable
print("accepted")
