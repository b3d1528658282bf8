"""An exposition, and the part of it that a tenant sees."""

from __future__ import annotations

EXPOSITION = b"""\
# HELP m What it is, of namespace="shop".
# TYPE m counter
# a remark on shop
m{namespace="payments",pod="a"} 1
m{namespace="shop",pod="b"} 2
m{namespace="",pod="c"} 3
m{pod="d"} 4

m{exported_namespace="payments",namespace="shop"} 5
m{namespace="shop",exported_namespace="payments"} 6
m{ namespace = "web" } 7
m{"namespace"="web"} 8 123
m{namespace="we\\b"} 9
m{namespace="Payments"} 10
m{namespace="payments/x"} 11
m{namespace="payments",namespace="shop"} 12
m{namespace="payments" 13
payments 14
{"m",namespace="payments"} 15
m{namespace="bare",a="\\"",b=",namespace=\\"web\\""} 16
m{a="\\",namespace=\\"web",namespace="shop"} 17
{namespace="payments","m"} 18
{namespace="shop" "m"} 19
{"namespace",a="1" namespace="shop",b="payments"} 20
{namespace="payments","m",namespace="shop"} 21
{namespace="payments","m","n"} 22
{namespace="payments"} 23
m{a="1" namespace="web"b="2"} 24
# EOF
"""


SEEN = b"""\
# HELP m What it is, of namespace="shop".
# TYPE m counter
m{namespace="payments",pod="a"} 1

m{ namespace = "web" } 7
m{"namespace"="web"} 8 123
{"m",namespace="payments"} 15
{namespace="payments","m"} 18
m{a="1" namespace="web"b="2"} 24
# EOF
"""
