"""An object store that checks signatures: moto, with IAM's rules in force. `setup` prints a key that may only put
objects; `read` prints every version of every object, one JSON document a line."""

import json
import sys
import urllib.request

import boto3

URL, COMMAND = sys.argv[1], sys.argv[2]


def enforce(requests):
    # As text: a form's body would be parsed away.
    headers = {"Content-Type": "text/plain"}
    address = f"{URL}/moto-api/reset-auth"
    urllib.request.urlopen(urllib.request.Request(address, data=requests.encode(), headers=headers, method="POST"))


def client(service):
    return boto3.client(
        service, endpoint_url=URL, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


if COMMAND == "setup":
    client("s3").create_bucket(Bucket="heads")
    client("s3").put_bucket_versioning(Bucket="heads", VersioningConfiguration={"Status": "Enabled"})
    iam = client("iam")
    iam.create_user(UserName="wardroom")
    statement = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::heads/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="wardroom", PolicyName="put", PolicyDocument=document)
    key = iam.create_access_key(UserName="wardroom")["AccessKey"]
    enforce("0")
    print(json.dumps({"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}))
else:
    enforce("inf")
    s3 = client("s3")
    for version in s3.list_object_versions(Bucket="heads").get("Versions", []):
        body = s3.get_object(Bucket="heads", Key=version["Key"], VersionId=version["VersionId"])["Body"].read()
        print(json.dumps({"key": version["Key"], "version": version["VersionId"], "head": json.loads(body)}))
