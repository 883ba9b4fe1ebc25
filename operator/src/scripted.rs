//! An API server for tests: it keeps objects, notes what it is asked, and answers wrongly where a
//! test wants it to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use k8s_openapi::ByteString;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// Something that was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
    /// Whether something was made that was not there.
    pub(crate) made: bool,
}

impl Asked {
    /// The method and the last parts of the path: `PATCH statefulsets/logs`.
    pub(crate) fn short(&self) -> String {
        let (_, end) = self.path.split_once("/namespaces/").unwrap_or(("", &self.path));
        let end = end.split_once('/').map_or(end, |(_, end)| end);
        // The name of an event has its time.
        let end = if end.starts_with("events/") { "events" } else { end };
        format!("{} {end}", self.method)
    }

    /// Whether it changes anything.
    pub(crate) fn is_change(&self) -> bool {
        self.method != Method::GET
    }
}

/// The server; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    asked: Vec<Asked>,
    wrong: Vec<(String, StatusCode, String)>,
    said: BTreeMap<String, Value>,
    hanging: Vec<String>,
}

impl Server {
    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some((request, respond)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let asked = Asked {
                    method: head.method,
                    path: head.uri.path().to_owned(),
                    query: head.uri.query().unwrap_or_default().to_owned(),
                    body: serde_json::from_slice(&body).unwrap_or_default(),
                    made: false,
                };
                if server.lock().hanging.contains(&asked.short()) {
                    unanswered.push(respond);
                    continue;
                }
                let is_group = asked.path.split('/').count() == 4;
                let (status, answer) = server.lock().note(asked);
                let answer = match status {
                    // Of groups that there are not it speaks as to a browser.
                    StatusCode::NOT_FOUND if is_group => Body::from(b"404 page not found".to_vec()),
                    _ => Body::from(serde_json::to_vec(&answer).unwrap()),
                };
                respond.send_response(Response::builder().status(status).body(answer).unwrap());
            }
        });
        Client::new(service, "shop")
    }

    /// Has an object, whoever put it there.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.objects.insert(path.to_owned(), object);
    }

    /// Has an object no more.
    pub(crate) fn remove(&self, path: &str) {
        self.lock().objects.remove(path);
    }

    /// An object.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// The objects whose path has this part, by path.
    pub(crate) fn all(&self, part: &str) -> Vec<Value> {
        let state = self.lock();
        let found = state.objects.iter().filter(|(path, _)| path.contains(part));
        found.map(|(_, object)| object.clone()).collect()
    }

    /// What was asked since this was last called.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.lock().asked)
    }

    /// Answers what is asked like this (a method, and the end of a path) with this status.
    pub(crate) fn refuse(&self, what: &str, status: StatusCode, reason: &str) {
        self.lock().wrong.push((what.to_owned(), status, reason.to_owned()));
    }

    /// Answers what is asked like this (a method, and the end of a path) with this object.
    pub(crate) fn say(&self, what: &str, object: Value) {
        self.lock().said.insert(what.to_owned(), object);
    }

    /// Never answers what is asked like this (a method, and the end of a path).
    pub(crate) fn hang(&self, what: &str) {
        self.lock().hanging.push(what.to_owned());
    }

    /// Answers rightly again.
    pub(crate) fn relent(&self) {
        self.lock().wrong.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn note(&mut self, asked: Asked) -> (StatusCode, Value) {
        let (status, answer) = self.answer(asked.clone());
        self.asked.push(Asked { made: status == StatusCode::CREATED, ..asked });
        (status, answer)
    }

    fn answer(&mut self, asked: Asked) -> (StatusCode, Value) {
        let short = asked.short();
        if let Some((_, status, reason)) = self.wrong.iter().find(|(what, ..)| short == *what) {
            return failure(*status, reason);
        }
        if let Some(object) = self.said.get(&short) {
            return (StatusCode::OK, object.clone());
        }
        let path = asked.path.trim_end_matches("/status").to_owned();
        let known = self.objects.get(&path).cloned();
        match (asked.method.as_str(), known) {
            ("GET", Some(object)) => (StatusCode::OK, object),
            ("PATCH", known) if asked.query.contains("force") || known.is_none() => {
                self.apply(path, &asked, known)
            }
            ("PATCH", Some(known)) => {
                let mut merged = known;
                merge(&mut merged, &asked.body);
                (StatusCode::OK, self.store(path, merged))
            }
            ("POST", _) => {
                let name = asked.body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return failure(StatusCode::CONFLICT, "AlreadyExists");
                }
                (StatusCode::CREATED, self.store(path, asked.body))
            }
            ("PUT", Some(known)) => {
                let is_same = |it: &Value| it["metadata"]["resourceVersion"].clone();
                if is_same(&known) != is_same(&asked.body) {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                (StatusCode::OK, self.store(path, asked.body))
            }
            ("DELETE", Some(known)) => {
                let wanted = &asked.body["preconditions"]["uid"];
                if !wanted.is_null() && *wanted != known["metadata"]["uid"] {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                self.objects.remove(&path);
                (StatusCode::OK, known)
            }
            _ => failure(StatusCode::NOT_FOUND, "NotFound"),
        }
    }

    /// As server-side apply, as far as the operator's own fields go.
    fn apply(&mut self, path: String, asked: &Asked, known: Option<Value>) -> (StatusCode, Value) {
        let metadata = &asked.body["metadata"];
        let Some(known) = known else {
            let mut object = asked.body.clone();
            object["metadata"]["uid"] = json!(format!("uid of {path}"));
            return (StatusCode::CREATED, self.store(path, object));
        };
        for field in ["uid", "resourceVersion"] {
            if !metadata[field].is_null() && metadata[field] != known["metadata"][field] {
                return failure(StatusCode::CONFLICT, "Conflict");
            }
        }
        let mut merged = known.clone();
        merge(&mut merged, &asked.body);
        keep_data(&mut merged);
        if merged == known {
            return (StatusCode::OK, known);
        }
        (StatusCode::OK, self.store(path, merged))
    }

    fn store(&mut self, path: String, mut object: Value) -> Value {
        self.version += 1;
        keep_data(&mut object);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path, object.clone());
        object
    }
}

fn failure(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let status_object = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": format!("{reason} says the API server"), "code": status.as_u16(),
    });
    (status, status_object)
}

/// What a Secret is given as text it keeps as base64.
fn keep_data(object: &mut Value) {
    let Some(texts) = object.as_object_mut().and_then(|it| it.remove("stringData")) else { return };
    for (name, text) in texts.as_object().into_iter().flatten() {
        let bytes = ByteString(text.as_str().unwrap_or_default().as_bytes().to_vec());
        object["data"][name] = serde_json::to_value(bytes).unwrap();
    }
}

/// Members of objects one by one; everything else as a whole.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
