//! Bytes to messages and back.
//!
//! Owns the line limit and the JSON-RPC envelope. Refuses to know which request a message belongs to.

use std::io;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::{Error, ErrorKind, Result, WireError};
use crate::types::ChatDelta;

const READ_BYTES: usize = 64 * 1024;

/// What [`Lines::next`] found.
#[derive(Debug, PartialEq)]
pub(crate) enum Line<'a> {
    /// One line, without its end. May be empty.
    Whole(&'a [u8]),
    /// A line over the limit. [`Lines::skip`] what is there of it and go on with its rest, or give up.
    TooLong,
    /// The end of the input. What came after the last newline is not a message.
    End,
}

/// Splits a byte stream into lines, and never holds more than one over-long line of it.
pub(crate) struct Lines<R> {
    reader: R,
    limit: usize,
    buffer: Vec<u8>,
    /// Where the unread part of `buffer` begins.
    start: usize,
    /// Up to where it is known to hold no newline.
    searched: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Lines { reader, limit, buffer: Vec::with_capacity(READ_BYTES), start: 0, searched: 0 }
    }

    /// Whether a whole line is buffered, so that [`Lines::next`] does not wait.
    pub(crate) fn has_line(&mut self) -> bool {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let length = unsearched.iter().position(|byte| *byte == b'\n');
        self.searched += length.unwrap_or(unsearched.len());
        length.is_some()
    }

    /// Cancel-safe: what was read stays in the buffer.
    pub(crate) async fn next(&mut self) -> io::Result<Line<'_>> {
        loop {
            if self.has_line() {
                let (start, end) = (self.start, self.searched);
                self.start = end + 1;
                self.searched = self.start;
                return Ok(Line::Whole(self.buffer.get(start..end).unwrap_or_default()));
            }
            if self.searched - self.start > self.limit {
                return Ok(Line::TooLong);
            }
            self.make_room();
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(Line::End);
            }
        }
    }

    /// The buffered part of a line without an end so far.
    pub(crate) fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Forgets what is buffered.
    pub(crate) fn skip(&mut self) {
        self.buffer.clear();
        (self.start, self.searched) = (0, 0);
    }

    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
            if self.buffer.is_empty() {
                self.buffer.shrink_to(READ_BYTES);
            }
        }
        self.buffer.reserve(READ_BYTES);
    }
}

/// One message from the worker.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// The response to the request with this id.
    Response { id: u64, outcome: Result<Box<RawValue>> },
    /// An error without an id: the worker could not read the request.
    Unattributed(Error),
    /// A piece of a streamed response.
    Delta { id: u64, seq: u64, delta: ChatDelta },
    /// LiteLLM is warm.
    Ready,
    /// A request of the worker's. `id` is JSON.
    Request { id: String, method: String, params: String },
    /// The worker has cancelled its request with this id.
    Cancelled { id: String },
    /// A message that is ignored: a newer worker's notification, or the response to another client.
    Other,
}

/// A single pass over the line; what is inside is parsed once its type is known.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<WireError>,
}

/// `"result": null` is a result.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct DeltaParams {
    #[serde(rename = "requestId")]
    request_id: u64,
    seq: u64,
    delta: ChatDelta,
}

#[derive(Deserialize)]
struct CancelledParams {
    #[serde(rename = "requestId")]
    request_id: Box<RawValue>,
}

/// Reads one line. `Err` is for what no omni-bridge writes.
pub(crate) fn decode(line: &[u8]) -> std::result::Result<Incoming, serde_json::Error> {
    decode_clean(line).or_else(|error| {
        let cleaned = std::str::from_utf8(line).ok().and_then(without_lone_surrogates);
        cleaned.map_or(Err(error), |line| decode_clean(line.as_bytes()))
    })
}

fn decode_clean(line: &[u8]) -> std::result::Result<Incoming, serde_json::Error> {
    let envelope: Envelope<'_> = serde_json::from_slice(line)?;
    let id = envelope.id.and_then(|id| serde_json::from_str::<u64>(id.get()).ok());
    if let Some(method) = envelope.method {
        let params = envelope.params.map_or("{}", RawValue::get);
        return Ok(match method.get() {
            r#""notifications/chat/delta""# => {
                let DeltaParams { request_id, seq, delta } = serde_json::from_str(params)?;
                Incoming::Delta { id: request_id, seq, delta }
            }
            r#""notifications/ready""# => Incoming::Ready,
            r#""notifications/cancelled""# => {
                let CancelledParams { request_id } = serde_json::from_str(params)?;
                Incoming::Cancelled { id: request_id.get().to_owned() }
            }
            name if envelope.id.is_some_and(|id| id.get() != "null") => Incoming::Request {
                id: envelope.id.map_or_else(String::new, |id| id.get().to_owned()),
                method: serde_json::from_str(name)?,
                params: params.to_owned(),
            },
            _ => Incoming::Other,
        });
    }
    Ok(match (id, envelope.result, envelope.error) {
        (Some(id), _, Some(error)) => Incoming::Response { id, outcome: Err(Error::from_wire(error)) },
        (Some(id), Some(result), None) => Incoming::Response { id, outcome: Ok(result) },
        (Some(id), None, None) => {
            let outcome = Err(Error::new(ErrorKind::Protocol, "the response has neither a result nor an error").sent(true));
            Incoming::Response { id, outcome }
        }
        (None, _, Some(error)) if envelope.id.is_none_or(|id| id.get() == "null") => {
            Incoming::Unattributed(Error::from_wire(error))
        }
        _ => Incoming::Other,
    })
}

#[derive(Serialize)]
struct Request<'a, P: Serialize> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    params: P,
}

/// One line with its newline. Without an id it is a notification.
pub(crate) fn encode<P: Serialize>(id: Option<u64>, method: &str, params: P) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Request { jsonrpc: "2.0", id, method, params })
        .map_err(|error| Error::new(ErrorKind::InvalidRequest, format!("the request can't be written as JSON: {error}")))?;
    if is_too_deep(&line) {
        return Err(Error::new(ErrorKind::InvalidRequest, format!("the request is nested more than {MAX_DEPTH} levels deep")));
    }
    line.push(b'\n');
    Ok(line)
}

/// The request that a line belongs to which can't be decoded: by its members, or by its first characters if it is not even JSON.
pub(crate) fn id_of(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Ids {
        #[serde(default)]
        id: serde_json::Value,
        #[serde(default)]
        params: serde_json::Value,
    }
    if let Ok(Ids { id, params }) = serde_json::from_slice(line) {
        return id.as_u64().or_else(|| params.get("requestId")?.as_u64());
    }
    let head = String::from_utf8_lossy(line.get(..200).unwrap_or(line));
    let rest = ["\"id\":", "\"requestId\":"].iter().find_map(|name| head.split_once(name))?.1.trim_start();
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Few JSON texts have so many brackets that they have to be looked at one by one.
fn is_too_deep(json: &[u8]) -> bool {
    json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_DEPTH && depth(json) > MAX_DEPTH
}

/// How deep arrays and objects are nested in valid JSON.
fn depth(json: &[u8]) -> usize {
    let (mut now, mut most, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true, // only in a string
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// The error for a message that is nested too deeply for the worker has no id, so its call would be unknown.
const MAX_DEPTH: usize = 256;

/// Text from a provider may hold half of a surrogate pair, which the worker passes on as the escape that it came as, and which no
/// Rust string can hold: each becomes U+FFFD. `None` if there is none.
pub(crate) fn without_lone_surrogates(json: &str) -> Option<String> {
    let mut clean = String::with_capacity(json.len());
    let (mut rest, mut found) = (json, false);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        clean.push_str(before);
        let length = match (surrogate(escape), surrogate(escape.get(6..).unwrap_or_default())) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(_), _) => {
                clean.push('\u{FFFD}');
                found = true;
                rest = escape.get(6..).unwrap_or_default();
                continue;
            }
            (None, _) => 2,
        };
        let (whole, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        clean.push_str(whole);
        rest = after;
    }
    clean.push_str(rest);
    found.then_some(clean)
}

/// The value of a `\uXXXX` escape at the beginning, if it is half of a pair.
fn surrogate(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok().filter(|value| (0xD800..=0xDFFF).contains(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn lines(input: &[u8], limit: usize) -> Vec<String> {
        let mut lines = Lines::new(input, limit);
        let mut found = Vec::new();
        loop {
            match lines.next().await.unwrap() {
                Line::Whole(line) => found.push(String::from_utf8(line.to_vec()).unwrap()),
                Line::TooLong => {
                    found.push("too long".into());
                    return found;
                }
                Line::End => return found,
            }
        }
    }

    #[tokio::test]
    async fn lines_end_at_newlines_and_an_unfinished_one_is_none() {
        assert_eq!(lines(b"a\n\nbc\nrest", 10).await, ["a", "", "bc"]);
    }

    #[tokio::test]
    async fn lines_come_out_whole_however_the_bytes_arrive() {
        let (reader, mut writer) = tokio::io::duplex(1);
        let writing = tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut writer, "é1\né2\n".as_bytes()).await });
        let mut lines = Lines::new(reader, 10);
        assert_eq!(lines.next().await.unwrap(), Line::Whole("é1".as_bytes()));
        assert_eq!(lines.next().await.unwrap(), Line::Whole("é2".as_bytes()));
        assert_eq!(lines.next().await.unwrap(), Line::End);
        writing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_kept_forever() {
        let (reader, mut writer) = tokio::io::duplex(1024);
        let writing =
            tokio::spawn(async move { while tokio::io::AsyncWriteExt::write_all(&mut writer, &[b'x'; 512]).await.is_ok() {} });
        let mut lines = Lines::new(reader, 100_000);
        assert_eq!(lines.next().await.unwrap(), Line::TooLong);
        assert!(lines.buffer.capacity() < 400_000, "{}", lines.buffer.capacity());
        drop(lines);
        writing.await.unwrap();
    }

    fn kind(line: &str) -> String {
        match decode(line.as_bytes()) {
            Ok(Incoming::Response { id, outcome: Ok(result) }) => format!("{id} ok {result}"),
            Ok(Incoming::Response { id, outcome: Err(error) }) => format!("{id} {}", error.kind()),
            Ok(Incoming::Unattributed(error)) => format!("unattributed {}", error.kind()),
            Ok(Incoming::Delta { id, seq, delta }) => format!("delta {id} {seq} {}", delta.text()),
            Ok(Incoming::Ready) => "ready".into(),
            Ok(Incoming::Request { id, method, .. }) => format!("{method} as {id}"),
            Ok(Incoming::Cancelled { id }) => format!("cancelled {id}"),
            Ok(Incoming::Other) => "other".into(),
            Err(_) => "unreadable".into(),
        }
    }

    #[test]
    fn each_message_is_told_apart() {
        let cases = [
            (r#"{"jsonrpc":"2.0","id":1,"result":{"a":1}}"#, r#"1 ok {"a":1}"#),
            (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, "1 ok null"),
            (r#"{"id":2,"error":{"code":-32601,"message":"x"},"extra":[]}"#, "2 method_not_found"),
            (r#"{"id":3}"#, "3 protocol"),
            (r#"{"id":null,"error":{"code":-32700,"message":"x"}}"#, "unattributed parse_error"),
            (r#"{"id":"1","error":{"code":-32700,"message":"x"}}"#, "other"),
            (r#"{"id":"1","result":{}}"#, "other"),
            (r#"{"method":"notifications/chat/delta","params":{"requestId":7,"seq":0,"delta":{"content":"hé"}}}"#, "delta 7 0 hé"),
            (r#"{"method":"notifications/chat/delta","params":{"requestId":"7","seq":0,"delta":{}}}"#, "unreadable"),
            (r#"{"method":"notifications/ready","params":{"warmMs":1}}"#, "ready"),
            (r#"{"method":"notifications/news","params":{}}"#, "other"),
            (r#"{"method":5,"params":{}}"#, "other"),
            (r#"{"id":"w:1","method":"credentials/get","params":{}}"#, r#"credentials/get as "w:1""#),
            (r#"{"method":"notifications/cancelled","params":{"requestId":"w:1"}}"#, r#"cancelled "w:1""#),
            ("Provider List: https://", "unreadable"),
            ("[]", "other"),
            ("7", "unreadable"),
            ("\u{0}", "unreadable"),
        ];
        for (line, wanted) in cases {
            assert_eq!(kind(line), wanted, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_not_utf8_is_unreadable_and_no_panic() {
        assert!(decode(b"{\"id\":1,\"result\":\"\xff\"}").is_err());
    }

    #[test]
    fn half_a_surrogate_pair_costs_a_character_not_the_answer() {
        let line = r#"{"method":"notifications/chat/delta","params":{"requestId":7,"seq":0,"delta":{"content":"a\ud83db\u00e9\\ud83d\ud83d\ude00"}}}"#;
        assert_eq!(kind(line), "delta 7 0 a\u{FFFD}bé\\ud83d😀");
        for (json, clean) in [
            (r#""\ud83d""#, Some("\"\u{FFFD}\"")),
            (r#""\uDE00\uD83D\uDE00""#, Some("\"\u{FFFD}\\uD83D\\uDE00\"")),
            (r#""\ud83d\ude00\n""#, None),
            (r#""\\ud83d""#, None),
            (r#""é\u00e9""#, None),
            ("", None),
            ("\\é", None),
            ("\\ud83", None),
        ] {
            assert_eq!(without_lone_surrogates(json).as_deref(), clean, "{json}");
        }
    }

    #[test]
    fn a_request_too_deep_for_the_worker_is_refused_here() {
        let nested = |levels| (0..levels).fold(json!("]]}\"\\"), |inner, _| json!([inner]));
        assert!(encode(None, "n", nested(200)).is_ok());
        assert_eq!(encode(None, "n", nested(300)).unwrap_err().kind(), &ErrorKind::InvalidRequest);
        assert_eq!(depth(br#"{"a":"[[[\"[","b":[{}]}"#), 3);
    }

    #[test]
    fn a_request_is_one_line_whatever_is_in_it() {
        let line = encode(Some(1), "chat", json!({"text": "a\nb\u{2028}"})).unwrap();
        assert_eq!(String::from_utf8(line).unwrap().matches('\n').count(), 1);
        assert_eq!(encode(None, "n", json!({})).unwrap(), b"{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{}}\n");
    }
}
