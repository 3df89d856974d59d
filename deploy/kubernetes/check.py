#!/usr/bin/env python3
"""What kubectl would not say before it is too late: whether the objects here mean each other."""

import pathlib
import sys

import yaml

here = pathlib.Path(__file__).parent
files = {file.name: list(yaml.safe_load_all(file.read_text())) for file in here.glob("*.yaml")}
kustomization = files.pop("kustomization.yaml")[0]
objects = [thing for documents in files.values() for thing in documents]
faults = []


def expect(fact, words):
    if not fact:
        faults.append(words)


def named(kind, name):
    return [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]


expect(sorted(kustomization["resources"]) == sorted(files), "kustomization.yaml does not list every file")
for thing in objects:
    name = f"{thing['kind']} {thing['metadata']['name']}"
    expect(thing.get("apiVersion"), f"{name} has no apiVersion")
    expect(len(named(thing["kind"], thing["metadata"]["name"])) == 1, f"{name} is there twice")

sets = [o for o in objects if o["kind"] in ("StatefulSet", "Deployment")]
pods = [o["spec"]["template"]["metadata"]["labels"] for o in sets]
selects = lambda selector, labels: selector.items() <= labels.items()
for thing in sets:
    name, spec = f"{thing['kind']} {thing['metadata']['name']}", thing["spec"]
    template = spec["template"]
    expect(selects(spec["selector"]["matchLabels"], template["metadata"]["labels"]), f"{name} selects other pods")
    volumes = {v["name"] for v in template["spec"].get("volumes", [])}
    volumes |= {v["metadata"]["name"] for v in spec.get("volumeClaimTemplates", [])}
    for container in template["spec"]["containers"]:
        ports = {p["name"] for p in container["ports"]}
        for probe in ("livenessProbe", "readinessProbe"):
            expect(container.get(probe, {}).get("httpGet", {}).get("port") in ports, f"{name} has no {probe}")
        keys = {v["name"] for v in template["spec"].get("volumes", []) if "secret" in v}
        places = {m["mountPath"] for m in container["volumeMounts"] if m["name"] in keys}
        identity = named("ConfigMap", "settings")[0]["data"].get("DML_IDENTITY", "")
        expect(not identity or str(pathlib.PurePosixPath(identity).parent) in places, f"{name} has no key at {identity}")
        for mount in container["volumeMounts"]:
            expect(mount["name"] in volumes, f"{name} mounts the unknown volume {mount['name']}")
        for source in container["envFrom"]:
            expect(named("ConfigMap", source["configMapRef"]["name"]), f"{name} has unknown settings")
    if thing["kind"] == "StatefulSet":
        service = named("Service", spec["serviceName"])
        expect(service and service[0]["spec"]["clusterIP"] == "None", f"{name} has no headless service")
for thing in objects:
    name, spec = f"{thing['kind']} {thing['metadata']['name']}", thing.get("spec", {})
    if thing["kind"] == "Service":
        expect(any(selects(spec["selector"], labels) for labels in pods), f"{name} selects no pods")
    if thing["kind"] == "PodDisruptionBudget":
        expect(any(selects(spec["selector"]["matchLabels"], labels) for labels in pods), f"{name} selects no pods")
    if thing["kind"] == "HorizontalPodAutoscaler":
        target = spec["scaleTargetRef"]
        expect(named(target["kind"], target["name"]), f"{name} scales nothing")
        expect(all("replicas" not in o["spec"] for o in named(target["kind"], target["name"])), f"{name} is not alone")

sys.exit("\n".join(faults) or 0)
