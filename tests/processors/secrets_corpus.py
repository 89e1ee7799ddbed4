"""Attributes that hold secrets, and attributes that only look so: 150 and more of each.

The tokens are put together of pieces, so that nobody's scanner takes this file for a leak.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import string
from typing import Any, NamedTuple

ALPHABET = string.ascii_letters + string.digits
_numbers = itertools.count()


class Secret(NamedTuple):
    """An attribute, and the piece of its value that nobody may ever read."""

    key: str
    value: Any
    needle: str


def opaque(length: int, alphabet: str = ALPHABET) -> str:
    """Return what looks random, another one each time and the same in each run."""
    seed = hashlib.sha512(str(next(_numbers)).encode()).digest() * (length // 64 + 1)
    return "a1B" + "".join(alphabet[byte % len(alphabet)] for byte in seed)[: length - 3]


def upper(length: int) -> str:
    return opaque(length, string.ascii_uppercase + string.digits).upper()


def hexadecimal(length: int) -> str:
    return hashlib.sha512(str(next(_numbers)).encode()).hexdigest()[:length]


def jwt() -> str:
    def part(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    head, body = part('{"alg":"HS256"}'), part(f'{{"sub":"{opaque(8)}"}}')
    return f"{head}.{body}.{opaque(43)}"


KEYS = """password user.password db.password db_password dbPassword DB_PASSWORD passwd pwd
passphrase passcode secret client_secret clientSecret app.client-secret webhook_secret credentials
authorization proxy-authorization http.request.header.authorization http.request.header.cookie
http.response.header.set-cookie http.request.header.x-api-key http.request.header.x-auth-token
http.request.header.x-csrf-token http.request.header.proxy-authorization api_key apiKey api-key
APIKEY stripe_api_key access_key access_key_id secret_key aws_secret_access_key private_key
signing_key encryption_key session_key shared_key account_key token access_token refresh_token
id_token auth_token session_token github_token slack.bot_token csrf_token bearer jwt session_id
sessionid PHPSESSID JSESSIONID cookie cookies password_hash card_number credit_card cvv ssn
http.request.header.x-csrftoken http.request.header.x-goog-iap-jwt-assertion
http.request.header.x-vault-token user.otp
tracekit.argument.password tracekit.argument.api_key tracekit.argument.token
db.query.parameter.password messaging.header.authorization user.credential new_password
oldPassword smtp.pass_phrase_secret""".split()

TOKENS = [
    *(jwt() for _ in range(4)),
    *(prefix + upper(16) for prefix in ("AK" + "IA", "AS" + "IA")),
    *(f"gh{kind}_" + opaque(36) for kind in "opsur"),
    "github" + "_pat_" + opaque(40),
    "gl" + "pat-" + opaque(20),
    *("xo" + f"x{kind}-" + opaque(30) for kind in "abp"),
    *(f"{kind}k_" + f"{mode}_" + opaque(24) for kind in "sr" for mode in ("live", "test")),
    "wh" + "sec_" + opaque(32),
    "AI" + "za" + opaque(35),
    "ya" + "29." + opaque(40),
    "GOC" + "SPX-" + opaque(28),
    "s" + "k-proj-" + opaque(40),
    "S" + "G." + opaque(22) + "." + opaque(43),
    "np" + "m_" + opaque(36),
    "shp" + "at_" + hexadecimal(32),
    *(f"gl{kind}-" + opaque(20) for kind in ("rt", "dt")),
    "dc" + "kr_pat_" + opaque(27),
    "AT" + "ATT3x" + opaque(180),
    "li" + "n_api_" + opaque(40),
    "ruby" + "gems_" + hexadecimal(48),
    "PM" + "AK-" + hexadecimal(24) + "-" + hexadecimal(34),
    "NR" + "AK-" + upper(27),
    "hv" + "s." + opaque(90),
    "da" + "pi" + hexadecimal(32),
    "AGE-" + "SECRET-KEY-1" + upper(58),
    "sn" + "trys_" + opaque(60),
    "fi" + "gd_" + opaque(40),
    "r" + "8_" + opaque(37),
    "gs" + "k_" + opaque(52),
    "ts" + "key-auth-" + opaque(20),
    "gl" + "sa_" + opaque(32) + "_" + hexadecimal(8),
    "eyJ" + "rIjoi" + opaque(60),
    "sq0" + "atp-" + opaque(22),
    "xkey" + "sib-" + hexadecimal(64),
    "s" + "k.eyJ" + opaque(60) + "." + opaque(22),
]
SENTENCES = ["{}", "refused {} at once", "cannot use '{}'", '{{"seen": "{}"}}']


def _of_keys() -> list[Secret]:
    return [Secret(key, needle := opaque(20), needle) for key in KEYS]


def _of_shapes() -> list[Secret]:
    # The first characters of a token's public prefix say nothing; the needle is its end.
    placed = [(token, SENTENCES[place % 4]) for place, token in enumerate(TOKENS)]
    return [Secret("message", form.format(token), token[-12:]) for token, form in placed]


def _of_urls() -> list[Secret]:
    found = []
    for parameter in (
        *("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Goog-Signature"),
        *("AWSAccessKeyId", "Signature", "sig", "token", "access_token", "api_key", "apikey"),
        *("password", "client_secret", "jwt", "auth", "refresh_token"),
        *("user[password]", "otp", "client_assertion", "SAMLResponse"),
    ):
        needle = opaque(24)
        found.append(Secret("url.full", f"https://h/p?a=1&{parameter}={needle}&b=2", needle))
        needle = opaque(24)
        found.append(Secret("note", f"GET https://h/p?{parameter}={needle} failed", needle))
    for scheme in ("https", "postgresql", "redis", "amqp", "mongodb+srv"):
        needle = opaque(14)
        found.append(Secret("dsn", f"{scheme}://user:{needle}@host:1/db", needle))
    needle = opaque(20)
    return [*found, Secret("url.query", f"token={needle}&a=1", needle)]


def _of_texts() -> list[Secret]:
    forms = [
        "Authorization: Bearer {}",
        "authorization: Basic {}",
        "-H 'Proxy-Authorization: Basic {}'",
        "sent Bearer {} to it",
        "Cookie: a=1; sid={}",
        "Set-Cookie: sid={}; Path=/",
        "login(user='a', password='{}')",
        "password={}",
        "PGPASSWORD: nobody, db_password: {}",
        '{{"client_secret": "{}"}}',
        "api_key={} region=eu",
        "{{'access_token': '{}'}}",
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\n{}",
        '{{"password":"a\\"b{}"}}',
        "password=b'{}'",
        "password = 'two words {}'",
        "password='cut {}",
        "ValueError: password={}",
        "AccountName=a;AccountKey={}==;EndpointSuffix=x",
        "https://hooks.slack.com/services/T0/B0/{}",
        "Command '['mysql', '--password', '{}', 'db']' returned 1",
        "run --api-key {} --verbose",
        "<soap:Body><wsse:Password Type='text'>{}</wsse:Password></soap:Body>",
        "<credentials><apiKey>{}</apiKey></credentials>",
        "Server=db;User Id=sa;Password={};",
        "Endpoint=sb://a/;SharedAccessKey={}=",
        "{{'headers': {{'x-api-key': '{}'}}}}",
        "export GITHUB_TOKEN={}",
    ]
    return [Secret("text", form.format(n := opaque(24)), n) for form in forms]


def _of_containers() -> list[Secret]:
    shapes: list[Any] = [
        lambda n: {"user": "a", "password": n},
        lambda n: {"outer": {"inner": {"api_key": n}}},
        lambda n: [("authorization", n)],
        lambda n: ["a", f"Bearer {n}"],
        lambda n: [{"token": n}],
        lambda n: f"password={n}".encode(),
    ]
    return [Secret("payload", shape(n := opaque(24)), n) for shape in shapes]


def _of_queries() -> list[Secret]:
    forms = [
        "SELECT 1 FROM t WHERE mail = '{}'",
        "INSERT INTO t (a) VALUES ('{}')",
        "ALTER USER amy WITH PASSWORD '{}'",
        "SELECT N'{}'",
        "SELECT 1 /* password={} */",
        "SELECT 1 -- token={}",
    ]
    numbers = [f"UPDATE cards SET pan = {4111111111111111 + place}" for place in range(2)]
    return [
        *(Secret("db.query.text", form.format(n := opaque(16)), n) for form in forms),
        *(Secret("db.statement", query, query[-16:]) for query in numbers),
    ]


SECRETS = [
    *(*_of_keys(), *_of_shapes(), *_of_urls(), *_of_texts(), *_of_containers(), *_of_queries())
]

_WORD_KEYS = """author authors co_author authority session_count session.count session_duration
sessions token_count tokens max_tokens input_tokens gen_ai.usage.input_tokens page_token
next_page_token continuation_token eos_token pad_token next_token sync_token keyboard keyword
monkey primary_key foreign_key cache_key partition_key routing_key public_key sort_key
messaging.kafka.message.key key keys key_count secretary password_length password_reset
password_changed_at passenger passengers compass bypass pass_count passed signal signature_count
design assign_to secret_name token_type auth_type auth.method auth_enabled is_secret_enabled
cookie_count cookie_policy cookie_consent authenticated oauth_flow bearer_format credentials_type
card_type hash hash_count signed sig_count jwt_issuer ssn_required access_level private
api_version api_name apikeys_count tokenizer tokenized basic digest digest_size pwd_policy
session.id user.id enduser.id code.function.name thread.id http.route url.path server.address
http.request.header.accept http.request.header.user-agent http.response.header.content-type
""".split()

_VALUES = [
    "9f661a8c4f0d64dcf193c9ec4856e0f86a1b2c3d",
    "commit 9f661a8 fixed it",
    "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
    "sha256:" + "ab12" * 16,
    "The author of the book",
    "Basic authentication is required",
    "bearer of bad news",
    "token expired",
    "unexpected token: identifier",
    "Unexpected token } in JSON at position 4",
    "password: required",
    "missing password",
    "def login(user: str, password: str) -> bool",
    "password=None",
    "invalid api_key: None",
    "page_token=CAoQAA12345",
    "https://example.org/a?page_token=CAoQAA&author=me&session_count=3",
    "https://example.org/search?q=password+reset&tokens=5",
    "https://example.org/a?key=primary&monkey=1",
    "https://example.org/users/a@b.example/keys",
    "mail me at a@b.example: thanks",
    "signal: SIGTERM",
    "design=modern",
    "sk-learn-pipelines-are-long-names-too",
    "skip_live_test_of_everything_in_here",
    "eyJust a word",
    "xoxo, your friend",
    "SG.1",
    "npm_config_registry=https://registry.example",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "AKIA is a prefix",
    "ghp_short",
    "GET /token/refresh",
    "/auth/login",
    "/password/reset",
    "session count: 5",
    "session_count=5",
    "author=Ann Author",
    "author: 'Ann Author'",
    "authorization required",
    "authorization failed for user 7",
    "a cookie was set",
    "cookie policy: strict",
    "cookies: 5 were sent",
    "key: value",
    "key=user:17:profile",
    "cache_key=user:17",
    "keys=3 hits=2",
    "primary_key: id",
    "max_tokens=4096",
    "input_tokens: 120, output_tokens: 33",
    "tokenizer=cl100k_base",
    "hash=9f661a8c4f0d64dcf193c9ec4856e0f86a1b2c3d",
    "etag: W/\"33a64df551425fcc55e4d42a148795d9f25f89d4\"",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "order 4111-2222 was shipped",
    "2026-01-02T03:04:05.678Z",
    "v1.2.3-rc.1+build.77",
    "postgresql://host:5432/db",
    "redis://cache.internal:6379/0",
    "amqp://broker/vhost",
    "ssh://git@github.example/team/repo.git",
    "passenger=Ann; seat=12A",
    "password: yes",
    "passed=12 failed=0 passing",
    "secretary: Ann",
    "basic plan, digest weekly",
    "Digest of the week",
    "monkey: bananas",
    "signature mismatch: expected 3 arguments",
    "use --password option to set one",
    "usage: shop [--author NAME] [--token-count 5]",
    "--password-file /run/secrets/db --verbose",
    "<author>Ann Author</author>",
    "<token_count>17</token_count><key>user:17</key>",
    "<password>optional</password>",
    "https://example.org/a?code=404&user[name]=amy&otp_enabled=1",
    "assertion failed: total == 17",
    "berlin_office moved to dapi",
    "r8_short lin_short hvs.short gsk_short",
    "the glass, the hotplug and the risk.",
    "pk.eyJ1Ijoic2hvcCJ9.public",
]  # fmt: skip

LOOKALIKES = [
    *((key, f"plain words {place}") for place, key in enumerate(_WORD_KEYS) if key != "key"),
    *(("message", value) for value in _VALUES),
    *(("token", 17), ("gen_ai.usage.token", 120), ("key", "user:17"), ("auth", "basic")),
    *(("password_required", True), ("has_secret", False), ("signature", "f(x, y)")),
    *(("secret", ""), ("password", True), ("sizes", (1, 2, 3)), ("names", ("author", "session"))),
]
