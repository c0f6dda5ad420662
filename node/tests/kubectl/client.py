"""The Python client of Kubernetes against a KubeBus cloud: client.py URL MANIFESTS."""

import sys
import threading

import yaml
from kubernetes import client, watch

configuration = client.Configuration()
configuration.host = sys.argv[1]
api = client.ApiClient(configuration)
custom = client.CustomObjectsApi(api)
core = client.CoreV1Api(api)

with open(sys.argv[2], encoding="utf-8") as file:
    manifests = list(yaml.safe_load_all(file))


def place(kind):
    """Group, version and plural of a kind, as discovery says."""
    for group in client.ApisApi(api).get_api_versions().groups:
        version = group.preferred_version.version
        resources = custom.get_api_resources(group.name, version).resources
        for resource in resources:
            if resource.kind == kind and "/" not in resource.name:
                return group.name, version, resource.name
    raise LookupError(kind)


for manifest in manifests:
    group, version, plural = place(manifest["kind"])
    where = {"group": group, "version": version, "namespace": "default", "plural": plural}
    name = manifest["metadata"]["name"]
    made = custom.create_namespaced_custom_object(body=manifest, **where)
    assert made["metadata"]["uid"], made
    listed = custom.list_namespaced_custom_object(**where)
    assert [item["metadata"]["name"] for item in listed["items"]] == [name], listed
    patched = custom.patch_namespaced_custom_object(
        name=name, body={"metadata": {"labels": {"made-by": "python"}}}, **where
    )
    assert patched["metadata"]["labels"] == {"made-by": "python"}, patched
    made["metadata"]["labels"] = {"made-by": "somebody-else"}
    try:
        custom.replace_namespaced_custom_object(name=name, body=made, **where)
        raise AssertionError("an older version is a conflict")
    except client.ApiException as error:
        assert (error.status, error.reason) == (409, "Conflict"), error

group, version, plural = place("Device")
where = {"group": group, "version": version, "namespace": "default", "plural": plural}
begin = custom.list_namespaced_custom_object(**where)["metadata"]["resourceVersion"]
seen = []


def look():
    """What a watch says until the device is gone."""
    looking = watch.Watch()
    stream = looking.stream(
        custom.list_namespaced_custom_object, resource_version=begin, timeout_seconds=30, **where
    )
    for event in stream:
        seen.append((event["type"], event["object"]["metadata"]["name"]))
        if event["type"] == "DELETED":
            looking.stop()


watcher = threading.Thread(target=look)
watcher.start()
wish = [{"op": "add", "path": "/spec/properties/0/desired", "value": {"value": "40"}}]
device = custom.patch_namespaced_custom_object(
    name="valve-1", body=wish, _content_type="application/json-patch+json", **where
)
assert device["spec"]["properties"][0]["desired"] == {"value": "40"}, device
custom.delete_namespaced_custom_object(name="valve-1", **where)
watcher.join(timeout=60)
assert seen and seen[-1] == ("DELETED", "valve-1"), seen
assert set(seen[:-1]) <= {("MODIFIED", "valve-1")}, seen
try:
    custom.get_namespaced_custom_object(name="valve-1", **where)
    raise AssertionError("it is gone")
except client.ApiException as error:
    assert error.status == 404, error

spaces = [space.metadata.name for space in core.list_namespace().items]
assert "default" in spaces, spaces
core.list_namespaced_event("default")
print("all held")
