//! HTTP/1.1 over one plain connection, and the logs that go over it.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use serde_json::json;
use sheaf_proto::names::REQUEST_ID_HEADER;

/// No answer takes longer, unless something hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The form that a request has.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    Protobuf,
    Json,
}

/// A record with one attribute, or with none.
pub(crate) struct Record {
    pub(crate) body: String,
    pub(crate) attribute: Option<(&'static str, String)>,
}

/// An answer, whatever it is.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// A text as a part of a path or of a query, whatever is in it.
pub(crate) fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends records as one request, and reads the answer. "Come back" has to say when.
    pub(crate) fn export(&mut self, form: Form, records: &[Record]) -> io::Result<Answer> {
        self.export_as("", form, records)
    }

    /// As [`Connection::export`], under a request id.
    pub(crate) fn export_named(
        &mut self,
        id: &str,
        form: Form,
        records: &[Record],
    ) -> io::Result<Answer> {
        self.export_as(&format!("{REQUEST_ID_HEADER}: {id}\r\n"), form, records)
    }

    fn export_as(&mut self, header: &str, form: Form, records: &[Record]) -> io::Result<Answer> {
        let (media_type, body) = match form {
            Form::Protobuf => ("application/x-protobuf", to_protobuf(records)),
            Form::Json => ("application/json", to_json(records)),
        };
        let mut request = format!(
            "POST /v1/logs HTTP/1.1\r\nHost: node\r\nContent-Type: {media_type}\r\n\
             Content-Length: {}\r\n{header}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        let (answer, retry_after) = self.ask(&request)?;
        // Without the header a sender may drop its data.
        assert!(answer.status != 503 || retry_after >= Some(1), "{answer:?}, {retry_after:?}");
        Ok(answer)
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Answer> {
        let (answer, _) =
            self.ask(format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes())?;
        Ok(answer)
    }

    /// What is at a path, or the bytes from one place to another, included.
    pub(crate) fn read(
        &mut self,
        path: &str,
        range: Option<(usize, usize)>,
    ) -> io::Result<Vec<u8>> {
        let status = if range.is_some() { 206 } else { 200 };
        let (answered, body) = self.fetch(path, range)?;
        assert_eq!(answered, status, "{}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// As [`Connection::read`], with whatever status is answered.
    pub(crate) fn fetch(
        &mut self,
        path: &str,
        range: Option<(usize, usize)>,
    ) -> io::Result<(u16, Vec<u8>)> {
        let header = range.map(|(from, to)| format!("Range: bytes={from}-{to}\r\n"));
        let header = header.unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n{header}\r\n");
        let (status, _, body) = self.exchange(request.as_bytes())?;
        Ok((status, body))
    }

    /// Sends a request with a body.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {length}\r\n\r\n");
        Ok(self.ask(&[head.as_bytes(), body].concat())?.0)
    }

    /// Sends a `POST` without a body.
    pub(crate) fn post(&mut self, path: &str) -> io::Result<Answer> {
        self.request("POST", path)
    }

    /// Sends a `POST` of these bytes.
    pub(crate) fn post_bytes(&mut self, path: &str, body: &[u8]) -> io::Result<Answer> {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {length}\r\n\r\n");
        Ok(self.ask(&[head.as_bytes(), body].concat())?.0)
    }

    /// As [`Connection::post`], with a token.
    pub(crate) fn post_as(&mut self, token: &str, path: &str) -> io::Result<Answer> {
        self.request_with("POST", &format!("Authorization: Bearer {token}\r\n"), path)
    }

    /// Sends a request without a body.
    pub(crate) fn request(&mut self, method: &str, path: &str) -> io::Result<Answer> {
        self.request_with(method, "", path)
    }

    fn request_with(&mut self, method: &str, header: &str, path: &str) -> io::Result<Answer> {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: node\r\nContent-Length: 0\r\n{header}\r\n");
        Ok(self.ask(request.as_bytes())?.0)
    }

    /// The answer, and after how many seconds to come back, if it says so.
    fn ask(&mut self, request: &[u8]) -> io::Result<(Answer, Option<u64>)> {
        let (status, retry_after, body) = self.exchange(request)?;
        let answer = Answer { status, body: String::from_utf8_lossy(&body).into_owned() };
        Ok((answer, retry_after))
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, Option<u64>, Vec<u8>)> {
        self.stream.get_mut().write_all(request)?;
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let (mut length, mut retry_after) = (0, None);
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    length = value.parse().map_err(|_| io::ErrorKind::InvalidData)?;
                }
                "retry-after" => retry_after = value.parse::<u64>().ok(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, retry_after, body))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn to_protobuf(records: &[Record]) -> Vec<u8> {
    let text = |text: &str| AnyValue { value: Some(Value::StringValue(text.to_owned())) };
    let log_records = records.iter().map(|record| LogRecord {
        body: Some(text(&record.body)),
        attributes: Vec::from_iter(record.attribute.as_ref().map(|(key, value)| KeyValue {
            key: (*key).to_owned(),
            value: Some(text(value)),
            ..KeyValue::default()
        })),
        ..LogRecord::default()
    });
    let scope = ScopeLogs { log_records: log_records.collect(), ..ScopeLogs::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec()
}

fn to_json(records: &[Record]) -> Vec<u8> {
    let records = records.iter().map(|record| {
        let attribute = record
            .attribute
            .as_ref()
            .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}));
        json!({"body": {"stringValue": record.body}, "attributes": Vec::from_iter(attribute)})
    });
    let records: Vec<_> = records.collect();
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string().into_bytes()
}
