"""Creates a container in an Azure Blob Storage emulator. Arguments: URL, container, account, key."""

import base64
import datetime
import hashlib
import hmac
import sys
import urllib.request

url, container, account, key = sys.argv[1:]
now = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
version = "2021-08-06"
signed = (
    "PUT" + "\n" * 12 + f"x-ms-date:{now}\nx-ms-version:{version}\n/{account}/{account}/{container}\nrestype:container"
)
signature = base64.b64encode(hmac.new(base64.b64decode(key), signed.encode(), hashlib.sha256).digest()).decode()
request = urllib.request.Request(
    f"{url}/{account}/{container}?restype=container",
    method="PUT",
    headers={"x-ms-date": now, "x-ms-version": version, "Authorization": f"SharedKey {account}:{signature}"},
)
urllib.request.urlopen(request).close()
