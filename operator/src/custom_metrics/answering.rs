//! One question: who asks, whether they may, and the answer.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;
use tracing::debug;

use super::front_proxy::{FrontProxy, User};
use super::question::{Question, is_probe};
use super::refusal::Refusal;
use super::{GROUP, values};
use crate::nodes::Network;

/// How long an answer may take: two requests to the API server, and nodes that are silent.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Answers what the API is asked; cheap to clone.
#[derive(Clone)]
pub(super) struct Answers {
    pub(super) client: Client,
    pub(super) network: Network,
}

impl Answers {
    /// Answers a request, over a connection that the proxy has opened if one is given.
    pub(super) async fn answer<B>(
        &self,
        proxy: Option<&FrontProxy>,
        request: Request<B>,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if is_probe(path) {
            return response(StatusCode::OK, "text/plain", Bytes::from_static(b"ok\n"));
        }
        let user = proxy.and_then(|proxy| proxy.user(request.headers()));
        let question = Question::of(request.method(), request.uri());
        let answered = timeout(ANSWER_WITHIN, self.told(user, question, path));
        let answered = answered.await.unwrap_or_else(|_| {
            Err(Refusal::Unavailable(format!("no answer within {ANSWER_WITHIN:?}")))
        });
        match answered {
            Ok(body) => json(StatusCode::OK, &body),
            Err(refusal) => {
                debug!(?refusal, path, "a question is not answered");
                let (code, status) = refusal.status();
                json(code, &status)
            }
        }
    }

    async fn told(
        &self,
        user: Option<User>,
        question: Result<Question, Refusal>,
        path: &str,
    ) -> Result<Value, Refusal> {
        let user = user.ok_or(Refusal::Unauthenticated)?;
        let question = question?;
        self.permit(user, &question, path).await?;
        match question {
            Question::Values(asked) => values::list(&self.client, &self.network, &asked).await,
            Question::Document(document) => {
                document.body().map_err(|error| Refusal::Unavailable(error.to_string()))
            }
        }
    }

    /// Asks the API server whether somebody may ask this.
    async fn permit(&self, user: User, question: &Question, path: &str) -> Result<(), Refusal> {
        let name = user.name.clone();
        let spec = question.review(user, path);
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let reviewed = reviews.create(&PostParams::default(), &review).await;
        let reviewed = reviewed.map_err(|error| {
            Refusal::Unavailable(format!("ask whether {name:?} may do this: {error}"))
        })?;
        let status = reviewed.status.unwrap_or_default();
        if status.allowed {
            return Ok(());
        }
        let reason = status.reason.unwrap_or_default();
        Err(Refusal::Forbidden(format!("User {name:?} cannot get {path} of {GROUP}. {reason}")))
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(body) {
        Ok(body) => response(status, "application/json", body.into()),
        Err(error) => {
            let body = error.to_string().into();
            response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", body)
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let content_type = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
