"""Pushes models and pulls them, as run.sh has prepared it, and compares with what boto3 sees in the stores."""

import json
import os
import subprocess
import sys

import boto3

dml, *endpoints = sys.argv[1:]
training = "our birds, 2026 #1"
environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DML_"))}
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


def run(expected, *arguments, **variables):
    told = subprocess.run([dml, *arguments], env=environment | variables, capture_output=True, text=True)
    assert told.returncode == expected, (arguments, told)
    assert variables["AWS_SECRET_ACCESS_KEY"] not in told.stdout + told.stderr, "a secret is told"
    return told.stdout if expected == 0 else told.stderr


for endpoint in endpoints:
    store = {"endpoint_url": endpoint, "region_name": "us-east-1", "verify": "ca.pem"}
    nobody = store | {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}
    # Four requests: see run.sh.
    boto3.client("s3", **nobody).create_bucket(Bucket="models")
    users = boto3.client("iam", **nobody)
    users.create_user(UserName="ann")
    key = users.create_access_key(UserName="ann")["AccessKey"]
    users.put_user_policy(UserName="ann", PolicyName="all", PolicyDocument=json.dumps(policy))
    ann = store | {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    s3 = boto3.client("s3", **ann)
    known = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "SSL_CERT_FILE": "ca.pem",
    }

    # Keys that want care when they are signed.
    prefix = "zoo ü/a+b=c&d (1)"
    to = f"s3://models/{prefix}"
    pushed = json.loads(run(0, "model", "push", training, to, "--all", "--json", **known))
    assert (pushed["files_sent"], pushed["files_there"]) == (7, 0), pushed
    keys = [thing["Key"] for thing in s3.list_objects_v2(Bucket="models")["Contents"]]
    assert len(keys) == 7 and all(name.startswith(f"{prefix}/{training}/") for name in keys), keys
    index = json.loads(s3.get_object(Bucket="models", Key=f"{prefix}/{training}/index.json")["Body"].read())
    best = f"{prefix}/{training}/{index['models'][0]['path']}"
    kept = s3.get_object(Bucket="models", Key=best)
    assert kept["Metadata"] == {"blake3": index["models"][0]["digest"]}, kept
    whole = kept["Body"].read()

    again = json.loads(run(0, "model", "push", training, to, "--all", "--json", **known))
    assert (again["files_sent"], again["files_there"]) == (0, 7), again
    run(0, "model", "pull", f"{to}/{training}", "-o", "best.dml", **known)
    run(0, "model", "download", training, "-o", "own.dml", **known)
    with open("best.dml", "rb") as pulled, open("own.dml", "rb") as own:
        assert pulled.read() == own.read() == whole
    os.remove("best.dml")

    s3.put_object(Bucket="models", Key=best, Body=whole[:-1])
    assert "not the model that was pushed" in run(4, "model", "pull", f"{to}/{training}", "-o", "best.dml", **known)
    assert not [name for name in os.listdir() if name.startswith("best.dml")]
    # What was replaced is put right.
    mended = json.loads(run(0, "model", "push", training, to, "--json", **known))
    assert mended["files_sent"] == 1, mended
    run(0, "model", "pull", f"{to}/{training}/{index['models'][0]['name']}", "-o", "best.dml", **known)
    os.remove("best.dml")

    assert "no bucket 'other'" in run(3, "model", "push", training, "s3://other", **known)
    wrong = known | {"AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    assert "AWS_SECRET_ACCESS_KEY" in run(1, "model", "push", training, to, **wrong)
    assert "AWS_ACCESS_KEY_ID" in run(1, "model", "pull", to, **known | {"AWS_ACCESS_KEY_ID": "bob"})
    dead = known | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    assert "does not answer" in run(5, "model", "pull", to, **dead)
    if endpoint.startswith("https"):
        stranger = known | {"SSL_CERT_FILE": "store.pem"}
        assert "certificate" in run(5, "model", "pull", to, **stranger)
        open_door = known | {"AWS_ENDPOINT_URL": endpoint.replace("https", "http")}
        run(5, "model", "pull", to, **open_door)
    print(f"{endpoint}: 7 files pushed, pulled, damaged, mended; blake3 {index['models'][0]['digest'][:12]}")
