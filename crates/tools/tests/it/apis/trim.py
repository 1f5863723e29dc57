"""Cuts the published descriptions of APIs down to the operations that the tools call, in one form for all vendors.

    python3 trim.py kubernetes DEFINITIONS.json > kubernetes.json   # PyPI: kubernetes-validate, v1.37.0-local/_definitions.json
    python3 trim.py github api.github.com.json  > github.json       # npm: @octokit/openapi
    python3 trim.py google run.v2.json compute.v1.json container.v1.json > gcp.json   # Google's discovery files
    python3 trim.py beacon beacon-APIs/ > beacon.json               # ethereum/beacon-APIs

Descriptions and examples go, schemas stay as published; `nullable` becomes JSON Schema's null type. Kubernetes'
paths are those that its generated clients call, since the definitions come without paths.
"""

import json
import os
import sys

NAMESPACED = "/namespaces/{namespace}"
APPS, CORE, POLICY = "/apis/apps/v1", "/api/v1", "/apis/policy/v1"
PATCH = {"type": "array", "items": {"type": "object", "required": ["op", "path"], "additionalProperties": False,
         "properties": {"op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
                        "path": {"type": "string"}, "from": {"type": "string"}, "value": {}}}}


def kubernetes(definitions_file):
    definitions = json.load(open(definitions_file))["$defs"]
    apps, core = "io.k8s.api.apps.v1.", "io.k8s.api.core.v1."
    status = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
    options = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
    write = ["dryRun", "fieldManager", "fieldValidation", "pretty", "force"]
    listing = ["labelSelector", "fieldSelector", "limit", "continue", "pretty"]
    operations = []

    def add(name, method, path, response, query=(), request=None, media="application/json", statuses=("200",)):
        schemas = {code: ref(response) for code in statuses}
        schemas.update({code: ref(status) for code in ["400", "401", "403", "404", "409", "422", "429", "500"]})
        operations.append({"id": name, "method": method, "path": path, "query": list(query), "request": request,
                           "media": media, "responses": schemas})

    for kind in ["Deployment", "StatefulSet", "DaemonSet"]:
        path = f"{APPS}{NAMESPACED}/{kind.lower()}s/{{name}}"
        add(f"read{kind}", "GET", path, apps + kind, ["pretty"])
        add(f"patch{kind}", "PATCH", path, apps + kind, write, PATCH, "application/json-patch+json")
    add("listReplicaSet", "GET", f"{APPS}{NAMESPACED}/replicasets", apps + "ReplicaSetList", listing)
    add("listPod", "GET", f"{CORE}{NAMESPACED}/pods", core + "PodList", listing)
    add("listPodOfNode", "GET", f"{CORE}/pods", core + "PodList", listing)
    add("readPod", "GET", f"{CORE}{NAMESPACED}/pods/{{name}}", core + "Pod", ["pretty"])
    add("deletePod", "DELETE", f"{CORE}{NAMESPACED}/pods/{{name}}", core + "Pod", ["dryRun", "gracePeriodSeconds"],
        ref(options), "")
    add("evictPod", "POST", f"{CORE}{NAMESPACED}/pods/{{name}}/eviction", status, ["dryRun", "fieldManager"],
        ref("io.k8s.api.policy.v1.Eviction"), "", statuses=("200", "201"))
    add("readNode", "GET", f"{CORE}/nodes/{{name}}", core + "Node", ["pretty"])
    add("patchNode", "PATCH", f"{CORE}/nodes/{{name}}", core + "Node", write, PATCH, "application/json-patch+json")
    return operations, definitions


def github(description_file):
    description = json.load(open(description_file))
    repository, actions = "/repos/{owner}/{repo}", "/repos/{owner}/{repo}/actions"
    wanted = [
        ("GET", f"{actions}/runs/{{run_id}}"), ("POST", f"{actions}/runs/{{run_id}}/rerun-failed-jobs"),
        ("GET", f"{actions}/runs/{{run_id}}/jobs"), ("GET", f"{actions}/workflows/{{workflow_id}}"),
        ("PUT", f"{actions}/workflows/{{workflow_id}}/disable"), ("PUT", f"{actions}/workflows/{{workflow_id}}/enable"),
        ("POST", f"{actions}/workflows/{{workflow_id}}/dispatches"),
        ("GET", f"{actions}/workflows/{{workflow_id}}/runs"), ("GET", f"{repository}/issues"),
        ("POST", f"{repository}/issues"), ("GET", f"{repository}/commits/{{ref}}"),
    ]
    operations = []
    for method, path in wanted:
        item = description["paths"][path]
        operation = item[method.lower()]
        parameters = [resolve(description, p) for p in item.get("parameters", []) + operation.get("parameters", [])]
        body = operation.get("requestBody")
        responses = {}
        for code, response in operation["responses"].items():
            content = resolve(description, response).get("content", {})
            responses[code] = next(iter(content.values())).get("schema") if content else None
        for code in ["401", "403", "404", "409", "422", "500"]:
            responses.setdefault(code, ref("basic-error"))
        operations.append({"id": operation["operationId"], "method": method, "path": path,
                           "query": [p["name"] for p in parameters if p["in"] == "query"],
                           "request": body["content"]["application/json"]["schema"] if body else None,
                           "media": "application/json", "responses": responses})
    return operations, description["components"]["schemas"]


GOOGLE = {"run.projects.locations.services.get", "run.projects.locations.services.patch",
          "run.projects.locations.operations.get", "run.projects.locations.services.revisions.get",
          "compute.instances.get", "compute.instances.reset", "compute.zoneOperations.get", "compute.zoneOperations.list",
          "compute.instanceGroupManagers.get", "container.projects.locations.clusters.nodePools.get",
          "container.projects.locations.clusters.nodePools.setSize", "container.projects.locations.operations.get"}


def google(*files):
    operations, definitions = [], {}
    for file in files:
        document = json.load(open(file))
        prefix = document["name"] + "."
        for name, schema in document["schemas"].items():
            definitions[prefix + name] = from_discovery(schema, prefix)

        def visit(resources):
            for resource in resources.values():
                for method in resource.get("methods", {}).values():
                    if method["id"] in GOOGLE:
                        parameters = {**document.get("parameters", {}), **method.get("parameters", {})}
                        answer = from_discovery(method["response"], prefix) if "response" in method else None
                        responses = {"200": answer, **{code: {} for code in ["400", "401", "403", "404", "409", "412", "500"]}}
                        path = "/" + document["servicePath"] + method.get("flatPath", method["path"])
                        request = from_discovery(method["request"], prefix) if "request" in method else None
                        operations.append({"id": method["id"], "method": method["httpMethod"], "path": path,
                                           "query": [n for n, p in parameters.items() if p.get("location") == "query"],
                                           "request": request, "media": "application/json", "responses": responses})
                visit(resource.get("resources", {}))

        visit(document["resources"])
    return operations, definitions


def from_discovery(schema, prefix):
    if isinstance(schema, list):
        return [from_discovery(item, prefix) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if key == "$ref":
            result["$ref"] = "#/definitions/" + prefix + value
        elif key == "type" and value == "any":
            continue
        elif key in ("properties",):
            result[key] = {name: from_discovery(item, prefix) for name, item in value.items()}
        elif key in ("type", "items", "additionalProperties", "enum"):
            result[key] = from_discovery(value, prefix)
    return result


def beacon(folder):
    import yaml
    wanted = {"/eth/v1/beacon/genesis", "/eth/v1/config/spec", "/eth/v1/node/syncing",
              "/eth/v1/validator/duties/attester/{epoch}", "/eth/v1/validator/duties/proposer/{epoch}",
              "/eth/v1/validator/liveness/{epoch}", "/eth/v1/beacon/states/{state_id}/validators"}
    root_file = os.path.join(folder, "beacon-node-oapi.yaml")

    def load(file):
        return yaml.safe_load(open(file))

    def inline(value, file, depth=0):
        if isinstance(value, list):
            return [inline(item, file, depth) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            target, _, pointer = value["$ref"].partition("#")
            path = os.path.normpath(os.path.join(os.path.dirname(file), target)) if target else file
            found = load(path)
            for part in [part for part in pointer.split("/") if part]:
                found = found[part.replace("~1", "/")]
            return inline(found, path, depth + 1)
        return {key: inline(item, file, depth) for key, item in value.items()}

    document, operations = load(root_file), []
    for path in sorted(wanted):
        item = inline(document["paths"][path], root_file)
        for method in ["get", "post"]:
            if method not in item or (path.endswith("validators") and method == "post"):
                continue
            operation = item[method]
            body = operation.get("requestBody")
            responses = {}
            for code, response in operation["responses"].items():
                content = response.get("content", {})
                responses[code] = content["application/json"]["schema"] if "application/json" in content else None
            operations.append({"id": operation["operationId"], "method": method.upper(), "path": path,
                               "query": [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"],
                               "request": body["content"]["application/json"]["schema"] if body else None,
                               "media": "application/json", "responses": responses})
    return operations, {}


def ref(name):
    return {"$ref": "#/definitions/" + name}


def resolve(description, value):
    while "$ref" in value:
        found = description
        for part in value["$ref"].lstrip("#/").split("/"):
            found = found[part]
        value = found
    return value


def clean(schema, in_properties=False):
    """Removes texts, rewrites references and `nullable`."""
    if isinstance(schema, list):
        return [clean(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if in_properties:
        return {name: clean(item) for name, item in schema.items()}
    result = {}
    for key, value in schema.items():
        if key == "$ref":
            result[key] = "#/definitions/" + value.rsplit("/", 1)[-1]
        elif key == "properties":
            result[key] = clean(value, True)
        elif key in ("description", "title", "example", "examples", "externalDocs", "format", "default", "deprecated",
                     "nullable", "discriminator", "readOnly") or key.startswith("x-"):
            continue
        elif key in ("enum", "required", "const"):
            result[key] = value
        else:
            result[key] = clean(value)
    if schema.get("nullable") is True:
        if "enum" in result and None not in result["enum"]:
            result["enum"] = result["enum"] + [None]
        return {"anyOf": [result, {"type": "null"}]}
    return result


def closure(operations, definitions):
    found, queue = {}, [operations]
    while queue:
        value = queue.pop()
        if isinstance(value, list):
            queue.extend(value)
        elif isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                name = value["$ref"].rsplit("/", 1)[-1]
                if name not in found:
                    found[name] = clean(definitions[name])
                    queue.append(found[name])
            queue.extend(value.values())
    return found


def main():
    kind, *files = sys.argv[1:]
    operations, definitions = {"kubernetes": kubernetes, "github": github, "google": google, "beacon": beacon}[kind](*files)
    for operation in operations:
        operation["request"] = clean(operation["request"])
        operation["responses"] = {code: clean(schema) for code, schema in operation["responses"].items()}
    json.dump({"operations": operations, "definitions": closure(operations, definitions)}, sys.stdout, sort_keys=True,
              separators=(",", ":"))
    print()


main()
