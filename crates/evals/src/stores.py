"""Makes a container in an emulator of Azure's blobs, with the account and the key that every emulator has."""

import base64
import datetime
import hashlib
import hmac
import sys
import urllib.request

url, container = sys.argv[1:]
account = "devstoreaccount1"
key = base64.b64decode("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")
now = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
version = "2021-08-06"
signed = (
    "PUT" + "\n" * 12 + f"x-ms-date:{now}\nx-ms-version:{version}\n/{account}/{account}/{container}\nrestype:container"
)
signature = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).decode()
request = urllib.request.Request(
    f"{url}/{account}/{container}?restype=container",
    method="PUT",
    headers={"x-ms-date": now, "x-ms-version": version, "Authorization": f"SharedKey {account}:{signature}"},
)
urllib.request.urlopen(request).close()
