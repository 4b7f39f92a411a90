"""A program for the sandbox that asks for something beyond its egress policy."""

import urllib.error
import urllib.request

try:
    print(urllib.request.urlopen("http://169.254.169.254/latest/meta-data/").status)
except urllib.error.HTTPError as refused:
    print(refused.code, refused.read().decode().strip())
