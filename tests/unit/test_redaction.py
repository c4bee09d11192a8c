"""No secret leaves the process, in whatever spelling; and what is no secret stays readable."""

from __future__ import annotations

import base64
import json
import string
from datetime import timedelta
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bridge_worker.security import error_text, redaction
from bridge_worker.security.error_text import clean, sentence
from bridge_worker.security.redaction import REDACTED, Redactor

KNOWN = "p@ss/w+rd \"quoted\" \\ 'ü' 日本"
NO_SECRETS = Redactor({})  # knows no value

# ---- values that it was given ------------------------------------------------------------------------------------------------


def base64_forms(secret: str) -> list[str]:
    """What stands for the secret in base64, after none, one and two other bytes, whatever comes behind."""
    forms = []
    for before in range(3):
        ends = [base64.b64encode(b"u" * before + secret.encode() + bytes([byte]) * 3).decode() for byte in (0, 255)]
        same = next(i for i, (one, other) in enumerate(zip(*ends, strict=True)) if one != other)
        forms.append(ends[0][(0, 2, 3)[before] : same])
    return [variant for form in forms for variant in (form, form.translate(str.maketrans("+/", "-_")))]


def encodings(secret: str) -> list[str]:
    plain = [secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(json.dumps(secret))[3:-3]]
    return [*plain, repr(secret)[1:-1], quote(secret), quote(secret, safe=""), quote_plus(secret), *base64_forms(secret)]


@pytest.mark.parametrize("form", encodings(KNOWN))
def test_a_known_value_is_masked_in_every_spelling(form: str) -> None:
    redactor = Redactor({})
    redactor.add(KNOWN)
    assert redactor.redact(f"before,{form},behind") == f"before,{REDACTED},behind"


def test_a_known_value_is_masked_within_basic_auth() -> None:
    redactor = Redactor({"PROXY_PASSWORD": "correct-Horse-battery"})
    for user in ("", "u", "us", "use", "user"):
        header = base64.b64encode(f"{user}:correct-Horse-battery".encode()).decode()
        shown = redactor.redact(f"sent {header} to")
        assert REDACTED in shown
        assert all(part not in shown for part in base64_forms("correct-Horse-battery"))


secrets = st.text(min_size=8, max_size=60).filter(lambda text: text.strip() == text)
surroundings = st.one_of(
    st.text(max_size=40), st.sampled_from(["sk-", "Bearer ", "api_key=", "https://u:", "eyJ", "-----BEGIN ", '{"a": "', "\\"])
)


@given(secret=secrets, before=surroundings, behind=surroundings, which=st.integers(0, 20))
@example(secret="sk-abc$defghijk", before="api_key=", behind="", which=0)
def test_no_spelling_of_a_known_value_survives(secret: str, before: str, behind: str, which: int) -> None:
    assume(not redaction._WORDS.fullmatch(secret) and secret not in REDACTED)
    redactor = Redactor({})
    redactor.add(secret)
    forms = encodings(secret)
    shown = redactor.redact(before + forms[which % len(forms)] + behind)
    kept = shown.replace(REDACTED, "\0")  # what the mask itself spells is not the secret
    assert not [form for form in forms if form in kept]


@given(secret=secrets, before=st.text(max_size=3000), behind=st.text(max_size=3000))
def test_no_part_of_a_known_value_is_left_by_the_cut(secret: str, before: str, behind: str) -> None:
    assume(not redaction._WORDS.fullmatch(secret) and secret not in REDACTED)
    redactor = Redactor({})
    redactor.add(secret)
    ours = f'{REDACTED} [path] an HTML page "" no reason was given'
    honest = [redactor.redact(text) for text in (before, behind)] + [clean(text, redactor, 9000) for text in (before, behind)]
    assume(not any(secret[:6] in text for text in [*honest, ours]))  # white space is folded, which may spell it again
    assert secret[:6] not in clean(before + secret + behind, redactor, 2048)


def test_a_secret_that_a_long_text_is_cut_in_is_not_half_shown() -> None:
    redactor = Redactor({"SOME_KEY": "a-key-1234567890-abcdefghijklmnop"})
    for shift in range(40):
        text = " " * (error_text.MAX_TEXT - shift) + "a-key-1234567890-abcdefghijklmnop" + "x" * 9
        assert clean(text, redactor, 2048) == "no reason was given"


# ---- which environment variables and values are secrets ------------------------------------------------------------------------

VALUE = "v4lue-of-it-0123"


@pytest.mark.parametrize(
    "name",
    """OPENAI_API_KEY ANTHROPIC_AUTH_TOKEN AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID AWS_SESSION_TOKEN HF_TOKEN DB_PASSWORD PGPASSWORD
    CLIENT_SECRET LITELLM_MASTER_KEY LITELLM_SALT_KEY VERTEX_CREDENTIALS GOOGLE_APPLICATION_CREDENTIALS OPENAI_API_KEY_2 SENTRY_DSN
    GITHUB_PAT openai_api_key SSH_PASSPHRASE AZURE_CLIENT_SECRET REDIS_PASSWORD AWS_BEARER_TOKEN_BEDROCK""".split(),
)
def test_a_variable_with_the_name_of_a_credential_is_secret(name: str) -> None:
    assert VALUE not in Redactor({name: VALUE}).redact(f"-{VALUE}-")


@pytest.mark.parametrize(
    "name", "PATH HOME KEYBOARD LANG MONKEY_BARS AWS_REGION AWS_PROFILE AWS_CA_BUNDLE SECRET_FILE HOSTNAME".split()
)
def test_another_variable_is_not(name: str) -> None:
    assert Redactor({name: VALUE}).redact(f"-{VALUE}-") == f"-{VALUE}-"


@pytest.mark.parametrize(
    "value", ["", "true", "1234", "sk-1234", "not-needed", "lm-studio", "anything", "EMPTY", "us-east-1", "placeholder", "redacted"]
)
def test_a_value_too_short_or_too_ordinary_is_not_a_secret(value: str) -> None:
    text = (
        "it is true that 1234 of sk-1234 are not-needed, anything else in us-east-1 is a placeholder; lm-studio is EMPTY, redacted"
    )
    assert Redactor({"SOME_KEY": value}).redact(text) == text


def test_the_space_around_a_value_does_not_belong_to_it() -> None:
    assert Redactor({"SOME_KEY": f" {VALUE}\n"}).redact(f"<{VALUE}>") == f"<{REDACTED}>"


# ---- keys that it was never given --------------------------------------------------------------------------------------------

TAIL = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6"
KEYS = [
    f"sk-{TAIL}",
    f"sk-ant-api03-{TAIL}-{TAIL}_x",
    f"sk-proj-{TAIL}",
    f"sk-or-v1-{TAIL}",
    "sk-live*****abcd",
    f"gsk_{TAIL}",
    f"AIzaSy{TAIL}",
    f"xai-{TAIL}",
    f"hf_{TAIL}",
    f"pplx-{TAIL}",
    f"nvapi-{TAIL}",
    f"r8_{TAIL}",
    f"ghp_{TAIL}",
    f"github_pat_{TAIL}_{TAIL}",
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    f"ya29.{TAIL}",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    f"-----BEGIN PRIVATE KEY-----\n{TAIL}\n{TAIL}\n-----END PRIVATE KEY-----",
    f"-----BEGIN RSA PRIVATE KEY-----\\n{TAIL}\\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("key", KEYS)
def test_the_key_of_a_provider_is_known_by_its_shape(key: str) -> None:
    for before, behind in (("", ""), ("key ", " is wrong"), ('"', '"'), ("=", "&a=b"), ("(", ").")):
        assert NO_SECRETS.redact(before + key + behind) == before + REDACTED + behind


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Authorization: Bearer {TAIL}", f"Authorization: Bearer {REDACTED}"),
        ("Authorization: Basic dXNlcjpwYXNzMTIz, x", f"Authorization: Basic {REDACTED}, x"),
        ("authorization: Token-abcdef12", f"authorization: {REDACTED}"),
        ("{'x-api-key': 'abcdef123456', 'n': 1}", f"{{'x-api-key': '{REDACTED}', 'n': 1}}"),
        ('{"x-goog-api-key": "abcdef123456"}', f'{{"x-goog-api-key": "{REDACTED}"}}'),
        ('{\\"api_key\\": \\"abcdef123456\\"}', f'{{\\"api_key\\": \\"{REDACTED}\\"}}'),
        ("(b'x-api-key', b'abcdef123456')", f"(b'x-api-key', b'{REDACTED}')"),
        ("api_key='abcdef123456'", f"api_key='{REDACTED}'"),
        ("OPENAI_API_KEY=abcdef123456", f"OPENAI_API_KEY={REDACTED}"),
        ("aws_session_token=abcdef123456/+==", f"aws_session_token={REDACTED}"),
        ("client_secret: abcdef123456", f"client_secret: {REDACTED}"),
        ("password=hunter2hunter2", f"password={REDACTED}"),
        ("sent bearer abcdef123456 to", f"sent bearer {REDACTED} to"),
        ("GET https://host/v1?key=abc&alt=sse", f"GET https://host/v1?key={REDACTED}&alt=sse"),
        ("https://host/v1?a=b&access_token=abcdef123456", f"https://host/v1?a=b&access_token={REDACTED}"),
        ("https://b.s3/x?X-Amz-Signature=ab12&z", f"https://b.s3/x?X-Amz-Signature={REDACTED}&z"),
        ("redis://user:pa55@host:6379/0", f"redis://{REDACTED}host:6379/0"),
        ("redis://:pa55@host:6379/0", f"redis://{REDACTED}host:6379/0"),
        ("Incorrect API key provided: abcd1234efgh. You can", f"Incorrect API key provided: {REDACTED} You can"),
    ],
)
def test_what_a_name_calls_a_credential_is_masked(text: str, shown: str) -> None:
    assert NO_SECRETS.redact(text) == shown
    assert NO_SECRETS.redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "use Bearer authentication with an api_key: string, max_tokens: 4096, prompt_tokens=12345678",
        "set OPENAI_API_KEY or OPENAI_ADMIN_KEY, ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN in the environment",
        '{"code":"invalid_api_key","internal_message":"key is missing","status":401}',
        "the risk-averse task-force of sk-learn calls hf_hub_download and asks disk-usage-of-everything",
        "request_id=req_011CSHoEeqs5C35K2UUqR7Fy model=gpt-4o-2024-08-06 id=chatcmpl-A1b2C3d4E5f6G7h8I9j0",
        "https://host:8080/v1/chat/completions?api-version=2024-10-21#part",
        "2026-01-01T10:00:00.000Z INFO done total_ms=480.5 cost_usd=0.00012",
    ],
)
def test_text_without_a_secret_stays(text: str) -> None:
    assert NO_SECRETS.redact(text) == text


@given(st.text(max_size=300))
def test_masking_twice_is_masking_once(text: str) -> None:
    assert NO_SECRETS.redact(NO_SECRETS.redact(text)) == NO_SECRETS.redact(text)


# ---- error messages ----------------------------------------------------------------------------------------------------------

BODY = '{"type": "error", "error": {"type": "x", "message": "The model is busy."}, "request_id": null}'
BODY_OF_A_PROXY = json.dumps(
    {"error": {"message": f"litellm.X2Error: OpenAIException - {BODY}\n\nLiteLLM: model group 'b' failed", "code": "429"}}
)
MESSAGES = {
    "litellm.RateLimitError: RateLimitError: OpenAIException - Slow down.": "Slow down.",
    "litellm.ContextWindowExceededError: litellm.BadRequestError: OpenAIException - Too long.": "Too long.",
    "litellm.InternalServerError: AnthropicError - Overloaded": "Overloaded",
    "litellm.Timeout: Timeout Error: OpenAIException - litellm.Timeout: It took too long.": "It took too long.",
    "litellm.BadGatewayError: AnthropicException BadGatewayError - Bad gateway": "Bad gateway",
    f"litellm.InternalServerError: AnthropicException - {BODY}. Handle with `litellm.InternalServerError`.": "The model is busy.",
    f"litellm.RateLimitError: litellm.RateLimitError: Vertex_ai_betaException - b'{BODY}'": "The model is busy.",
    f"litellm.BadRequestError: AnthropicException - b'{BODY}'. Handle with `litellm.X`": "The model is busy.",
    "litellm.APIConnectionError: AnthropicException - {'message': \"can't\", 'code': 502}": "can't",
    'GeminiException - [{"error": {"code": 400, "message": "wrong\\nmodel"}}]': "wrong model",
    '{"detail": "Not found"}': "Not found",
    f"litellm.X1Error: Litellm_proxyException - {BODY_OF_A_PROXY}\n\nLiteLLM: model group 'a' failed": "The model is busy.",
    '{"error": "no such model"}': "no such model",
    '{"error": {"code": 5}} is odd': '{"error": {"code": 5}} is odd',
    "a { b": "a { b",
    "'stop_reason'\nTraceback (most recent call last):\n  File \"x.py\"": "'stop_reason'",
    "Bad.\nThis looks like a bug in LiteLLM rather than in your request. https://": "Bad.",
    "Bad.\n\nLiteLLM: model group 'a' failed with the error above. Fallback to c also failed: x": "Bad.",
    "Too long.\nmodel=a. context_window_fallbacks=None. fallbacks=None.\n\nSet 'x'": "Too long.",
    "Bad. LiteLLM Retried: 1 times, LiteLLM Max Retries: 1": "Bad.",
    "x does not support ['a']. To drop these, set `litellm.drop_params=True` or": "x does not support ['a']",
    "Give one, or set `litellm.modify_params = True`": "Give one",
    "litellm.APIError: LiteLLM: provider returned no choices": "provider returned no choices",
    "No deployments. Passed model=u. Deployments={'30e9': {}}": "No deployments.",
    "Bad.\nReceived Model Group=a\nAvailable Model Group Fallbacks=None": "Bad.",
    "litellm.X: \n many   \t spaces\r\n here ": "litellm.X: many spaces here",
    "Traceback (most recent call last):\n": "no reason was given",
    "": "no reason was given",
    "OpenAIException - <!DOCTYPE html>\n<html><head><TITLE> 502 Bad\nGateway </TITLE></head>": 'an HTML page "502 Bad Gateway"',
    "b'<html lang=en><body>x</body></html>'": "an HTML page",
    "Received: '<html><p>x'": "Received: 'an HTML page",
    'can\'t open /home/joe/.aws/credentials, "~/x" and /opt/lib/a.py:3': 'can\'t open [path], "[path]" and [path]:3',
    "in C:\\Users\\John Smith\\app\\x.py and D:\\\\data\\\\y": "in [path] and [path]",
    "see file:///tmp/x.txt and some/lib/python3/site.py": "see [path] and some/lib/python3/site.py",
    "POST /v1/chat, see https://docs.x.ai/home/errors.py": "POST /v1/chat, see https://docs.x.ai/home/errors.py",
    f"OpenAIException - Incorrect API key provided: sk-{TAIL}. See": f"Incorrect API key provided: {REDACTED} See",
    f'{{"error": {{"message": "key \\u0073k-{TAIL} is wrong"}}}}': f"key {REDACTED} is wrong",
}


@pytest.mark.parametrize("text", MESSAGES)
def test_a_message_is_the_providers_own_sentence(text: str) -> None:
    assert clean(text, NO_SECRETS, 2048) == MESSAGES[text]
    assert clean(MESSAGES[text], NO_SECRETS, 2048) == MESSAGES[text]


def test_a_sentence_is_the_same_without_the_masking() -> None:
    assert sentence(f"litellm.X1Error: {{'message': 'sk-{TAIL}'}}") == f"sk-{TAIL}"


@given(text=st.text(max_size=400), max_bytes=st.integers(16, 200))
def test_a_message_keeps_to_its_bytes_and_splits_no_character(text: str, max_bytes: int) -> None:
    message = clean(text, NO_SECRETS, max_bytes)
    assert 0 < len(message.encode()) <= max_bytes
    assert "\n" not in message
    assert "�" not in message or "�" in text


def test_a_truncated_message_is_marked() -> None:
    assert clean("日" * 1000, NO_SECRETS, 2048) == "日" * 681 + "…"


def test_half_a_surrogate_does_not_break_a_message() -> None:
    assert clean("a\ud800b", NO_SECRETS, 2048) == "a?b"


# ---- time --------------------------------------------------------------------------------------------------------------------

PIECES = [
    *(
        "sk-",
        "eyJ",
        "eyJaaaaaaaa-",
        "eyJaaaaaaaa.",
        "Bearer ",
        "api_key=",
        "api_key: ",
        "authorization",
        "'x-api-key', '",
        "github_pat_",
    ),
    *("AKIA", "password", "://", "://a:b", "?key=", "&key", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "-----END ", "AnError: "),
    *(
        "litellm.",
        "/a+",
        "/home/",
        "C:\\a b",
        "\\a a a",
        " /a",
        "{",
        '{"error":',
        "<html",
        "<title",
        "<",
        "b'",
        "Traceback ",
        "aA0",
    ),
    *(" ", "a", "0", "\n", '"', "\\", "=", "@", ":", "-", ".", "日"),
]


@settings(deadline=timedelta(seconds=10))  # a bound, not a measure: linear is 0.05 s here, quadratic would be minutes
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), st.sampled_from(PIECES))
def test_no_text_takes_more_than_linear_time(pieces: list[str], end: str) -> None:
    text = ("".join(pieces) * error_text.MAX_TEXT)[: error_text.MAX_TEXT] + end
    assert len(clean(text, NO_SECRETS, 2048).encode()) <= 2048
    NO_SECRETS.redact(text * 3)


def test_every_letter_can_be_at_every_edge() -> None:
    for letter in string.printable:
        assert NO_SECRETS.redact(letter) == letter


@given(
    st.lists(st.sampled_from([shape for _, shape in redaction._SHAPES]).flatmap(st.from_regex) | st.text(max_size=9), max_size=4)
)
@example(["\N{LATIN SMALL LETTER LONG S}essiontoken=abcdefgh12345678"])
@example(["aP\N{LATIN SMALL LETTER DOTLESS I}_KEY: abcdefgh12345678", "bA\N{LATIN SMALL LETTER LONG S}IC abcdefgh12345678"])
@settings(max_examples=60)
def test_the_search_for_marks_passes_over_no_shape(parts: list[str]) -> None:
    text = " ".join(parts)
    assert NO_SECRETS.redact(text) == redaction._pattern(redaction._MARKS).sub(redaction._mask, text)


@given(st.lists(st.sampled_from(redaction._MARKS) | st.text("-_./: aeikpsty", max_size=4), max_size=6))
def test_the_marks_of_a_text_are_those_that_are_in_it(parts: list[str]) -> None:
    text = "".join(parts)
    assert set(redaction._marks_in(text)) == {mark for mark in redaction._MARKS if mark in text}
